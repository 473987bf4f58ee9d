// Package byteorder finds out in which order the bytes of 16-bit samples come, where a
// carrier does not say.
package byteorder

import (
	"sync/atomic"
)

// Finder listens to samples. They are taken to be in the order of the network, as RFC 3551
// has it, until some have been heard that show another one. Speech changes
// little from one sample to the next; read in the wrong order it jumps.
type Finder struct {
	Measures bool // what comes are such samples
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

// In takes audio that has come, measures it until the order is found, and puts it into the
// order of the network.
func (o *Finder) In(audio []byte) {
	if !o.Measures {
		return
	}
	if o.heard < enoughHeard {
		o.measure(audio)
		if o.heard >= enoughHeard && o.asLE*clearly < o.asBE {
			o.little.Store(true)
		}
	}
	if o.little.Load() {
		Swap(audio)
	}
}

// Little reports whether the samples have turned out to be little-endian. It may be asked
// while others come in.
func (o *Finder) Little() bool { return o.little.Load() }

func (o *Finder) measure(audio []byte) {
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

// Swap turns the bytes of each sample round.
func Swap(audio []byte) {
	for i := 0; i+1 < len(audio); i += 2 {
		audio[i], audio[i+1] = audio[i+1], audio[i]
	}
}
