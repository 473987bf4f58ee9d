package codec

import "github.com/zaf/g711"

// G.711 by table, made at start from github.com/zaf/g711: a look-up is about four
// times faster than a call of it for each sample. A mu-law code depends on the top
// 14 bits of a sample and an A-law code on the top 12 (the sample's own 13 bits less
// one that no decision value needs), so the encoding tables are indexed by those
// bits. The tests hold the tables to ITU-T G.711, tables 1 and 2.
var (
	muDecode = [256]int16(decodeTable(g711.DecodeUlawFrame))
	aDecode  = [256]int16(decodeTable(g711.DecodeAlawFrame))
	muEncode = [1 << 14]byte(encodeTable(14, g711.EncodeUlawFrame))
	aEncode  = [1 << 12]byte(encodeTable(12, g711.EncodeAlawFrame))
)

// decodeTable returns the sample of each of the 256 codes.
func decodeTable(expand func(byte) int16) []int16 {
	t := make([]int16, 256)
	for i := range t {
		t[i] = expand(byte(i))
	}
	return t
}

// encodeTable returns the codes of all samples, indexed by their top bits taken as
// an unsigned number.
func encodeTable(bits int, compress func(int16) byte) []byte {
	t := make([]byte, 1<<bits)
	for i := range t {
		t[i] = compress(int16(uint16(i) << (16 - bits)))
	}
	return t
}
