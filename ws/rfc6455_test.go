package ws

// The rules of RFC 6455, case by case, over every kind of connection: messages of all sizes,
// control frames, reserved bits and opcodes, fragments, UTF-8, and the close.

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"voicebridge/ws/frame"
)

// rule is what the other side sends, and what it must get for that.
type rule struct {
	name   string
	frames []piece
	chop   int      // bytes written at once; 0: all
	echoes []string // messages, and pongs with "pong " before them
	code   int      // with which the connection is closed; 0: it goes on
}

// piece is one frame: its first byte, and its payload.
type piece struct {
	first   byte
	payload string
}

const final = 0x80

func text(s string) piece { return piece{final | frame.Text, s} }
func bin(s string) piece  { return piece{final | frame.Binary, s} }
func ping(s string) piece { return piece{final | frame.Ping, s} }
func pong(s string) piece { return piece{final | frame.Pong, s} }
func bye(code int, reason string) piece {
	return piece{final | frame.Close, string([]byte{byte(code >> 8), byte(code)}) + reason}
}

// sizes are those at which the length changes its form.
func sizeRules() (all []rule) {
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 18} {
		for _, chop := range []int{0, 997} {
			t, b := strings.Repeat("*", n), strings.Repeat("\xFE", n)
			all = append(all, rule{name: fmt.Sprintf("text of %d by %d", n, chop), frames: []piece{text(t)}, chop: chop,
				echoes: []string{t}},
				rule{name: fmt.Sprintf("binary of %d by %d", n, chop), frames: []piece{bin(b)}, chop: chop,
					echoes: []string{b}})
		}
	}
	for _, size := range []int{64, 1300, 1 << 14} { // fragments
		whole := strings.Repeat("*", 1<<16)
		all = append(all, rule{name: fmt.Sprintf("fragments of %d", size), frames: inFragments(frame.Text, whole, size),
			echoes: []string{whole}})
	}
	return all
}

// inFragments cuts a message.
func inFragments(op byte, whole string, size int) (all []piece) {
	for part := range slices.Chunk([]byte(whole), size) {
		all = append(all, piece{op, string(part)})
		op = frame.Continue
	}
	all[len(all)-1].first |= final
	return all
}

func controlRules() []rule {
	long := strings.Repeat("p", 125)
	ten := slices.Repeat([]piece{ping("x")}, 10)
	return []rule{
		{name: "empty ping", frames: []piece{ping("")}, echoes: []string{"pong "}},
		{name: "ping", frames: []piece{ping("Hello")}, echoes: []string{"pong Hello"}},
		{name: "binary ping", frames: []piece{ping("\x00\xFF\xFE\xFD")}, echoes: []string{"pong \x00\xFF\xFE\xFD"}},
		{name: "longest ping", frames: []piece{ping(long)}, echoes: []string{"pong " + long}},
		{name: "longest ping by bytes", frames: []piece{ping(long)}, chop: 1, echoes: []string{"pong " + long}},
		{name: "ping too long", frames: []piece{ping(long + "x")}, code: closeBroken},
		{name: "pong nobody asked for", frames: []piece{pong(""), pong("x"), text("y")}, echoes: []string{"y"}},
		{name: "pong, then ping", frames: []piece{pong("x"), ping("y")}, echoes: []string{"pong y"}},
		{name: "ten pings, the last answered", frames: append(ten, ping("last")), echoes: []string{"pong last"}},
		{name: "ping in fragments", frames: []piece{{frame.Ping, "x"}, {final | frame.Continue, "y"}}, code: closeBroken},
		{name: "pong in fragments", frames: []piece{{frame.Pong, "x"}, {final | frame.Continue, "y"}}, code: closeBroken},
	}
}

func reservedRules() (all []rule) {
	for rsv := byte(1); rsv < 8; rsv++ {
		for _, op := range []byte{frame.Text, frame.Binary, frame.Ping, frame.Close} {
			all = append(all, rule{name: fmt.Sprintf("reserved bits %d of opcode %d", rsv, op),
				frames: []piece{text("before"), {final | rsv<<4 | op, "x"}, text("after")}, echoes: []string{"before"},
				code: closeBroken})
		}
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		for _, payload := range []string{"", "x"} {
			all = append(all, rule{name: fmt.Sprintf("opcode %d, %q", op, payload),
				frames: []piece{text("before"), {final | op, payload}, ping("")}, echoes: []string{"before"},
				code: closeBroken})
		}
	}
	return all
}

