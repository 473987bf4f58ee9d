package asteriskmedia

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/audiosocket"
	"voicebridge/providers/internal/byteorder"
	"voicebridge/providers/internal/rtpmedia"
)

// payloadTypes are Asterisk's (RFC 3551 for the first ones), and events those of digits.
var payloadTypes = map[string]uint8{"ulaw": 0, "alaw": 8, "slin": 11, "slin16": 118, "slin24": 123, "slin48": 126}

const events = 101

// wire is a format as RTP has it.
func wire(f codec.Format) codec.Format {
	if f.Encoding == codec.L16LE {
		f.Encoding = codec.L16BE
	}
	return f
}

// frames is a connection that has frames where chan_websocket has messages.
type frames interface {
	Serve(h rtpmedia.Handler)
	Play(frame []byte)
	Mark(name string)
	Flush()
	Close()
	Release()
}

// Frames is the audio of a channel over a connection that has frames.
type Frames struct {
	conn   frames
	format codec.Format
	swap   bool // the order of bytes differs
}

// OverRTP is audio over RTP, to and from remote.
func OverRTP(udp net.PacketConn, remote netip.AddrPort, f codec.Format) Frames {
	return Frames{rtpmedia.New(rtpmedia.Config{Conn: udp, Remote: remote, Format: wire(f),
		Type:   payloadTypes[NameOf(f)],
		Events: events, SSRC: rand.Uint32()}), f, f != wire(f)}
}

// OverAudioSocket is audio over a connection whose UUID has been read, or sent.
func OverAudioSocket(conn net.Conn, f codec.Format) Frames {
	kind, _ := audiosocket.KindOf(f) // checked with the configuration
	return Frames{audiosocket.New(conn, kind), f, false}
}

// Media is the bridge's end, for the channel that has the id.
func (f Frames) Media(id string) providers.MediaConn {
	return &framed{conn: f.conn, swap: f.swap, start: providers.Event{Kind: providers.EventStart,
		Start: &providers.Start{Call: LegOf(id), Stream: id, In: f.format, Out: f.format}}}
}

// Peer is a simulated Asterisk's end.
func (f Frames) Peer() providers.PeerConn {
	p := &framePeer{swap: f.swap, conn: f.conn, said: make(chan []byte, 1000), over: make(chan struct{})}
	f.conn.Serve(p)
	return p
}

// framed speaks as chan_websocket does over a connection that has frames: so there is one
// Stream for all.
type framed struct {
	conn    frames
	swap    bool
	start   providers.Event
	peer    Peer
	handler providers.MediaHandler

	out, in []byte // a frame each
	said    providers.Messages
}

// Serve implements providers.MediaConn.
func (p *framed) Serve(h providers.MediaHandler) {
	p.handler = h
	p.tell(&p.start)
	p.conn.Serve(p)
}

// tell says an event as chan_websocket does.
func (p *framed) tell(ev *providers.Event) {
	p.said.Reset()
	if p.peer.Encode(&p.said, ev) == nil { // these it can say
		p.handler.Message(p.said.All()[0])
	}
}

// errCommand is the error of what frames have no means for.
var errCommand = errors.New("asterisk: no such command without chan_websocket")

// Put implements providers.MediaConn.
func (p *framed) Put(m providers.Message) (more bool, err error) {
	var cmd providers.Command
	if err := p.peer.Decode(m, &cmd); err != nil {
		return true, err
	}
	switch cmd.Kind {
	case providers.CommandAudio:
		p.out = append(p.out[:0], cmd.Audio...)
		if p.swap {
			byteorder.Swap(p.out)
		}
		p.conn.Play(p.out)
	case providers.CommandMark:
		p.conn.Mark(cmd.Mark)
	case providers.CommandClear:
		p.conn.Flush()
	default:
		return true, errCommand
	}
	return true, nil
}

// Close implements providers.MediaConn.
func (p *framed) Close(int, string) { p.conn.Close() }

// Release implements providers.MediaConn.
func (p *framed) Release() { p.conn.Release() }

// Audio implements rtpmedia.Handler.
func (p *framed) Audio(frame []byte) {
	p.in = append(p.in[:0], frame...)
	if p.swap {
		byteorder.Swap(p.in)
	}
	p.handler.Message(providers.Message{Binary: true, Data: p.in})
}

// Digit implements rtpmedia.Handler.
func (p *framed) Digit(d byte) { p.tell(&providers.Event{Kind: providers.EventDigit, Digit: d}) }

// Mark implements rtpmedia.Handler.
func (p *framed) Mark(name string) { p.tell(&providers.Event{Kind: providers.EventMark, Mark: name}) }

// Closed implements rtpmedia.Handler.
func (p *framed) Closed(err error) { p.handler.Closed(err) }

// framePeer is Asterisk's end of a connection over RTP or AudioSocket.
type framePeer struct {
	conn frames
	swap bool
	said chan []byte
	over chan struct{}
	once sync.Once
}

// Read implements providers.PeerConn.
func (p *framePeer) Read() (binary bool, data []byte, err error) {
	select {
	case data := <-p.said:
		return true, data, nil
	case <-p.over:
		return false, nil, io.EOF
	}
}

// Write implements providers.PeerConn. What chan_websocket says in text has no place in RTP.
func (p *framePeer) Write(binary bool, data []byte) error {
	if binary {
		frame := append([]byte(nil), data...)
		if p.swap {
			byteorder.Swap(frame)
		}
		p.conn.Play(frame)
	}
	return nil
}

// Close implements providers.PeerConn.
func (p *framePeer) Close(int, string) { p.conn.Close() }

// Release implements providers.PeerConn.
func (p *framePeer) Release() { p.conn.Release() }

// Audio implements rtpmedia.Handler.
func (p *framePeer) Audio(frame []byte) {
	frame = append([]byte(nil), frame...)
	if p.swap {
		byteorder.Swap(frame)
	}
	select {
	case p.said <- frame:
	default: // nobody listens
	}
}

// Digit implements rtpmedia.Handler.
func (p *framePeer) Digit(byte) {}

// Mark implements rtpmedia.Handler.
func (p *framePeer) Mark(string) {}

// Closed implements rtpmedia.Handler.
func (p *framePeer) Closed(error) { p.once.Do(func() { close(p.over) }) }
