package rtpmedia

import (
	"time"

	"github.com/pion/rtp"

	"voicebridge/codec"
)

// The bounds of the jitter buffer, in frames.
const (
	leastDepth  = 2  // waited for before the first one is given on
	mostDepth   = 10 // 200 ms
	slots       = 32 // a power of two, more than what may be ahead
	concealed   = 3  // repeated at most, ever softer
	calmFrames  = 250
	jumpPackets = 1000 // another numbering
)

// Stats count what came over a connection.
type Stats struct {
	Received, Lost, Concealed, Late, Twice int
	Strangers, Foreign, Jumps              int // from elsewhere; of another payload type; new numberings
}

// jitter puts packets in order, and gives one each 20 ms. It waits longer where they come
// unevenly, and shorter again where they do not.
type jitter struct {
	format codec.Format
	stats  *Stats

	slot    [slots]packet
	next    int64 // extended number of the frame that is due
	highest int64
	held    int // packets in slots
	begun   bool
	ssrc    uint32
	first   time.Time // when the first packet came that has waited since
	depth   int
	missed  int // frames in a row that were not there
	calm    int // frames since one was late
	last    []byte
	out     []byte
	pcm     []int16
}

type packet struct {
	number int64
	full   bool
	audio  []byte
}

// put takes a packet that has come.
func (j *jitter) put(h *rtp.Header, audio []byte, now time.Time) {
	j.stats.Received++
	n := j.extend(h.SequenceNumber)
	fresh := j.highest == 0
	if !fresh && (h.SSRC != j.ssrc || n-j.highest > jumpPackets || j.highest-n > jumpPackets) {
		j.stats.Jumps++
		*j = jitter{format: j.format, stats: j.stats, depth: j.depth, last: j.last, out: j.out, pcm: j.pcm}
		n, fresh = j.extend(h.SequenceNumber), true
	}
	j.ssrc = h.SSRC
	switch {
	case j.begun && n < j.next:
		j.stats.Late++
		j.calm = 0
		j.depth = min(j.depth+1, mostDepth)
		return
	case j.slot[n&(slots-1)].full && j.slot[n&(slots-1)].number == n:
		j.stats.Twice++
		return
	}
	if j.held == 0 {
		j.first = now
	}
	if fresh || n > j.highest {
		j.highest = n
	}
	s := &j.slot[n&(slots-1)]
	if !s.full {
		j.held++
	}
	*s = packet{n, true, append(s.audio[:0], audio...)}
	if !j.begun && (fresh || n < j.next) {
		j.next = n
	}
	for j.begun && j.highest-j.next >= mostDepth+leastDepth { // too much waits: the oldest goes
		j.drop()
	}
}

// extend returns a number of 16 bits as one that does not begin again.
func (j *jitter) extend(n uint16) int64 {
	if j.highest == 0 {
		return int64(n) + 1<<16
	}
	return j.highest + int64(int16(n-uint16(j.highest)))
}

// drop leaves out the frame that is due.
func (j *jitter) drop() {
	if s := &j.slot[j.next&(slots-1)]; s.full && s.number == j.next {
		s.full = false
		j.held--
	}
	j.next++
}

// due returns the frame for the next 20 ms; nil: nothing was sent. It is good until the next
// call.
func (j *jitter) due(now time.Time) []byte {
	if !j.begun {
		waits := time.Duration(j.depth) * codec.FrameTime
		if j.held == 0 || j.held < j.depth && now.Sub(j.first) < waits {
			return nil
		}
		j.begun = true
	}
	s := &j.slot[j.next&(slots-1)]
	if s.full && s.number == j.next {
		return j.take(s)
	}
	if j.held > 0 { // one behind it is there
		j.next++
		j.stats.Lost++
		return j.conceal()
	}
	if j.missed >= concealed { // whoever speaks has stopped
		j.begun, j.missed = false, 0
		return nil
	}
	return j.conceal()
}

func (j *jitter) take(s *packet) []byte {
	j.last, s.audio = s.audio, j.last
	s.full = false
	j.held--
	j.next++
	j.missed = 0
	if j.calm++; j.calm >= calmFrames {
		j.calm = 0
		if j.depth > leastDepth {
			j.depth--
		}
		if j.held > j.depth { // what has waited too long is caught up with
			j.drop()
		}
	}
	return j.last
}

// conceal returns the last frame again, ever softer.
func (j *jitter) conceal() []byte {
	if len(j.last) == 0 {
		return nil
	}
	j.missed++
	j.stats.Concealed++
	j.pcm = j.format.Encoding.AppendDecode(j.pcm[:0], j.last)
	from, to := loudness(j.missed-1), loudness(j.missed)
	for i, s := range j.pcm {
		j.pcm[i] = int16(int32(s) * (from + (to-from)*int32(i)/int32(len(j.pcm))) / full)
	}
	j.out = j.format.Encoding.AppendEncode(j.out[:0], j.pcm)
	return j.out
}

// full is the loudness of what was said.
const full = 256

// loudness is that at the end of the n-th repetition; 0 is before the first.
func loudness(n int) int32 { return max(0, full-int32(n)*full/concealed) }
