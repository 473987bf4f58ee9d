package audio

import (
	"time"

	"voicebridge/agent"
	"voicebridge/codec"
)

// PartyFormat is what a third party hears and speaks.
var PartyFormat = codec.Format{Encoding: codec.L16LE, Rate: 16000}

// Room is a third party in a call: it hears caller and agent, and both hear it. Audio
// that waits in it is 16-bit little-endian.
type Room struct {
	in    *Inbound
	out   *Playout
	mixer mixer

	callerToParty *codec.Transcoder
	agentToParty  *codec.Transcoder // of the agent's audio as the caller gets it
	agentSaid     fifo              // the agent's, for the party

	agentHears    codec.Format
	partyToAgent  *codec.Transcoder
	partyToCaller *codec.Transcoder
	partySaid     fifo // the party's, for the agent
	pcm           []byte

	lead, slack time.Duration // of the playout without a party
}

// partyLead is how much audio the carrier holds ahead of time while there is a party: what one
// says in a burst is not to delay what the other says, nor a clear to take it away.
const partyLead = 60 * time.Millisecond

// partyWait is how long before the carrier runs dry the agent's audio goes out without the party's.
const partyWait = 10 * time.Millisecond

// NewRoom lets a party in. Where mute is true the agent only listens, from now on: what it has
// said and is not heard yet is taken back.
func NewRoom(now time.Duration, in *Inbound, out *Playout, mute bool) *Room {
	r := &Room{
		in: in, out: out,
		callerToParty: codec.NewTranscoder(in.from, PartyFormat),
		agentToParty:  codec.NewTranscoder(out.format, PartyFormat),
		partyToAgent:  codec.NewTranscoder(PartyFormat, plain(in.to)),
		partyToCaller: codec.NewTranscoder(PartyFormat, plain(out.format)),
	}
	r.agentHears = plain(in.to)
	if mute {
		out.Clear(now, agent.ClearByMute, "")
	}
	r.lead, r.slack = out.lead, out.slack
	out.lead, out.slack = min(out.lead, partyLead), 0
	out.party, out.tap, out.muted, out.cleared = &fifo{}, r.agentSays, mute, r.agentCleared
	return r
}

// Leave lets the party go: the agent is heard again.
func (r *Room) Leave() {
	r.out.lead, r.out.slack = r.lead, r.slack
	r.out.party, r.out.tap, r.out.muted, r.out.cleared = nil, nil, false, nil
}

// agentCleared takes back what the agent has said, for the party too.
func (r *Room) agentCleared() {
	r.agentSaid.reset()
	r.agentToParty.Reset()
}

// PartySays takes the party's audio: for the caller and for the agent.
func (r *Room) PartySays(pcm []byte) {
	r.out.party.live(r.out.format, func(b []byte) []byte { return r.partyToCaller.Append(b, pcm) })
	r.partySaid.live(r.in.to, func(b []byte) []byte { return r.partyToAgent.Append(b, pcm) })
}

// Retune follows the agent's format, when another one has taken its place.
func (r *Room) Retune() {
	if to := plain(r.in.to); to != r.agentHears {
		r.agentHears, r.partyToAgent = to, codec.NewTranscoder(PartyFormat, to)
		r.partySaid.reset()
	}
}

// agentSays takes a frame of the agent's that goes to the caller.
func (r *Room) agentSays(frame []byte) {
	r.agentSaid.live(PartyFormat, func(b []byte) []byte { return r.agentToParty.Append(b, frame) })
}

// CallerSays returns what the party hears of the caller's audio and of what the agent
// says meanwhile. It is good until the next one.
func (r *Room) CallerSays(payload []byte) []byte {
	r.pcm = r.callerToParty.Append(r.pcm[:0], payload)
	r.mixer.add(PartyFormat, r.pcm, &r.agentSaid)
	return r.pcm
}

// AgentHears adds the party's voice to a frame for the agent.
func (r *Room) AgentHears(frame []byte) { r.mixer.add(r.in.to, frame, &r.partySaid) }
