package audio

import "voicebridge/codec"

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

	partyToAgent  *codec.Transcoder
	partyToCaller *codec.Transcoder
	partySaid     fifo // the party's, for the agent
	pcm           []byte
}

// NewRoom lets a party in. Where mute is true the agent only listens.
func NewRoom(in *Inbound, out *Playout, mute bool) *Room {
	r := &Room{
		in: in, out: out,
		callerToParty: codec.NewTranscoder(in.from, PartyFormat),
		agentToParty:  codec.NewTranscoder(out.format, PartyFormat),
		partyToAgent:  codec.NewTranscoder(PartyFormat, plain(in.to)),
		partyToCaller: codec.NewTranscoder(PartyFormat, plain(out.format)),
	}
	out.party, out.tap, out.muted = &fifo{}, r.agentSays, mute
	return r
}

// Leave lets the party go: the agent is heard again.
func (r *Room) Leave() { r.out.party, r.out.tap, r.out.muted = nil, nil, false }

// PartySays takes the party's audio: for the caller and for the agent.
func (r *Room) PartySays(pcm []byte) {
	r.out.party.grow(func(b []byte) []byte { return r.partyToCaller.Append(b, pcm) })
	r.out.party.bound(maxMix(r.out.format))
	r.partySaid.grow(func(b []byte) []byte { return r.partyToAgent.Append(b, pcm) })
	r.partySaid.bound(maxMix(r.in.to))
}

// agentSays takes a frame of the agent's that goes to the caller.
func (r *Room) agentSays(frame []byte) {
	r.agentSaid.grow(func(b []byte) []byte { return r.agentToParty.Append(b, frame) })
	r.agentSaid.bound(maxMix(PartyFormat))
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