func fragmentRules() []rule {
	return []rule{
		{name: "two fragments", frames: []piece{{frame.Text, "a"}, {final | frame.Continue, "b"}}, echoes: []string{"ab"}},
		{name: "by bytes", frames: []piece{{frame.Text, "a"}, {final | frame.Continue, "b"}}, chop: 1, echoes: []string{"ab"}},
		{name: "empty ones", frames: []piece{{frame.Text, ""}, {frame.Continue, ""}, {final | frame.Continue, ""}},
			echoes: []string{""}},
		{name: "empty around", frames: []piece{{frame.Text, ""}, {frame.Continue, "m"}, {final | frame.Continue, ""}},
			echoes: []string{"m"}},
		{name: "a ping between", frames: []piece{{frame.Text, "a"}, ping("p"), {final | frame.Continue, "b"}},
			echoes: []string{"pong p", "ab"}},
		{name: "a ping between by bytes", frames: []piece{{frame.Text, "a"}, ping("p"), {final | frame.Continue, "b"}}, chop: 1,
			echoes: []string{"pong p", "ab"}},
		{name: "two pings between", frames: []piece{{frame.Text, "a"}, ping("p"), {frame.Continue, "b"}, ping("q"),
			{final | frame.Continue, "c"}}, chop: 1, echoes: []string{"pong p", "pong q", "abc"}},
		{name: "continues nothing, final", frames: []piece{{final | frame.Continue, "x"}}, code: closeBroken},
		{name: "continues nothing", frames: []piece{{frame.Continue, "x"}, text("y")}, code: closeBroken},
		{name: "continues a whole one", frames: []piece{text("a"), {final | frame.Continue, "x"}}, echoes: []string{"a"},
			code: closeBroken},
		{name: "a message in a message", frames: []piece{{frame.Text, "a"}, text("b")}, code: closeBroken},
		{name: "a fragment of another", frames: []piece{{frame.Text, "a"}, {frame.Binary, "b"}}, code: closeBroken},
		{name: "two messages", frames: []piece{{frame.Text, "a"}, {final | frame.Continue, "b"}, {frame.Binary, "c"},
			{final | frame.Continue, "d"}}, echoes: []string{"ab", "cd"}},
	}
}

// encodings are sequences of bytes, and whether they are UTF-8 (RFC 3629).
var encodings = []struct {
	bytes string
	valid bool
}{
	{"Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!", true}, {"\u03ba\u1f79\u03c3\u03bc\u03b5", true},
	{"\x00", true}, {"\u0080", true}, {"\u0800", true}, {"\U00010000", true}, {"\x7f", true}, {"\u07ff", true},
	{"\uffff", true}, {"\U0010ffff", true}, {"\ud7ff", true}, {"\ue000", true}, {"\ufffd", true}, {"\ufeff", true},
	{"\ufffe", true}, {"\U0001fffe", true}, {"\U0001ffff", true}, {"\U0010fffe", true}, {"\ufdd0", true},
	{"\xf4\x90\x80\x80", false}, {"\xf8\x88\x80\x80\x80", false}, {"\xfc\x84\x80\x80\x80\x80", false},
	{"\xf7\xbf\xbf\xbf", false}, {"\xfb\xbf\xbf\xbf\xbf", false}, {"\xfd\xbf\xbf\xbf\xbf\xbf", false}, {"\x80", false},
	{"\xbf", false}, {"\x80\xbf", false}, {"\x80\xbf\x80", false}, {"\x80\xbf\x80\xbf", false}, {"\xc0 \xc1 ", false},
	{"\xe0 \xe1 \xe2 ", false}, {"\xf0 \xf1 \xf2 ", false}, {"\xf8 \xf9 ", false}, {"\xfc \xfd ", false}, {"\xc0", false},
	{"\xe0\x80", false}, {"\xf0\x80\x80", false}, {"\xf8\x80\x80\x80", false}, {"\xfc\x80\x80\x80\x80", false},
	{"\xdf", false}, {"\xef\xbf", false}, {"\xf7\xbf\xbf", false}, {"\xfb\xbf\xbf\xbf", false}, {"\xfe", false},
	{"\xff", false}, {"\xfe\xfe\xff\xff", false}, {"\xc0\xaf", false}, {"\xe0\x80\xaf", false}, {"\xf0\x80\x80\xaf", false},
	{"\xc1\xbf", false}, {"\xe0\x9f\xbf", false}, {"\xf0\x8f\xbf\xbf", false}, {"\xc0\x80", false}, {"\xe0\x80\x80", false},
	{"\xf0\x80\x80\x80", false}, {"\xed\xa0\x80", false}, {"\xed\xad\xbf", false}, {"\xed\xae\x80", false},
	{"\xed\xaf\xbf", false}, {"\xed\xb0\x80", false}, {"\xed\xbe\x80", false}, {"\xed\xbf\xbf", false},
	{"\xed\xa0\x80\xed\xb0\x80", false}, {"\xed\xaf\xbf\xed\xbf\xbf", false},
	{"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", false},
}

func textRules() (all []rule) {
	for i, e := range encodings {
		whole := "a" + e.bytes
		for _, size := range []int{0, 1} {
			r := rule{name: fmt.Sprintf("UTF-8 %d in fragments of %d", i, size), frames: []piece{text(whole)}}
			if size > 0 {
				r.frames = inFragments(frame.Text, whole, size)
			}
			if r.code = CloseBadText; e.valid {
				r.code, r.echoes = 0, []string{whole}
			}
			all = append(all, r)
		}
	}
	return append(all, rule{name: "binary is not UTF-8", frames: []piece{bin("\xff\xfe")}, echoes: []string{"\xff\xfe"}})
}

