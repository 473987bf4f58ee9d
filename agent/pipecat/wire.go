package pipecat

import (
	"encoding/binary"
	"errors"
)

// The frames of pipecat's protobuf serializer (proto3, package pipecat): a Frame is one of text (1), audio (2),
// transcription (3), message (4) and interruption (5). Source: pipecat's frames.proto.

// frame is one of them.
type frame struct {
	kind     int // 0: none that is known
	audio    []byte
	rate     int
	channels int
	data     []byte // of a message
}

// The kinds of frames.
const (
	textFrame          = 1
	audioFrame         = 2
	transcriptionFrame = 3
	messageFrame       = 4
	interruptionFrame  = 5
)

var errFrame = errors.New("pipecat: not a frame")

// field takes the next field of a message: its number, and its value, which is a number or bytes.
func field(b []byte) (number int, value uint64, bytes, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
		return 0, 0, nil, nil, errFrame
	}
	b, number = b[n:], int(tag>>3)
	switch tag & 7 {
	case 0:
		value, n = binary.Uvarint(b)
		if n <= 0 {
			return 0, 0, nil, nil, errFrame
		}
		return number, value, nil, b[n:], nil
	case 1, 5:
		n = map[uint64]int{1: 8, 5: 4}[tag&7]
		if len(b) < n {
			return 0, 0, nil, nil, errFrame
		}
		return number, 0, nil, b[n:], nil
	case 2:
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return 0, 0, nil, nil, errFrame
		}
		return number, 0, b[n : n+int(length)], b[n+int(length):], nil
	}
	return 0, 0, nil, nil, errFrame
}

// readFrame reads one. Fields that are not known are skipped; of several kinds the last counts.
func readFrame(b []byte) (f frame, err error) {
	var body []byte
	for len(b) > 0 {
		var number int
		var bytes []byte
		if number, _, bytes, b, err = field(b); err != nil {
			return frame{}, err
		}
		if number >= textFrame && number <= interruptionFrame {
			f.kind, body = number, bytes
		}
	}
	switch f.kind {
	case audioFrame:
		err = f.readAudio(body)
	case messageFrame:
		for len(body) > 0 && err == nil {
			var number int
			var bytes []byte
			if number, _, bytes, body, err = field(body); number == 1 {
				f.data = bytes
			}
		}
	}
	return f, err
}

func (f *frame) readAudio(b []byte) (err error) {
	f.channels = 1
	for len(b) > 0 {
		var number int
		var value uint64
		var bytes []byte
		if number, value, bytes, b, err = field(b); err != nil {
			return err
		}
		switch number {
		case 3:
			f.audio = bytes
		case 4:
			f.rate = int(min(value, 1<<20))
		case 5:
			f.channels = int(min(value, 1<<8))
		}
	}
	return nil
}

// appendAudio appends a frame of mono audio.
func appendAudio(b, pcm []byte, rate int) []byte {
	var inner [2*binary.MaxVarintLen64 + 4]byte
	tail := append(inner[:0], 4<<3)
	tail = binary.AppendUvarint(tail, uint64(rate))
	tail = append(tail, 5<<3, 1)
	size := 1 + length(len(pcm)) + len(pcm) + len(tail)
	b = append(b, audioFrame<<3|2)
	b = binary.AppendUvarint(b, uint64(size))
	b = append(b, 3<<3|2)
	b = binary.AppendUvarint(b, uint64(len(pcm)))
	b = append(b, pcm...)
	return append(b, tail...)
}

// length is that of a number as it is written.
func length(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], uint64(n))
}

// appendMessage appends a frame with JSON.
func appendMessage(b, data []byte) []byte {
	b = append(b, messageFrame<<3|2)
	b = binary.AppendUvarint(b, uint64(1+length(len(data))+len(data)))
	b = append(b, 1<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}
