package sim

import (
	"errors"
	"maps"

	"github.com/goccy/go-yaml"

	"voicebridge/codec"
	"voicebridge/providers"
)

// Settings opens the account like Open, and returns what the configuration of a bridge
// says of it.
func (x *Exchange) Settings(rest string, f codec.Format, from string) (map[string]any, error) {
	decode := x.Spec.Sample(rest, f)
	settings := map[string]any{}
	// what decode fills in is what the file would say
	if _, err := x.Spec.NewAccount(providers.Setup{Decode: func(c any) error {
		if err := decode(c); err != nil {
			return err
		}
		b, err := yaml.Marshal(c)
		return errors.Join(err, yaml.Unmarshal(b, &settings))
	}}); err != nil {
		return nil, err
	}
	maps.DeleteFunc(settings, func(_ string, v any) bool { return v == "" || v == 0 || v == uint64(0) })
	settings["provider"], settings["from"] = x.Spec.Name, from
	_, err := x.Open(rest, f)
	if err == nil {
		x.Office, err = x.Spec.NewExchange(providers.Setup{Decode: decode})
	}
	return settings, err
}
