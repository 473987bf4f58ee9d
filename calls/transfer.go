package calls

import "encoding/json"

// TransferRequest asks for a call to be moved, in the words that the API and agents
// use; docs/transfers.md tells what they mean.
type TransferRequest struct {
	To      string `json:"to"`
	From    string `json:"from"`
	Mode    string `json:"mode"`
	Agent   string `json:"agent"`
	Timeout int    `json:"timeout_s"` // to let it ring; 0: the usual time
	Whisper string `json:"whisper"`
	// Language and Voice are those of Whisper; empty: those of all that the bridge says.
	Language string            `json:"language"`
	Voice    string            `json:"voice"`
	Brief    string            `json:"brief"`
	Accept   string            `json:"accept"`
	Digits   string            `json:"digits"`
	Detect   bool              `json:"machine_detection"`
	Hold     string            `json:"hold"`
	OnFail   OnFail            `json:"on_fail"`
	OnEnd    string            `json:"on_end"`
	Context  map[string]string `json:"context"`
}

// MaxContext bounds what a transfer hands on, in bytes as JSON.
const MaxContext = 4 << 10

// ContextFits reports whether the context is within MaxContext.
func (r *TransferRequest) ContextFits() bool {
	b, err := json.Marshal(r.Context)
	return err == nil && len(b) <= MaxContext
}

// OnFail says what becomes of the caller by the reason of a failure; "" is for all
// others. As JSON it may also be one string, for all.
type OnFail map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (o *OnFail) UnmarshalJSON(b []byte) error {
	var all string
	if json.Unmarshal(b, &all) == nil {
		*o = OnFail{"": all}
		return nil
	}
	var by map[string]string
	if err := json.Unmarshal(b, &by); err != nil {
		return err
	}
	*o = by
	if d, ok := by["default"]; ok {
		by[""] = d
		delete(by, "default")
	}
	return nil
}
