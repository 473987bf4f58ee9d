package bench

import (
	"bytes"
	"encoding/json"
	"net/http"

	"voicebridge/ws"
)

// modelPath is where agents are found that echo behind the protocol of a speech model, OpenAI's.
const modelPath = "/model"

// ModelURL is where they are.
func (g *Generator) ModelURL() string { return "ws://" + g.address + modelPath + "?model=echo" }

// modelEnd is the model's end of one call.
type modelEnd struct {
	g     *Generator
	conn  *ws.Conn
	ready bool
	out   []byte
}

var (
	appendHead = []byte(`{"type":"input_audio_buffer.append","audio":"`)
	appendTail = []byte(`"}`)
	deltaHead  = []byte(`{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i",` +
		`"output_index":0,"content_index":0,"delta":"`)
)

// model takes a bridge's connection to a model.
func (g *Generator) model(w http.ResponseWriter, r *http.Request) {
	conn, err := ws.Accept(w, r, nil, loadLimits)
	if err != nil {
		g.books.complain(err)
		return
	}
	_, _ = conn.Put(false, []byte(`{"type":"session.created","event_id":"e","session":{}}`)) // Closed tells
	conn.Serve(g.loops[int(g.serial.Load())%len(g.loops)], &modelEnd{g: g, conn: conn})
}

// Message implements ws.Handler.
func (e *modelEnd) Message(_ bool, data []byte) {
	if audio, is := bytes.CutPrefix(data, appendHead); is && e.ready {
		e.out = append(e.out[:0], deltaHead...)
		e.out = append(e.out, bytes.TrimSuffix(audio, appendTail)...)
		e.out = append(e.out, appendTail...)
		_, _ = e.conn.Put(false, e.out) // Closed tells
		return
	}
	var m struct{ Type string }
	if json.Unmarshal(data, &m) != nil || m.Type != "session.update" {
		return
	}
	e.ready = true
	_, _ = e.conn.Put(false, []byte(`{"type":"session.updated","event_id":"e","session":{}}`)) // Closed tells
	if c := e.g.unreached(); c != nil {
		c.connected()
	}
}

// unreached returns a call whose agent is not there yet: models are not told which call they have.
func (g *Generator) unreached() *loadCall {
	g.mu.Lock()
	defer g.mu.Unlock()
	var first *loadCall
	for _, c := range g.calls {
		c.mu.Lock()
		if !c.reached && (first == nil || c.begun < first.begun) {
			first = c
		}
		c.mu.Unlock()
	}
	return first
}

// Writable implements ws.Handler.
func (e *modelEnd) Writable() {}

// Closed implements ws.Handler.
func (e *modelEnd) Closed(error) { e.conn.Close(ws.CloseNormal, "") }
