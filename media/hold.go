package media

import (
	"encoding/binary"
	"math"
	"net/http"
	"sync"

	"voicebridge/codec"
)

// holdAudio is what callers hear on hold, in each format.
type holdAudio struct {
	pcm  []int16
	rate int

	mu sync.Mutex
	by map[codec.Format][]byte
}

// in gives whole frames in a format.
func (h *holdAudio) in(f codec.Format) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b, made := h.by[f]; made {
		return b
	}
	from := codec.Format{Encoding: codec.L16LE, Rate: h.rate}
	b := codec.NewTranscoder(from, f).Append(nil, codec.L16LE.AppendEncode(nil, h.pcm))
	if rest := len(b) % f.FrameBytes(); rest > 0 {
		b = f.Encoding.AppendSilence(b, f.FrameBytes()-rest)
	}
	if h.by == nil {
		h.by = map[codec.Format][]byte{}
	}
	h.by[f] = b
	return b
}

// chime is the hold audio that comes with the bridge: two soft notes every four
// seconds.
func chime(rate int) []int16 {
	pcm := make([]int16, 4*rate)
	for i, note := range []float64{523.25, 659.25} { // C5, E5
		from := i * rate * 2 / 5
		for n := range rate * 3 / 2 {
			t := float64(n) / float64(rate)
			level := 4000 * min(1, t/0.02) * math.Exp(-3*t)
			pcm[from+n] += int16(level * math.Sin(2*math.Pi*note*t))
		}
	}
	return pcm
}

// holdWAV is the hold audio as a file, for callers who wait in a carrier's room. It
// is no secret.
func (s *Server) holdWAV(w http.ResponseWriter, r *http.Request) {
	if s.transfers == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "audio/wav")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(s.transfers.hold.wav()) // a carrier that is gone needs no audio
}

// wav is a RIFF file with one channel of 16-bit PCM.
func (h *holdAudio) wav() []byte {
	le := binary.LittleEndian
	data := codec.L16LE.AppendEncode(nil, h.pcm)
	b := append([]byte("RIFF"), le.AppendUint32(nil, uint32(36+len(data)))...)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 16)
	for _, v := range []uint16{1, 1} { // PCM, mono
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, uint32(h.rate))
	b = le.AppendUint32(b, uint32(2*h.rate))
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 16)
	b = append(b, "data"...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}
