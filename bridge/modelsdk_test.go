package bridge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/models"
)

// exchanged is what a model and its client said, for the vendor's SDK to judge.
type exchanged struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (x *exchanged) note(what string, v any) {
	message, is := v.(map[string]any)
	if !is {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	side := map[bool]string{true: "server", false: "client"}[what == models.Sent]
	_ = json.NewEncoder(&x.lines).Encode(map[string]any{"side": side, "message": message})
}

// saidBySDK reads lines of JSON.
func saidBySDK(t *testing.T, out []byte) (all []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(out) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

// TestModelSDKs: the vendors' own SDKs have a call with the simulated models, and take all that is said in
// a call between these and the bridge.
func TestModelSDKs(t *testing.T) {
	node := sdkNode(t)
	for name, tt := range map[string]struct {
		script string
		serve  func(*models.Script) models.Model
		url    func(server string) []string
	}{
		"openai": {"realtime.mjs", func(s *models.Script) models.Model { return models.OpenAI{Script: s} },
			func(server string) []string {
				return []string{"talk", "ws" + strings.TrimPrefix(server, "http") + "/v1/realtime?model=gpt-realtime-2.1"}
			}},
		"gemini": {"gemini.mjs", func(s *models.Script) models.Model { return models.Gemini{Script: s} },
			func(server string) []string { return []string{server} }},
		"elevenlabs": {"elevenlabs.mjs", func(s *models.Script) models.Model { return models.ElevenLabs{Script: s} },
			func(server string) []string {
				resp, err := http.DefaultClient.Do(signed(t, server))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var reply struct {
					URL string `json:"signed_url"`
				}
				if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
					t.Fatal(err)
				}
				return []string{reply.URL}
			}},
		"deepgram": {"deepgram.mjs", func(s *models.Script) models.Model { return models.Deepgram{Script: s} },
			func(server string) []string { return []string{"ws" + strings.TrimPrefix(server, "http")} }},
	} {
		t.Run(name+" talk", func(t *testing.T) {
			t.Parallel()
			model := tt.serve(&models.Script{Key: "sk-1", Answer: sdkAnswer})
			srv := httptest.NewServer(model)
			defer srv.Close()
			args := append([]string{sdkDir + tt.script}, tt.url(srv.URL)...)
			out, err := exec.Command(node, append(args, "100", "500", "900", "300", "1500")...).Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			seen := map[string]map[string]any{}
			for _, m := range saidBySDK(t, out) {
				seen[fmt.Sprint(m["event"])] = m
			}
			if seen["error"] != nil || seen["interrupted"] == nil ||
				!strings.HasSuffix(fmt.Sprint(seen["tool"]["result"]), "cake") || seen["end"]["bytes"] == 0.0 ||
				len(model.Complaints()) > 0 {
				t.Errorf("%s, the model complains of %v", out, model.Complaints())
			}
		})
	}
	t.Run("openai check", func(t *testing.T) {
		x := &exchanged{}
		virtual(t, func(t *testing.T) { sdkCall(t, x) })
		cmd := exec.Command(node, sdkDir+"realtime.mjs", "check")
		cmd.Stdin = &x.lines
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, m := range saidBySDK(t, out) {
			if m["event"] != "checked" {
				t.Errorf("refused is %v", m)
			} else if m["n"].(float64) < 200 {
				t.Errorf("only %v messages were looked at", m["n"])
			}
		}
	})
}

// signed asks for a signed URL.
func signed(t *testing.T, server string) *http.Request {
	t.Helper()
	req, err := http.NewRequest("GET", server+"/v1/convai/conversation/get-signed-url?agent_id=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("xi-api-key", "sk-1")
	return req
}

// sdkAnswer talks for long, then asks a tool.
func sdkAnswer(turn int) models.Answer {
	if turn == 0 {
		return models.Answer{PCM: ear.Sine(models.Rate, firstHz, 4*time.Second), Text: "So long a story."}
	}
	a := models.Answer{PCM: ear.Sine(models.Rate, secondHz, 500*time.Millisecond), Text: "Let me see."}
	if turn == 1 {
		a.Tool = &models.Tool{Name: "lookup", Arguments: `{"what":"cake"}`}
	}
	return a
}

// sdkCall is a call with a greeting, an interruption, keys and tools.
func sdkCall(t *testing.T, x *exchanged) {
	script := &models.Script{Answer: func(turn int) models.Answer {
		a := sdkAnswer(turn)
		if a.Tool != nil {
			a.Tool = &models.Tool{Name: "send_digits", Arguments: `{"digits":"12"}`}
		}
		if turn >= 3 {
			a.Tool = &models.Tool{Name: "end_call", Arguments: `{}`}
		}
		return a
	}, Note: x.note}
	url, stop := memnet.Serve(models.OpenAI{Script: script})
	defer stop()
	d := modelDialer(t, "openai", "ws"+strings.TrimPrefix(url, "http")+"/", optionsOf(&models.List[0]),
		tools.Config{EndCall: true, SendDigits: true})
	b := startBridge(t, "", func(o *options) { o.dialer = d })
	c := b.caller(t, "twilio", 12*time.Second)
	rate := c.Start.In.Rate
	for range 3 {
		c.Voice = append(c.Voice, make([]int16, rate*2)...)
		c.Voice = append(c.Voice, ear.Sine(rate, 400, 600*time.Millisecond)...)
	}
	call(t, c)
	b.ended(t, calls.AgentHangup)
	if len(script.Complaints()) > 0 {
		t.Errorf("the model complains: %v", script.Complaints())
	}
}
