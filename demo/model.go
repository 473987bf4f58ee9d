package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/control"
	"voicebridge/notify"
	"voicebridge/progress"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/sim/models"
	"voicebridge/sim/stream"
	"voicebridge/wav"
)

// interrupts is when the caller interrupts the model.
const interrupts = 3 * time.Second

// talk is a call with a simulated model.
type talk struct {
	*Command
	spec   *providers.Spec
	format codec.Format
	log    *slog.Logger
	group  sync.WaitGroup
	close  []func()

	mu    sync.Mutex
	asked []string // tools
	cuts  []string // what the model was told of what was heard
}

// model makes a call to a simulated model, which the caller interrupts and which uses a tool of the user's.
func (c *Command) model(ctx context.Context, out io.Writer, spec *providers.Spec, format codec.Format,
	voice []int16) error {
	t := &talk{Command: c, spec: spec, format: format, log: slog.New(slog.DiscardHandler)}
	if c.Verbose {
		t.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	defer func() {
		for _, stop := range slices.Backward(t.close) {
			stop()
		}
		t.group.Wait()
	}()
	model, dialer, err := t.agents()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	limits := bridge.Defaults
	limits.Drain = 2 * time.Second
	server := bridge.New(bridge.Config{Providers: all.Specs, Loops: 1, Limits: limits, Insecure: true, Log: t.log,
		Agents: map[string]control.Agent{"": {Dialer: dialer, Session: session.Defaults}}})
	serving, stop := context.WithCancel(ctx)
	t.close = append(t.close, stop)
	t.group.Go(func() { _ = server.Serve(serving, l, nil) }) // ends with stop
	fmt.Fprintf(out, "%s, %v  ->  bridge  ->  simulated model, %s\n", spec.Title, format,
		dialects.Lookup(c.Protocol).Title)
	show := progress.New(out, models.ConversationTime)
	rate := format.Rate
	length := models.ConversationTime
	voice = append(make([]int16, int(interrupts.Seconds()*float64(rate))), voice...)
	voice = append(voice, make([]int16, max(0, int(length.Seconds()*float64(rate))-len(voice)))...)
	caller := &stream.Caller{Spec: spec, URL: "ws://" + l.Addr().String() + "/media/" + spec.Name,
		Start: spec.Start(format), Voice: voice, Length: length, Progress: show.At}
	caller.Start.Account, caller.Start.Call = "AC00000000000000000000000000000000", "CA00000000000000000000000000000001"
	caller.Start.Stream = "MZ00000000000000000000000000000001"
	r, err := caller.Run(ctx)
	show.Done()
	if err != nil {
		return err
	}
	list := server.Control().Calls().List(1, func(*calls.Call) bool { return true })
	if len(list) != 1 {
		return errors.New("the bridge knows of no call")
	}
	return t.verdict(out, r, model, server.Control().Calls(), list[0].ID)
}

// agents starts the simulated model, and the webhook of its tool.
func (t *talk) agents() (models.Model, agent.Dialer, error) {
	speech, err := models.Voice()
	if err != nil {
		return nil, nil, err
	}
	at := slices.IndexFunc(models.List, func(k models.Kind) bool { return k.Dialect == t.Protocol })
	if at < 0 {
		return nil, nil, fmt.Errorf("--agent-protocol: %q has no simulated model: there are %s", t.Protocol,
			strings.Join(models.Names(), ", "))
	}
	kind := models.List[at]
	script := models.Conversation(speech)
	script.Note = t.note
	model := kind.New(script)
	url, err := t.serve(model)
	if err != nil {
		return nil, nil, err
	}
	hook, err := t.serve(http.HandlerFunc(t.findTrain))
	if err != nil {
		return nil, nil, err
	}
	set, err := tools.New(tools.Config{EndCall: true, Own: []tools.Own{{Name: "find_train",
		Description: "Finds the next train.", Webhook: notify.Target{URL: hook + "/tools"},
		Parameters: map[string]any{"type": "object",
			"properties": map[string]any{"to": map[string]any{"type": "string"}}}}}})
	if err != nil {
		return nil, nil, err
	}
	dialect := dialects.Lookup(t.Protocol)
	protocol, err := dialect.New(agent.Options{Tools: set, Decode: func(into any) error {
		options := map[string]any{}
		for name, v := range kind.Options {
			options[name] = v
		}
		if kind.Greets {
			options["greeting"] = "Greet the caller."
		}
		text, err := yaml.Marshal(options)
		if err != nil {
			return err
		}
		return yaml.UnmarshalWithOptions(text, into, yaml.Strict())
	}})
	if err != nil {
		return nil, nil, err
	}
	dialer, err := link.New(link.Config{Dialect: dialect, Protocol: protocol,
		URL: "ws" + strings.TrimPrefix(url, "http") + "/"})
	return model, dialer, err
}

func (t *talk) serve(h http.Handler) (url string, err error) {
	url, stop, err := serve(&t.group, h)
	if err == nil {
		t.close = append(t.close, stop)
	}
	return url, err
}

// findTrain is the tool of the user's.
func (t *talk) findTrain(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Arguments json.RawMessage `json:"arguments"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	t.asked = append(t.asked, string(asked.Arguments))
	t.mu.Unlock()
	_, _ = io.WriteString(w, `{"leaves":"09:10"}`)
}

// note keeps what the model is told of what was heard.
func (t *talk) note(what string, v any) {
	m, _ := v.(map[string]any)
	if end, has := m["audio_end_ms"]; has && what != models.Sent {
		t.mu.Lock()
		t.cuts = append(t.cuts, fmt.Sprintf("%v ms", end))
		t.mu.Unlock()
	}
}

// verdict shows what was said, and what is wrong.
func (t *talk) verdict(out io.Writer, r *stream.Result, model models.Model, book *calls.Book, id string) error {
	if err := errors.Join(wav.Write(filepath.Join(t.Out, callerFile), r.Said, r.Format.Rate),
		wav.Write(filepath.Join(t.Out, heardFile), r.Heard, r.Format.Rate)); err != nil {
		return err
	}
	lines, _ := book.Transcript(id)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w)
	var failures []string
	interrupted := false
	for _, l := range lines {
		text := l.Text
		if l.Interrupted {
			text = l.Heard + " -- (interrupted)"
			interrupted = interrupted || l.Heard != "" && l.Heard != l.Text
		}
		fmt.Fprintf(w, "  %.1f s\t%s\t%s\n", float64(l.From)/1000, l.Role, text)
	}
	w.Flush()
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(out, "\n  tool find_train asked with %s", strings.Join(t.asked, ", "))
	if len(t.cuts) > 0 {
		fmt.Fprintf(out, "; the model was told that %s of its greeting were heard", strings.Join(t.cuts, ", "))
	}
	fmt.Fprintf(out, "\n  written          %s\n\n", filepath.Join(t.Out, "{"+callerFile+","+heardFile+"}"))
	if complaints := model.Complaints(); len(complaints) > 0 {
		failures = append(failures, "the model complains: "+strings.Join(complaints, "; "))
	}
	if !interrupted {
		failures = append(failures, "the caller did not interrupt the model")
	}
	if len(t.asked) != 1 {
		failures = append(failures, fmt.Sprintf("the tool was asked %d times", len(t.asked)))
	}
	if call, _ := book.Get(id); call.Cause != string(calls.AgentHangup) {
		failures = append(failures, "the call ended with "+call.Cause+", not by the model")
	}
	if r.Complaints > 0 {
		failures = append(failures, fmt.Sprintf("the carrier complained %d times", r.Complaints))
	}
	if len(failures) > 0 {
		fmt.Fprintf(out, "The talk did not go as it should.\n  %s\n", strings.Join(failures, "\n  "))
		return ErrFailed
	}
	fmt.Fprintln(out, "The model greeted, was interrupted, used the tool, answered and ended the call.")
	return nil
}
