// Package markers is sounds by which the time is taken that audio needs on its way.
package markers

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"voicebridge/codec"
)

// Markers are sounds of one frame's length in the caller's audio by which the time
// is taken: whatever lies between, G.711, resampling, other frames, they are found
// in what comes back, and told from each other.
const (
	markerCount = 16
	markerEvery = 25   // frames from one marker to the next: half a second
	markerLoud  = 1500 // a sample that is louder may be one
	markerAlike = 0.7  // the least likeness to a marker
)

// Markers are those of one format.
type Markers struct {
	format  codec.Format
	silence []byte               // a frame
	payload [markerCount][]byte  // as it is sent
	pcm     [markerCount][]int16 // as the encoding carries it
	energy  [markerCount]float64
}

var (
	markersMu sync.Mutex
	markersOf = map[codec.Format]*Markers{}
)

// New makes the markers of a format, once.
func New(f codec.Format) *Markers {
	markersMu.Lock()
	defer markersMu.Unlock()
	if m := markersOf[f]; m != nil {
		return m
	}
	m := &Markers{format: f, silence: f.Encoding.AppendSilence(nil, f.FrameBytes())}
	n := f.FrameSamples()
	for i := range m.payload {
		// All tones of the telephone band that fit into a frame, in phases of chance:
		// as loud as each other, and alike to none but itself.
		phases := rand.New(rand.NewPCG(uint64(i), 0))
		s := make([]float64, n)
		var power float64
		for hz := 400.0; hz <= 3000; hz += 50 {
			phase := 2 * math.Pi * phases.Float64()
			for t := range s {
				s[t] += math.Sin(2*math.Pi*hz*float64(t)/float64(f.Rate) + phase)
			}
		}
		for _, v := range s {
			power += v * v
		}
		scale := 6000 / math.Sqrt(power/float64(n))
		pcm := make([]int16, n)
		for t, v := range s {
			pcm[t] = int16(min(max(v*scale, -30000), 30000))
		}
		m.payload[i] = f.Encoding.AppendEncode(nil, pcm)
		m.pcm[i] = f.Encoding.AppendDecode(nil, m.payload[i])
		for _, v := range m.pcm[i] {
			m.energy[i] += float64(v) * float64(v)
		}
	}
	markersOf[f] = m
	return m
}

// Frame is what the caller says in the n-th frame, and the marker in it; -1: none.
func (m *Markers) Frame(n int) (payload []byte, marker int) {
	if n%markerEvery != markerEvery-1 {
		return m.silence, -1
	}
	marker = n / markerEvery % markerCount
	return m.payload[marker], marker
}

// sent is a marker on its way.
type sent struct {
	id int
	at time.Duration // when its frame was sent
	on int64         // its place in what was said, in samples
}

// Detector finds markers in the audio that comes back.
type Detector struct {
	*Markers
	sent []sent

	pcm    []int16 // what is kept of the audio
	from   int64   // its place in what came
	onset  int64   // of a sound that may be a marker; -1: none
	arrive []arrival
	drift  int64 // samples that came beyond those that were sent
	lost   bool  // drift is not known yet
}

// arrival is when audio came.
type arrival struct {
	from int64
	at   time.Duration
}

// NewDetector makes one of a format's markers.
func NewDetector(m *Markers) Detector { return Detector{Markers: m, onset: -1, lost: true} }

// Sent notes that a marker has been sent, in the frame at a place in what was said, in samples. It
// reports whether the oldest one had to be given up for it: they would be taken for each other.
func (d *Detector) Sent(marker int, at time.Duration, on int64) (lost bool) {
	if lost = len(d.sent) >= markerCount/2; lost {
		d.sent = d.sent[:copy(d.sent, d.sent[1:])]
	}
	d.sent = append(d.sent, sent{marker, at, on})
	return lost
}

// Found is what a marker tells.
type Found struct {
	Delay time.Duration // from the message that took it there to the place in the one that brought it
	Extra time.Duration // audio that came beyond what was sent since the last one; negative: it is missing
	Lost  int           // markers before it that did not come
}

// Hear takes audio that came, and gives the marker that is complete with it.
func (d *Detector) Hear(at time.Duration, audio []byte) (f Found, ok bool) {
	before := len(d.pcm)
	d.pcm = d.format.Encoding.AppendDecode(d.pcm, audio)
	d.arrive = append(d.arrive, arrival{d.from + int64(before), at})
	if d.onset < 0 {
		for i, v := range d.pcm[before:] {
			if v > markerLoud || v < -markerLoud {
				d.onset = d.from + int64(before+i)
				break
			}
		}
	}
	n := int64(d.format.FrameSamples())
	end := d.from + int64(len(d.pcm))
	switch {
	case d.onset >= 0 && end >= d.onset+n+n/2:
		f, ok = d.match()
		d.onset = -1
		d.keep(end - n/2) // the rest of the marker is not another one
	case d.onset < 0:
		d.keep(end - n)
	}
	return f, ok
}

// keep forgets what came before a place.
func (d *Detector) keep(from int64) {
	if from <= d.from {
		return
	}
	d.pcm = d.pcm[:copy(d.pcm, d.pcm[from-d.from:])]
	d.from = from
	i := 0
	for i+1 < len(d.arrive) && d.arrive[i+1].from <= from {
		i++
	}
	d.arrive = d.arrive[:copy(d.arrive, d.arrive[i:])]
}

// match finds which of the markers under way lies at the onset.
func (d *Detector) match() (f Found, ok bool) {
	n := int64(d.format.FrameSamples())
	for i := range d.sent {
		s := d.sent[i]
		place, alike := d.look(s.id, max(d.from, d.onset-n/3), d.onset+n/8)
		if alike < markerAlike {
			continue
		}
		a := d.arrive[0]
		for _, b := range d.arrive {
			if b.from <= place {
				a = b
			}
		}
		f.Lost = i
		f.Delay = a.at + time.Duration(place-a.from)*time.Second/time.Duration(d.format.Rate) - s.at
		drift := place - s.on
		if !d.lost {
			f.Extra = time.Duration(drift-d.drift) * time.Second / time.Duration(d.format.Rate)
		}
		d.drift, d.lost = drift, false
		d.sent = d.sent[:copy(d.sent, d.sent[i+1:])]
		return f, true
	}
	return f, false
}

// look finds where between two places a marker fits best, and how well.
func (d *Detector) look(id int, from, to int64) (place int64, alike float64) {
	ref := d.Markers.pcm[id]
	for p := from; p <= to; p++ {
		h := d.pcm[p-d.from:]
		if len(h) < len(ref) {
			break
		}
		var both, power int64
		for i, r := range ref {
			v := int64(h[i])
			both += int64(r) * v
			power += v * v
		}
		if power == 0 || both <= 0 {
			continue
		}
		if a := float64(both) / math.Sqrt(float64(power)*d.energy[id]); a > alike {
			place, alike = p, a
		}
	}
	return place, alike
}
