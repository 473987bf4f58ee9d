package model

import (
	"errors"
	"fmt"
	"maps"
	"net/http"

	"golang.org/x/net/http/httpguts"

	"voicebridge/agent"
)

// Options are what all models have: the first block of a dialect's own.
type Options struct {
	Key          string         `yaml:"key"`
	Model        string         `yaml:"model"`
	Instructions string         `yaml:"instructions"`
	Greeting     string         `yaml:"greeting"`
	Voice        string         `yaml:"voice"`
	Language     string         `yaml:"language"`
	Session      map[string]any `yaml:"session"` // the vendor's own, as it is
}

// Check tells what is wrong with the options of an agent, naming the field.
func (o *Options) Check(all *agent.Options) error {
	switch {
	case all.InputRate != 0 || all.OutputRate != 0:
		return errors.New("input_rate, output_rate: are chosen by the call's audio")
	case !httpguts.ValidHeaderFieldValue(o.Key):
		return errors.New("options.key: has characters that a header cannot carry")
	}
	return nil
}

// Need tells which of the options is missing.
func Need(name, value string) error {
	if value == "" {
		return fmt.Errorf("options.%s: must be set", name)
	}
	return nil
}

// Merge puts what is configured into what the bridge says, object by object; what is configured counts.
func Merge(into, configured map[string]any) {
	for name, value := range configured {
		inner, isObject := value.(map[string]any)
		if has, too := into[name].(map[string]any); isObject && too {
			Merge(has, inner)
			continue
		}
		if isObject {
			value = maps.Clone(inner)
		}
		into[name] = value
	}
}

// Fixed tells that a field is configured that is the bridge's: a path such as audio, input, format.
func Fixed(configured map[string]any, path ...string) error {
	at := configured
	field := "options.session"
	for i, name := range path {
		field += "." + name
		value, has := at[name]
		if !has {
			return nil
		}
		if i == len(path)-1 {
			return fmt.Errorf("%s: is set by the bridge", field)
		}
		var isObject bool
		if at, isObject = value.(map[string]any); !isObject {
			return fmt.Errorf("%s: must be an object", field)
		}
	}
	return nil
}

// Header sets one of a handshake, unless it is configured otherwise or there is nothing to show.
func Header(h http.Header, name, value, key string) {
	if key != "" && h.Get(name) == "" {
		h.Set(name, value+key)
	}
}
