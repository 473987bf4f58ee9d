package session

import (
	"context"
	"errors"
	"sync"

	"voicebridge/codec"
	"voicebridge/ws"
)

// partyFormat is what goes between a session and its party.
var partyFormat = codec.Format{Encoding: codec.L16LE, Rate: 16000}

// partyFrames is how much audio waits for a party that is slow, in messages.
const partyFrames = 16

// Party is a third one in a call: the destination of a transfer whose agent stays.
// Its own session is a call like any other, whose agent is the Party: it hears
// caller and agent of the main session, and both hear it. It implements Dialer and
// Agent.
type Party struct {
	main   *Session
	listen bool // the agent listens only
	out    chan []byte
	free   chan []byte
	done   chan struct{}
	once   sync.Once
	heard  chan struct{} // closed when the goroutine of Serve has ended
}

// NewParty makes a party of a session. With listen its agent hears, but is not
// heard, while the party is there.
func (s *Session) NewParty(listen bool) *Party {
	return &Party{main: s, listen: listen, out: make(chan []byte, partyFrames), free: make(chan []byte, partyFrames), done: make(chan struct{})}
}

// Formats implements Dialer and Agent.
func (p *Party) Formats() (hears, speaks codec.Format) { return partyFormat, partyFormat }

// Dial implements Dialer: from here on all hear each other.
func (p *Party) Dial(context.Context, *Call) (Agent, error) {
	if err := p.main.join(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Serve implements Agent: what the party hears. It is a goroutine's: the main
// session must not have to wait for the party's.
func (p *Party) Serve(_ *ws.Loop, h AgentHandler) {
	p.heard = make(chan struct{})
	go func() {
		defer close(p.heard)
		for {
			select {
			case b := <-p.out:
				h.Command(&AgentCommand{Kind: CommandAudio, Audio: b})
				select {
				case p.free <- b[:0]:
				default:
				}
			case <-p.done:
				h.Gone(&AgentError{AgentHangup, errors.New("session: the call has ended")})
				return
			}
		}
	}()
}

// Send implements Agent: what the party says.
func (p *Party) Send(ev *AgentEvent) (more bool, err error) {
	if ev.Kind == AgentAudio {
		p.main.partySays(p, ev.Audio)
	}
	return true, nil
}

// Close implements Agent.
func (p *Party) Close(Cause) {
	p.once.Do(func() { close(p.done) })
	p.main.part(p)
}

// Release implements Agent.
func (p *Party) Release() { <-p.heard }

// mix is what a session with a party needs. Everything in it is of partyFormat but
// for what says otherwise.
type mix struct {
	party    *Party
	toParty  *codec.Transcoder // of the caller's audio
	tapped   *codec.Transcoder // of the agent's, as the caller gets it
	tap      fifo              // the agent's, for the party
	toAgent  *codec.Transcoder
	agent    fifo // the party's, for the agent, in its format
	toCaller *codec.Transcoder
	pcm      []byte
}

// maxMix bounds what waits to be mixed: 200 ms.
func maxMix(f codec.Format) int { return 10 * f.FrameBytes() }

// ErrParty is the error of a second party, or of a call that is over.
var ErrParty = errors.New("session: the call is over, or has a party")

// join lets a party in.
func (s *Session) join(p *Party) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil || s.over || s.mix != nil {
		return ErrParty
	}
	s.mix = &mix{
		party: p, toParty: codec.NewTranscoder(s.in.from, partyFormat), tapped: codec.NewTranscoder(s.out.format, partyFormat),
		toAgent: codec.NewTranscoder(partyFormat, s.in.to), toCaller: codec.NewTranscoder(partyFormat, s.out.pcmFormat()),
	}
	s.out.party, s.out.tap, s.out.muted = &fifo{}, s.agentSays, p.listen
	if p.listen {
		s.tell(AgentEvent{Kind: AgentHeld, State: "agent_muted", Out: s.out.heard(s.now())})
		s.send()
	}
	return nil
}

// part lets a party go.
func (s *Session) part(p *Party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mix == nil || s.mix.party != p {
		return
	}
	s.mix = nil
	s.out.party, s.out.tap, s.out.muted = nil, nil, false
	if p.listen && !s.over {
		s.tell(AgentEvent{Kind: AgentHeld, State: "agent_unmuted", Out: s.out.heard(s.now())})
		s.send()
	}
}

// partySays takes the party's audio: for the caller and for the agent.
func (s *Session) partySays(p *Party, pcm []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mix
	if m == nil || m.party != p {
		return
	}
	s.out.party.grow(func(b []byte) []byte { return m.toCaller.Append(b, pcm) })
	s.out.party.bound(maxMix(s.out.pcmFormat()))
	m.agent.grow(func(b []byte) []byte { return m.toAgent.Append(b, pcm) })
	m.agent.bound(maxMix(s.in.to))
	s.send()
}

// agentSays takes a frame of the agent's that goes to the caller. s.mu is held.
func (s *Session) agentSays(frame []byte) {
	m := s.mix
	m.tap.grow(func(b []byte) []byte { return m.tapped.Append(b, frame) })
	m.tap.bound(maxMix(partyFormat))
}

// callerSays passes the caller's audio, and what the agent says meanwhile, on to
// the party. s.mu is held.
func (m *mix) callerSays(payload []byte) {
	m.pcm = m.toParty.Append(m.pcm[:0], payload)
	m.tap.addTo(m.pcm)
	var b []byte
	select {
	case b = <-m.party.free:
	default:
	}
	select {
	case m.party.out <- append(b, m.pcm...):
	default: // its session is stuck
	}
}

// bound drops the oldest beyond most bytes.
func (q *fifo) bound(most int) {
	if n := q.len() - most; n > 0 {
		q.drop((n + 1) &^ 1)
	}
}

// addTo adds 16-bit samples from the front of the queue to those in pcm, as far as
// they last.
func (q *fifo) addTo(pcm []byte) {
	n := min(len(pcm), q.len()) &^ 1
	for i := 0; i < n; i += 2 {
		sum := int32(int16(uint16(pcm[i])|uint16(pcm[i+1])<<8)) + int32(int16(uint16(q.buf[q.head+i])|uint16(q.buf[q.head+i+1])<<8))
		v := uint16(int16(min(max(sum, -32768), 32767)))
		pcm[i], pcm[i+1] = byte(v), byte(v>>8)
	}
	if n > 0 {
		q.drop(n)
	}
}

// pcmFormat is the carrier's as plain samples.
func (p *playout) pcmFormat() codec.Format {
	return codec.Format{Encoding: codec.L16LE, Rate: p.format.Rate}
}

// partyReady tells whether a frame of the party's waits.
func (p *playout) partyReady() bool { return p.party != nil && p.party.len() >= 2*int(p.step) }

// mixParty adds the party's next frame to an encoded frame of the agent's; a nil one
// is silence.
func (p *playout) mixParty(frame []byte, buf []byte) []byte {
	if cap(p.mixed) < 2*int(p.step) {
		p.mixed = make([]byte, 2*int(p.step))
	}
	pcm := p.mixed[:2*int(p.step)]
	clear(pcm)
	if frame != nil {
		p.samplesBuf = p.format.Encoding.AppendDecode(p.samplesBuf[:0], frame)
		codec.L16LE.AppendEncode(pcm[:0], p.samplesBuf)
	}
	p.party.addTo(pcm)
	p.samplesBuf = codec.L16LE.AppendDecode(p.samplesBuf[:0], pcm)
	return p.format.Encoding.AppendEncode(buf[:0], p.samplesBuf)
}
