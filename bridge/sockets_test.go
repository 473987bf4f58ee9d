package bridge_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"voicebridge/agent/link"
	"voicebridge/calls"
	"voicebridge/sim"
	"voicebridge/sim/ear"
)

// TestSockets: what all other tests do in memory and in virtual time works over TCP,
// with event loops. It is judged by what was said, not by when.
func TestSockets(t *testing.T) {
	for _, spec := range specs {
		t.Run(spec.Name, func(t *testing.T) {
			t.Parallel()
			agents := &sim.Agent{Talk: sim.Echo, Log: slog.New(slog.DiscardHandler)}
			l := listenTCP(t)
			srv := &http.Server{Handler: agents, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			go func() { _ = srv.Serve(l) }() // ends with Close
			t.Cleanup(func() { srv.Close(); agents.Wait() })
			b := startBridge(t, "", func(o *options) {
				o.sockets = true
				o.dialer = dialer(t, link.Config{URL: "ws://" + l.Addr().String() + "/"})
				o.session.Prebuffer = 700 * time.Millisecond // whatever else the machine does
			})
			r := call(t, b.caller(t, spec.Name, 3*time.Second))
			b.ended(t, calls.CallerHangup)
			said := r.Said[:len(r.Said)/2]
			if r.Complaints != 0 || len(r.Received) < len(said) {
				t.Fatalf("%d complaints %v, %d samples of %d came back", r.Complaints, r.Warnings, len(r.Received),
					len(r.Said))
			}
			if snr := ear.SNR(said, r.Received, ear.Align(said, r.Received, r.Format.Rate/2)); snr < 25 {
				t.Errorf("the echo came back with %.1f dB", snr)
			}
			resp, err := http.Get(b.admin + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			want := `voicebridge_calls_ended_total{cause="caller_hangup",provider="` + spec.Name + `"} 1`
			if err != nil || !strings.Contains(string(text), want) {
				t.Errorf("metrics do not say %s: %v", want, err)
			}
		})
	}
}
