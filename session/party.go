package session

import (
	"context"
	"errors"
	"sync"

	"voicebridge/agent"
	"voicebridge/calls"
	"voicebridge/codec"
	"voicebridge/session/audio"
)

// partyFrames is how much audio waits for a party that is slow, in messages.
const partyFrames = 16

// Party is a third one in a call: the destination of a transfer whose agent stays.
// Its own session is a call like any other, whose agent is the Party: it hears
// caller and agent of the main session, and both hear it. It implements agent.Dialer and
// agent.Conn.
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

// Formats implements agent.Dialer and agent.Conn.
func (p *Party) Formats() (hears, speaks codec.Format) { return audio.PartyFormat, audio.PartyFormat }

// Dial implements agent.Dialer: from here on all hear each other.
func (p *Party) Dial(context.Context, *agent.Call) (agent.Conn, error) {
	if err := p.main.join(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Serve implements agent.Conn: what the party hears. It has a goroutine of its own: the
// main session must not have to wait for the party's.
func (p *Party) Serve(h agent.Handler) {
	p.served = make(chan struct{})
	go func() {
		defer close(p.served)
		for {
			select {
			case b := <-p.out:
				h.Command(&agent.Command{Kind: agent.CommandAudio, Audio: b})
				select {
				case p.free <- b[:0]:
				default:
				}
			case <-p.done:
				h.Gone(&agent.Error{Cause: calls.AgentHangup, Err: errors.New("session: the call has ended")})
				return
			}
		}
	}()
}

// Send implements agent.Conn: what the party says.
func (p *Party) Send(ev *agent.Event) (more bool, err error) {
	if ev.Kind == agent.EventAudio {
		p.main.partySays(p, ev.Audio)
	}
	return true, nil
}

// end has Serve say that the main call is over.
func (p *Party) end() { p.once.Do(func() { close(p.done) }) }

// Close implements agent.Conn.
func (p *Party) Close(calls.Cause) {
	p.end()
	p.main.part(p)
}

// Release implements agent.Conn.
func (p *Party) Release() { <-p.served }

// ErrParty is the error of a second party, or of a call that is over.
var ErrParty = errors.New("session: the call is over, or has a party")

// join lets a party in.
func (s *Session) join(p *Party) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.call == nil || s.endTold || s.party != nil {
		return ErrParty
	}
	s.party, s.room = p, audio.NewRoom(s.now(), &s.in, &s.out, p.listen)
	if p.listen {
		s.tellHold(agent.Muted)
	}
	return nil
}

// part lets a party go.
func (s *Session) part(p *Party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.party != p {
		return
	}
	s.room.Leave()
	s.party, s.room = nil, nil
	if p.listen && !s.endTold {
		s.tellHold(agent.Unmuted)
	}
}

// partySays takes the party's audio: for the caller and for the agent.
func (s *Session) partySays(p *Party, pcm []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.party != p {
		return
	}
	s.room.PartySays(pcm)
	s.send()
}

// hear passes the caller's audio, and what the agent says meanwhile, on to the party.
func (p *Party) hear(pcm []byte) {
	var b []byte
	select {
	case b = <-p.free:
	default:
	}
	b = append(b, pcm...)
	select {
	case p.out <- b:
		return
	default: // its session is slow: what it hears late should still be fresh
	}
	select {
	case <-p.out:
	default:
	}
	select {
	case p.out <- b:
	default:
	}
}
