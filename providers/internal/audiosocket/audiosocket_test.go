package audiosocket

import (
	"bytes"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"voicebridge/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("../../asterisk/testdata/fixtures/audiosocket-" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFixtures: Asterisk's frames are read, and written as they are.
func TestFixtures(t *testing.T) {
	for name, want := range map[string]byte{"uuid": UUID, "dtmf": Digit, "hangup": Hangup, "error": Error,
		"audio-slin": 0x10, "audio-slin16": 0x12, "audio-slin24": 0x13} {
		b := fixture(t, name)
		kind, payload, err := Read(bytes.NewReader(b), nil)
		if err != nil || kind != want || !bytes.Equal(Append(nil, kind, payload), b) {
			t.Errorf("%s: %#x, %d bytes, %v", name, kind, len(payload), err)
		}
	}
	id, err := ReadUUID(bytes.NewReader(fixture(t, "uuid")))
	if err != nil || hex.EncodeToString(id[:]) != "40325ec25efd4bd3805f53576e581d13" {
		t.Errorf("%x, %v", id, err)
	}
	if _, err := ReadUUID(bytes.NewReader(fixture(t, "dtmf"))); err == nil {
		t.Error("a digit was taken for a UUID")
	}
	if kind, known := KindOf(codec.Format{Encoding: codec.L16LE, Rate: 16000}); kind != 0x12 || !known {
		t.Errorf("%#x", kind)
	}
}

// ear keeps what comes.
type ear struct {
	mu     sync.Mutex
	audio  []byte
	digits string
	marks  []string
	closed int
	err    error
}

func (e *ear) Audio(frame []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.audio = append(e.audio, frame...)
}
func (e *ear) Digit(d byte)     { e.mu.Lock(); defer e.mu.Unlock(); e.digits += string(d) }
func (e *ear) Mark(name string) { e.mu.Lock(); defer e.mu.Unlock(); e.marks = append(e.marks, name) }
func (e *ear) Closed(err error) { e.mu.Lock(); defer e.mu.Unlock(); e.closed++; e.err = err }

// TestConn: what comes is given, wrong lengths and types mean nothing, and what is sent goes out
// every 20 ms.
func TestConn(t *testing.T) {
	for name, tt := range map[string]struct {
		end  []byte
		good bool
	}{"hung up": {Append(nil, Hangup, nil), true}, "error": {Append(nil, Error, []byte{1}), false},
		"cut short": {[]byte{0x12, 2}, false}, "too long": {[]byte{0x12, 0xff, 0xff}, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				e := &ear{}
				c := New(here, 0x12)
				c.Serve(e)
				var at []time.Duration
				began, read := time.Now(), make(chan struct{})
				go func() {
					defer close(read)
					for {
						kind, payload, err := Read(there, nil)
						if err != nil {
							return
						}
						if kind == 0x12 && len(payload) == 640 {
							at = append(at, time.Since(began))
						}
					}
				}()
				for range 5 {
					c.Play(make([]byte, 640))
				}
				c.Mark("m")
				for _, b := range [][]byte{Append(nil, 0x12, make([]byte, 640)), Append(nil, 0x12, make([]byte, 3)),
					Append(nil, 0x12, nil), Append(nil, 0x10, make([]byte, 320)), Append(nil, 0x77, []byte("x")),
					Append(nil, Digit, []byte("5")), Append(nil, Digit, []byte("55")), Append(nil, 0x12, make([]byte, 100))} {
					if _, err := there.Write(b); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				if _, err := there.Write(tt.end); err != nil {
					t.Fatal(err)
				}
				if name == "cut short" {
					there.Close()
				}
				c.Release()
				there.Close()
				<-read
				if len(e.audio) != 740 || e.digits != "5" || len(e.marks) != 1 || e.closed != 1 || (e.err == nil) != tt.good {
					t.Errorf("%d bytes, digits %q, marks %v, closed %d times: %v", len(e.audio), e.digits, e.marks, e.closed,
						e.err)
				}
				for i, d := range at {
					if want := time.Duration(i+1) * codec.FrameTime; d != want {
						t.Errorf("frame %d after %v", i, d)
					}
				}
				if len(at) != 5 {
					t.Errorf("%d frames were sent", len(at))
				}
			})
		})
	}
}

// FuzzRead: whatever comes is read or refused.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"uuid", "dtmf", "hangup", "error", "audio-slin"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			kind, payload, err := Read(r, nil)
			if err != nil {
				return
			}
			if !bytes.HasSuffix(b[:len(b)-r.Len()], Append(nil, kind, payload)) {
				t.Errorf("%#x %x of %x", kind, payload, b)
			}
		}
	})
}
