package codec

import "math/bits"

// G.711 by table. A mu-law code depends on the top 14 bits of a sample and an
// A-law code on the top 12 (the sample's own 13 bits less one that no decision
// value needs), so the encoding tables are indexed by those bits.
//
// The decision values are those of ITU-T G.711 tables 1 and 2. A sample that
// falls exactly on one goes to the interval above it, as in the reference
// software of ITU-T G.191.
var (
	muDecode = [256]int16(decodeTable(muExpand))
	aDecode  = [256]int16(decodeTable(aExpand))
	muEncode = [1 << 14]byte(encodeTable(1<<14, muCompress))
	aEncode  = [1 << 12]byte(encodeTable(1<<12, aCompress))
)

func decodeTable(expand func(byte) int16) []int16 {
	t := make([]int16, 256)
	for i := range t {
		t[i] = expand(byte(i))
	}
	return t
}

// encodeTable is indexed by the top bits of a sample taken as unsigned.
func encodeTable(n int, compress func(top int) byte) []byte {
	t := make([]byte, n)
	for i := range t {
		top := i
		if i >= n/2 {
			top -= n
		}
		t[i] = compress(top)
	}
	return t
}

// muBias shifts the mu-law segments so that each starts at a power of two.
const muBias = 33

// muExpand: bits are sign (set for positive), segment (3), step (4), all inverted.
func muExpand(code byte) int16 {
	c := ^code
	seg, step := c>>4&7, int(c&15)
	mag := ((2*step+muBias)<<seg - muBias) << 2
	if c&0x80 != 0 {
		return int16(-mag)
	}
	return int16(mag)
}

// muCompress takes a 14-bit sample.
func muCompress(s int) byte {
	var sign byte
	if s < 0 {
		s, sign = ^s, 0x80
	}
	mag := min(s+muBias, 1<<13-1)
	seg := bits.Len(uint(mag)) - 6
	return ^(sign | byte(seg)<<4 | byte(mag>>(seg+1)&15))
}

// aExpand: bits are sign (set for positive), segment (3), step (4); the even
// bits are inverted on the line.
func aExpand(code byte) int16 {
	c := code ^ 0x55
	seg, mag := c>>4&7, int(c&15)<<4+8
	if seg > 0 {
		mag = (mag + 0x100) << (seg - 1)
	}
	if c&0x80 != 0 {
		return int16(mag)
	}
	return int16(-mag)
}

// aCompress takes the top 12 bits of a sample.
func aCompress(s int) byte {
	sign := byte(0x80)
	if s < 0 {
		s, sign = ^s, 0
	}
	seg := max(bits.Len(uint(s))-4, 0)
	return (sign | byte(seg)<<4 | byte(s>>max(seg-1, 0)&15)) ^ 0x55
}
