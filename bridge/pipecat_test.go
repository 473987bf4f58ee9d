package bridge_test

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"voicebridge/agent/tools"
	"voicebridge/calls"
	"voicebridge/sim/ear"
	"voicebridge/sim/memnet"
	"voicebridge/ws"
)

// TestPipecat: an agent of pipecat that echoes is heard, and ends the call by a message of RTVI.
func TestPipecat(t *testing.T) {
	t.Parallel()
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// A frame of 640 bytes at 16 kHz, as the reference compiler writes it.
	head, tail := unhex("1288051a8005"), unhex("20807d2801")
	hangup := `{"label":"rtvi-ai","type":"server-message","data":{"voicebridge":{"type":"hangup"}}}`
	for _, spec := range specs {
		run(t, spec.Name, func(t *testing.T) {
			alike(t, spec.Name)
			url, stop := memnet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := ws.Accept(w, r, nil, ws.Limits{Text: 1, Binary: 1 << 20, Write: time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Release()
				defer c.Close(ws.CloseNormal, "")
				for n := 0; ; {
					binary, data, err := c.Read()
					if err != nil {
						return
					}
					if !binary || !bytes.HasPrefix(data, head) || !bytes.HasSuffix(data, tail) {
						if !bytes.Contains(data, []byte("rtvi-ai")) {
							t.Errorf("it is sent %x", data)
						}
						continue
					}
					if n++; n == 200 {
						inner := append([]byte{1<<3 | 2, byte(len(hangup))}, hangup...)
						data = append([]byte{4<<3 | 2, byte(len(inner))}, inner...)
					}
					if err := c.Write(true, data); err != nil {
						return
					}
				}
			}))
			defer stop()
			d := modelDialer(t, "pipecat", "ws"+strings.TrimPrefix(url, "http")+"/", map[string]any{"rtvi": true}, tools.Config{})
			b := startBridge(t, "", func(o *options) {
				o.dialer = d
				o.session.Prebuffer = 80 * time.Millisecond
			})
			r := call(t, b.caller(t, spec.Name, 8*time.Second))
			b.ended(t, calls.AgentHangup)
			said := r.Said[:r.Format.Rate*3]
			if snr := ear.SNR(said, r.Heard, ear.Align(said, r.Heard, r.Format.Rate/2)); snr < 25 {
				t.Errorf("the echo came back with %.1f dB", snr)
			}
		})
	}
}