func closeRules() []rule {
	all := []rule{
		{name: "close without a code", frames: []piece{{final | frame.Close, ""}}, code: closeNone},
		{name: "half a code", frames: []piece{{final | frame.Close, "\x03"}}, code: closeBroken},
		{name: "a reason", frames: []piece{bye(1000, "Hello")}, code: CloseNormal},
		{name: "the longest reason", frames: []piece{bye(1000, strings.Repeat("*", 123))}, code: CloseNormal},
		{name: "too long a reason", frames: []piece{bye(1000, strings.Repeat("*", 124))}, code: closeBroken},
		{name: "a reason that is not UTF-8", frames: []piece{bye(1000, "\xce\xba\xed\xa0\x80")}, code: closeBroken},
		{name: "close in fragments", frames: []piece{{frame.Close, "\x03\xe8"}}, code: closeBroken},
		{name: "close, then more", frames: []piece{text("a"), bye(1000, ""), text("b"), ping("c")}, echoes: []string{"a"},
			code: CloseNormal},
		{name: "close in a message", frames: []piece{{frame.Text, "a"}, bye(1000, ""), {final | frame.Continue, "b"}},
			code: CloseNormal},
		{name: "two closes", frames: []piece{bye(1000, ""), bye(1001, "")}, code: CloseNormal},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000,
		4999} {
		all = append(all, rule{name: fmt.Sprintf("code %d", code), frames: []piece{bye(code, "")}, code: code})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		all = append(all, rule{name: fmt.Sprintf("code %d", code), frames: []piece{bye(code, "")}, code: closeBroken})
	}
	return all
}

// echoer sends back what comes.
type echoer struct{ c *Conn }

func (e echoer) Message(binary bool, data []byte) { _, _ = e.c.Put(binary, data) } // the test sees what is missing
func (e echoer) Writable()                        {}
func (e echoer) Closed(error)                     {}

func TestRFC6455(t *testing.T) {
	rules := slices.Concat(sizeRules(), controlRules(), reservedRules(), fragmentRules(), textRules(), closeRules())
	t.Logf("%d rules", len(rules))
	everyKind(t, Limits{Text: 1 << 20, Binary: 1 << 20, Write: 5 * time.Second}, func(t *testing.T, k kind) {
		loop := (*Loop)(nil)
		if k.loop {
			loop = newTestLoop(t)
		}
		for _, r := range rules {
			c, other := k.open(t)
			c.Serve(loop, echoer{c})
			if err := k.obeys(t, r, other); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
			other.Close()
			c.Release()
		}
	})
}

// obeys checks one rule at the other side of a connection.
func (k kind) obeys(t *testing.T, r rule, other net.Conn) error {
	var wire []byte
	for _, f := range r.frames {
		wire = append(wire, k.frame(f.first, f.payload)...)
	}
	if r.code == 0 {
		wire = append(wire, k.frame(final|frame.Close, "\x03\xe8")...)
		r.code = CloseNormal
	}
	written := make(chan struct{})
	defer func() { <-written }()
	go func() {
		defer close(written)
		size := len(wire)
		if r.chop > 0 {
			size = r.chop
		}
		for part := range slices.Chunk(wire, size) {
			if _, err := other.Write(part); err != nil {
				return // it has closed: that is seen by who reads
			}
		}
	}()
	lib := k.library(t, other)
	lib.SetCloseHandler(func(int, string) error { return nil })
	// Of several pings the last one need be answered (5.5.3); where what was written before is still
	// being taken, that comes as soon as it has been.
	isPong := func(s string) bool { return strings.HasPrefix(s, "pong ") }
	pongs := slices.DeleteFunc(slices.Clone(r.echoes), func(s string) bool { return !isPong(s) })
	echoes := slices.DeleteFunc(slices.Clone(r.echoes), isPong)
	take := func(got string) error {
		if isPong(got) {
			pongs = pongs[slices.Index(pongs, got)+1:]
			return nil
		}
		if len(echoes) == 0 || got != echoes[0] {
			return fmt.Errorf("%.40q comes back, want %.40q", got, echoes)
		}
		echoes = echoes[1:]
		return nil
	}
	lib.SetPongHandler(func(data string) error { return take("pong " + data) })
	_ = lib.SetReadDeadline(time.Now().Add(10 * time.Second)) // of a connection that is there
	for {
		_, data, err := lib.ReadMessage()
		var closed *websocket.CloseError
		switch {
		case errors.As(err, &closed):
			if closed.Code != r.code || len(echoes)+len(pongs) > 0 {
				return fmt.Errorf("closed with %d, want %d; %.40q %.40q did not come back", closed.Code, r.code, echoes,
					pongs)
			}
			return nil
		case err != nil:
			return err
		}
		if err := take(string(data)); err != nil {
			return err
		}
	}
}
