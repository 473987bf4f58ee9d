package telnyx

import (
	"sync/atomic"

	"voicebridge/codec"
)

// byteOrder finds out in which order the bytes of 16-bit samples come. Speech changes
// little from one sample to the next; read in the wrong order it jumps.
type byteOrder struct {
	measures bool // what comes are such samples
	little   atomic.Bool
	// What has been measured so far: samples, and how far they jump in either order.
	heard      int
	asBE, asLE int64
	last       [2]byte
}

const (
	// enoughHeard is how many samples that are no silence decide: 200 ms at 16 kHz.
	enoughHeard = 3200
	// quiet is the most that is taken for silence: read in the wrong order, it is loud.
	quiet = 64
	// clearly is how much smoother the other order must be.
	clearly = 4
)

// in takes audio that has come, measures it until the order is found, and puts it into the
// order of the network.
func (o *byteOrder) in(audio []byte) {
	if !o.measures {
		return
	}
	if o.heard < enoughHeard {
		o.measure(audio)
		if o.heard >= enoughHeard && o.asLE*clearly < o.asBE {
			o.little.Store(true)
		}
	}
	if o.little.Load() {
		swap(audio)
	}
}

func (o *byteOrder) measure(audio []byte) {
	for i := 0; i+1 < len(audio); i += 2 {
		now := [2]byte{audio[i], audio[i+1]}
		be, le := int64(int16(now[0])<<8|int16(now[1])), int64(int16(now[1])<<8|int16(now[0]))
		if max(be, -be) > quiet && max(le, -le) > quiet {
			was := o.last
			o.heard++
			o.asBE += distance(be, int64(int16(was[0])<<8|int16(was[1])))
			o.asLE += distance(le, int64(int16(was[1])<<8|int16(was[0])))
		}
		o.last = now
	}
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// swap turns the bytes of each sample round.
func swap(audio []byte) {
	for i := 0; i+1 < len(audio); i += 2 {
		audio[i], audio[i+1] = audio[i+1], audio[i]
	}
}

// format of a stream is told in the state that is given with it.
func (st *state) format() codec.Format {
	for _, f := range formats {
		if st.Format == f.String() {
			return f
		}
	}
	return formats[0]
}
