package codec_test

import (
	"fmt"

	"voicebridge/codec"
)

// A caller's G.711 becomes 16-bit samples at the rate that an agent hears.
func ExampleTranscoder() {
	telephone := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	agent := codec.Format{Encoding: codec.L16LE, Rate: 16000}
	t := codec.NewTranscoder(telephone, agent)
	frame := telephone.Encoding.AppendSilence(nil, telephone.FrameBytes())
	fmt.Println(len(frame), "bytes become", len(t.Append(nil, frame)))
	// Output: 160 bytes become 640
}

// Samples of a frame, and their encoding.
func ExampleEncoding_AppendEncode() {
	fmt.Printf("% x\n", codec.PCMA.AppendEncode(nil, []int16{0, 1000, -1000}))
	fmt.Println(codec.PCMA.AppendDecode(nil, []byte{0xd5, 0xfa, 0x7a}))
	// Output:
	// d5 fa 7a
	// [8 1008 -1008]
}
