package session

import (
	"context"
	"errors"
	"sync"

	"voicebridge/codec"
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
	free   chan []byte // buffers of out to be used again
	done   chan struct{}
	once   sync.Once
	served chan struct{} // closed when the goroutine of Serve has ended
}

// NewParty makes a party of a session. With listen its agent hears, but is not
// heard, while the party is there.
func (s *Session) NewParty(listen bool) *Party {
	return &Party{main: s, listen: listen, out: make(chan []byte, partyFrames), free: make(chan []byte, partyFrames),
		done: make(chan struct{})}
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

// Serve implements Agent: what the party hears. It has a goroutine of its own: the
// main session must not have to wait for the party's.
func (p *Party) Serve(h AgentHandler) {
	p.served = make(chan struct{})
	go func() {
		defer close(p.served)
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

// end has Serve say that the main call is over.
func (p *Party) end() { p.once.Do(func() { close(p.done) }) }

// Close implements Agent.
func (p *Party) Close(Cause) {
	p.end()
	p.main.part(p)
}

// Release implements Agent.
func (p *Party) Release() { <-p.served }

// room is what a session with a party needs: who hears whom. Audio that waits in it is
// 16-bit little-endian.
type room struct {
	party *Party
	mixer mixer

	callerToParty *codec.Transcoder
	agentToParty  *codec.Transcoder // of the agent's audio as the caller gets it
	agentSaid     fifo              // the agent's, for the party

	partyToAgent  *codec.Transcoder
	partyToCaller *codec.Transcoder
	partySaid     fifo // the party's, for the agent
	pcm           []byte
}

// ErrParty is the error of a second party, or of a call that is over.
var ErrParty = errors.New("session: the call is over, or has a party")

// join lets a party in.
func (s *Session) join(p *Party) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil || s.endTold || s.room != nil {
		return ErrParty
	}
	s.room = &room{
		party:         p,
		callerToParty: codec.NewTranscoder(s.in.from, partyFormat),
		agentToParty:  codec.NewTranscoder(s.out.format, partyFormat),
		partyToAgent:  codec.NewTranscoder(partyFormat, plain(s.in.to)),
		partyToCaller: codec.NewTranscoder(partyFormat, plain(s.out.format)),
	}
	s.out.party, s.out.tap, s.out.muted = &fifo{}, s.room.agentSays, p.listen
	if p.listen {
		s.tellHold(AgentMuted)
	}
	return nil
}

// part lets a party go.
func (s *Session) part(p *Party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == nil || s.room.party != p {
		return
	}
	s.room = nil
	s.out.party, s.out.tap, s.out.muted = nil, nil, false
	if p.listen && !s.endTold {
		s.tellHold(AgentUnmuted)
	}
}

// partySays takes the party's audio: for the caller and for the agent.
func (s *Session) partySays(p *Party, pcm []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.room
	if r == nil || r.party != p {
		return
	}
	s.out.party.grow(func(b []byte) []byte { return r.partyToCaller.Append(b, pcm) })
	s.out.party.bound(maxMix(s.out.format))
	r.partySaid.grow(func(b []byte) []byte { return r.partyToAgent.Append(b, pcm) })
	r.partySaid.bound(maxMix(s.in.to))
	s.send()
}

// agentSays takes a frame of the agent's that goes to the caller.
func (r *room) agentSays(frame []byte) {
	r.agentSaid.grow(func(b []byte) []byte { return r.agentToParty.Append(b, frame) })
	r.agentSaid.bound(maxMix(partyFormat))
}

// callerSays passes the caller's audio, and what the agent says meanwhile, on to
// the party.
func (r *room) callerSays(payload []byte) {
	r.pcm = r.callerToParty.Append(r.pcm[:0], payload)
	r.mixer.add(partyFormat, r.pcm, &r.agentSaid)
	var b []byte
	select {
	case b = <-r.party.free:
	default:
	}
	select {
	case r.party.out <- append(b, r.pcm...):
	default: // its session is stuck
	}
}
