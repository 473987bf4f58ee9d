package voicebridge

import (
	"bytes"
	"encoding/json"
)

const (
	// maxMembers is how many members a message of audio may have to be read the fast way.
	maxMembers = 8
	// maxSimple is how many bytes a number may have.
	maxSimple = 32
)

// audioOf returns the audio of a text message of the JSON profile, still in base64, without a parse
// of all of it: such messages are long, and come all the time. It is false where the message is no
// audio, or written in an unusual way: then it is read as commands are.
func audioOf(b []byte) (audio []byte, ok bool) {
	b = bytes.TrimSpace(b)
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil, false
	}
	b = b[1 : len(b)-1]
	isAudio, has := false, false
	for range maxMembers {
		key, rest, ok := plainString(b)
		if !ok {
			return nil, false
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			return nil, false
		}
		value, rest, ok := simpleValue(rest[1:])
		if !ok {
			return nil, false
		}
		switch string(key) {
		case "type":
			isAudio = string(value) == `"audio"`
		case "audio":
			if len(value) < 2 || value[0] != '"' {
				return nil, false
			}
			audio, has = value[1:len(value)-1], true
		default: // encoding/json takes them in any case
			if bytes.EqualFold(key, []byte("type")) || bytes.EqualFold(key, []byte("audio")) {
				return nil, false
			}
		}
		if rest = bytes.TrimLeft(rest, " \t\r\n"); len(rest) == 0 {
			return audio, isAudio && has
		}
		if rest[0] != ',' {
			return nil, false
		}
		b = rest[1:]
	}
	return nil, false
}

// plainString takes a string without escapes.
func plainString(b []byte) (text, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) < 2 || b[0] != '"' {
		return nil, nil, false
	}
	for i, c := range b[1:] {
		switch {
		case c == '"':
			return b[1 : 1+i], b[2+i:], true
		case c < ' ' || c == '\\':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// simpleValue takes a string without escapes, with its quotes, or what else is no object or array.
func simpleValue(b []byte) (value, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) > 0 && b[0] == '"' {
		text, rest, ok := plainString(b)
		return b[:len(text)+2], rest, ok
	}
	end := bytes.IndexByte(b, ',')
	if end < 0 {
		end = len(b)
	}
	value = bytes.TrimRight(b[:end], " \t\r\n")
	if len(value) > maxSimple || bytes.ContainsAny(value, "[]{}\"") || !json.Valid(value) {
		return nil, nil, false
	}
	return value, b[end:], true
}
