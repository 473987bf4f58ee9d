package bridge_test

import (
	"fmt"
	"maps"
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
	"voicebridge/session"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/sim/models"
)

// truncated is what a message tells a model of how much was heard, where it can be told.
func truncated(what string, v any) (ms float64, is bool) {
	m, _ := v.(map[string]any)
	ms, is = m["audio_end_ms"].(float64)
	return ms, is && what == "conversation.item.truncate"
}

// optionsOf are those of an agent that greets.
func optionsOf(k *models.Kind) map[string]any {
	options := maps.Clone(k.Options)
	if k.Greets {
		options["greeting"] = "Greet the caller."
	}
	return options
}

// modelDialer dials a model.
func modelDialer(t *testing.T, dialect, url string, options map[string]any, set tools.Config) agent.Dialer {
	t.Helper()
	d := dialects.Lookup(dialect)
	own, err := tools.New(set)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: memnet.Dial, DisableKeepAlives: true}}
	protocol, err := d.New(agent.Options{Tools: own, HTTP: client, Decode: func(into any) error {
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

// transcript looks at what was said: the interrupted answer, of which a part was heard, the caller where that
// is told, and the last words.
func transcript(t *testing.T, b *running, at time.Duration) {
	t.Helper()
	list := b.Control().Calls().List(10, func(*calls.Call) bool { return true })
	if len(list) != 1 {
		t.Fatalf("there are %d calls", len(list))
	}
	lines, _ := b.Control().Calls().Transcript(list[0].ID)
	said := map[calls.Role][]calls.Line{}
	for _, l := range lines {
		said[l.Role] = append(said[l.Role], l)
	}
	mine := said[calls.Agent]
	if len(mine) != 2 || !mine[0].Interrupted || mine[1] != (calls.Line{Role: calls.Agent, Text: "Good bye.",
		From: mine[1].From, To: mine[1].To}) || len(said[calls.Caller]) != 1 {
		t.Fatalf("the transcript is %+v", lines)
	}
	part := float64(len(mine[0].Heard)) / float64(len(mine[0].Text))
	if length := time.Duration(mine[0].To-mine[0].From) * time.Millisecond; part > at.Seconds()/6+0.1 ||
		part < at.Seconds()/6-0.1 || length < at-100*time.Millisecond || length > at+400*time.Millisecond {
		t.Errorf("interrupted after %v, the transcript has %+v", at, mine[0])
	}
}

// TestModels: a model's answer of 6 s, made in a burst, is interrupted by the caller. What the model is
// told was heard was heard, nothing of the old answer comes after it, and what was said is told.
func TestModels(t *testing.T) {
	t.Parallel()
	for _, v := range models.List {
		for _, spec := range specs {
			for _, at := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 5800 * time.Millisecond} {
				run(t, fmt.Sprint(v.Dialect, " ", spec.Name, " ", at), func(t *testing.T) {
					alike(t, spec.Name)
					var mu sync.Mutex
					var cuts []float64
					script := &models.Script{Key: models.Key,
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
							if ms, is := truncated(what, m); is {
								cuts = append(cuts, ms)
							}
						}}
					model := v.New(script)
					url, stop := memnet.Serve(model)
					defer stop()
					d := modelDialer(t, v.Dialect, "ws"+strings.TrimPrefix(url, "http")+"/", optionsOf(&v),
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
					if v.Dialect == "openai" && (len(cuts) != 1 ||
						(time.Duration(cuts[0])*time.Millisecond-heard).Abs() > 60*time.Millisecond) {
						t.Errorf("%v are heard, it is told %v ms", heard, cuts)
					}
					if !v.Duplex {
						transcript(t, b, at)
					}
					if heard < at || heard > at+250*time.Millisecond {
						t.Errorf("%v are heard of an answer that is interrupted after %v", heard, at)
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

// TestModelLost: a model whose connection breaks is back within a second in the same call, and knows what was
// said. The caller hears what it has said so far to its end, without a gap.
func TestModelLost(t *testing.T) {
	t.Parallel()
	for _, v := range models.List {
		run(t, v.Dialect, func(t *testing.T) {
			var mu sync.Mutex
			var said []string // after the break
			var away, back time.Time
			script := &models.Script{Key: models.Key, Break: 2 * time.Second,
				Answer: func(turn int) models.Answer {
					if turn == 0 {
						return models.Answer{PCM: ear.Sine(models.Rate, firstHz, 5*time.Second), Text: "What a day."}
					}
					return models.Answer{PCM: ear.Sine(models.Rate, secondHz, time.Second), Text: "Good bye.",
						Tool: &models.Tool{Name: "end_call", Arguments: `{}`}}
				},
				Note: func(what string, m any) {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case what == "closed" && away.IsZero():
						away = time.Now()
					case !away.IsZero() && back.IsZero() && what == models.Sent:
						back = time.Now()
					}
					if !away.IsZero() && what != models.Sent {
						said = append(said, fmt.Sprint(m))
					}
				}}
			model := v.New(script)
			url, stop := memnet.Serve(model)
			defer stop()
			d := modelDialer(t, v.Dialect, "ws"+strings.TrimPrefix(url, "http")+"/", optionsOf(&v), tools.Config{EndCall: true})
			b := startBridge(t, "", func(o *options) {
				o.dialer = d
				o.session.Reconnect = session.Reconnect{Times: 2, Pause: time.Second}
			})
			c := b.caller(t, "twilio", 20*time.Second)
			rate := c.Start.In.Rate
			c.Voice = append(make([]int16, 8*rate), ear.Sine(rate, 400, 600*time.Millisecond)...)
			c.Voice = append(c.Voice, make([]int16, 12*rate)...)
			r := call(t, c)
			b.ended(t, calls.AgentHangup)
			mu.Lock()
			defer mu.Unlock()
			if len(model.Complaints()) > 0 {
				t.Errorf("the model complains: %v", model.Complaints())
			}
			if away.IsZero() || back.IsZero() || back.Sub(away) > time.Second {
				t.Errorf("it is away at %v and back at %v", away, back)
			}
			first, second := answers(r.Heard, r.Format.Rate)
			whole := time.Duration(len(first)) * time.Second / time.Duration(r.Format.Rate)
			if v.Duplex { // it had said no more
				whole += 3 * time.Second
			}
			if whole < 4950*time.Millisecond || v.Dialect != "elevenlabs" && !ear.Hears(second, r.Format.Rate, secondHz) {
				t.Errorf("%v are heard of the first answer", whole)
			}
			// Agents at ElevenLabs always begin with their first message.
			if click := clicks(first); click > 0 && v.Dialect != "elevenlabs" {
				t.Errorf("there are %d clicks in it", click)
			}
			kept := v.Dialect == "gemini" && strings.Contains(fmt.Sprint(said), "handle:h-1")
			if !strings.Contains(fmt.Sprint(said), "What a day.") && !kept {
				t.Errorf("it knows nothing of what was said: %.2000s", fmt.Sprint(said))
			}
		})
	}
}

// clicks counts steps that a tone has not.
func clicks(pcm []int16) (n int) {
	most := 0
	for i := 1; i < min(len(pcm), 2000); i++ {
		most = max(most, abs(int(pcm[i])-int(pcm[i-1])))
	}
	for i := 1; i < len(pcm)-200; i++ {
		if abs(int(pcm[i])-int(pcm[i-1])) > most+most/8 {
			n++
		}
	}
	return n
}

func abs(n int) int { return max(n, -n) }
