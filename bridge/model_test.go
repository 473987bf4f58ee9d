package bridge_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/models"
)

// vendors are the models behind their vendors' sockets.
var vendors = []struct {
	dialect  string
	options  map[string]any
	serve    func(*models.Script) simulated
	truncate func(what string, v map[string]any) (ms float64, is bool)
}{
	{"openai", map[string]any{"key": "sk-1", "model": "gpt-realtime-2.1", "greeting": "Greet the caller.",
		"transcription": "gpt-transcribe"},
		func(s *models.Script) simulated { return models.OpenAI{Script: s} },
		func(what string, v map[string]any) (float64, bool) {
			ms, is := v["audio_end_ms"].(float64)
			return ms, is && what == "conversation.item.truncate"
		}},
}

// simulated is a simulated model.
type simulated = interface {
	http.Handler
	Complaints() []string
}

// modelDialer dials a model.
func modelDialer(t *testing.T, dialect, url string, options map[string]any, set tools.Config) agent.Dialer {
	t.Helper()
	d := dialects.Lookup(dialect)
	own, err := tools.New(set)
	if err != nil {
		t.Fatal(err)
	}
	protocol, err := d.New(agent.Options{Tools: own, Decode: func(into any) error {
		b, err := yaml.Marshal(options)
		if err == nil {
			err = yaml.UnmarshalWithOptions(b, into, yaml.Strict())
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	dialer, err := link.New(link.Config{Dialect: d, Protocol: protocol, URL: url, Dialer: network})
	if err != nil {
		t.Fatal(err)
	}
	return dialer
}

// TestModels: a model's answer of 6 s, made in a burst, is interrupted by the caller. What the model is
// told was heard was heard, nothing of the old answer comes after it, and what was said is told.
func TestModels(t *testing.T) {
	t.Parallel()
	for _, v := range vendors {
		for _, spec := range specs {
			for _, at := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 5800 * time.Millisecond} {
				run(t, fmt.Sprint(v.dialect, " ", spec.Name, " ", at), func(t *testing.T) {
					alike(t, spec.Name)
					var mu sync.Mutex
					var cuts []float64
					script := &models.Script{Key: "sk-1",
						Answer: func(turn int) models.Answer {
							if turn == 0 {
								return models.Answer{PCM: ear.Sine(models.Rate, firstHz, 6*time.Second),
									Text: strings.Repeat("and so on ", 12)}
							}
							return models.Answer{PCM: ear.Sine(models.Rate, secondHz, time.Second), Text: "Good bye.",
								Tool: &models.Tool{Name: "end_call", Arguments: `{"reason":"done"}`}}
						},
						Note: func(what string, m any) {
							mu.Lock()
							defer mu.Unlock()
							fields, _ := m.(map[string]any)
							if ms, is := v.truncate(what, fields); is {
								cuts = append(cuts, ms)
							}
						}}
					model := v.serve(script)
					url, stop := memnet.Serve(model)
					defer stop()
					d := modelDialer(t, v.dialect, "ws"+strings.TrimPrefix(url, "http")+"/", v.options,
						tools.Config{EndCall: true})
					b := startBridge(t, "", func(o *options) { o.dialer = d })
					c := b.caller(t, spec.Name, at+8*time.Second)
					rate := c.Start.In.Rate
					c.Voice = append(make([]int16, int(at.Seconds()*float64(rate))), ear.Sine(rate, 400,
						600*time.Millisecond)...)
					c.Voice = append(c.Voice, make([]int16, 8*rate)...)
					r := call(t, c)
					end := b.ended(t, calls.AgentHangup)
					_ = end
					first, second := answers(r.Heard, r.Format.Rate)
					heard := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate)
					mu.Lock()
					defer mu.Unlock()
					if len(model.Complaints()) > 0 {
						t.Errorf("the model complains: %v", model.Complaints())
					}
					if len(cuts) != 1 {
						t.Fatalf("it is told of %v", cuts)
					}
					t.Logf("%v heard, told %v", heard, cuts)
					if off := time.Duration(cuts[0])*time.Millisecond - heard; off.Abs() > 60*time.Millisecond {
						t.Errorf("%v are heard, it is told %v ms", heard, cuts[0])
					}
					if !ear.Hears(first, r.Format.Rate, firstHz) || !ear.Hears(second, r.Format.Rate, secondHz) ||
						ear.Hears(second, r.Format.Rate, firstHz) {
						t.Errorf("of the second answer %d samples are heard", len(second))
					}
				})
			}
		}
	}
}
