// Package flatjson reads long JSON objects of plain members, as messages with audio are, without a
// parse: those come all the time.
package flatjson

import (
	"bytes"
	"encoding/json"
)

// maxSimple is how many bytes a number may have.
const maxSimple = 32

// Members gives the members of an object to each, at most so many: keys without their quotes, and
// values, which are strings without escapes, with their quotes, or neither objects nor lists. It is
// false where the object is written otherwise, or each is: then it has to be parsed.
func Members(b []byte, most int, each func(key, value []byte) bool) bool {
	b = bytes.TrimSpace(b)
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return false
	}
	b = b[1 : len(b)-1]
	for range most {
		key, rest, ok := plainString(b)
		if !ok {
			return false
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			return false
		}
		value, rest, ok := simpleValue(rest[1:])
		if !ok || !each(key, value) {
			return false
		}
		if rest = bytes.TrimLeft(rest, " \t\r\n"); len(rest) == 0 {
			return true
		}
		if rest[0] != ',' {
			return false
		}
		b = rest[1:]
	}
	return false
}

// Text returns what is in a value that is a string.
func Text(value []byte) (text []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
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
		if !ok {
			return nil, nil, false
		}
		return b[:len(text)+2], rest, true
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
