// Package progress shows how far something is that takes long.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Bar draws how far the call is: a bar on a terminal, nothing elsewhere.
type Bar struct {
	mu     sync.Mutex
	out    io.Writer
	length time.Duration
}

// New makes a bar for what takes so long.
func New(out io.Writer, length time.Duration) *Bar {
	p := &Bar{length: length}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.out = f
		}
	}
	return p
}

// At tells how far it is.
func (p *Bar) At(t time.Duration) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	const width = 40
	n := min(width, int(width*t/p.length))
	fmt.Fprintf(p.out, "\r  [%s%s] %4.1f s of %.1f s", strings.Repeat("#", n), strings.Repeat(".", width-n),
		t.Seconds(), p.length.Seconds())
}

// Line prints a line, above the bar if there is one.
func (p *Bar) Line(out io.Writer, s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != nil {
		s = "\r\x1b[K" + s // over the bar, which is drawn again
	}
	fmt.Fprintln(out, s)
}

// Part draws a bar for what is going on.
func (p *Bar) Part(what string, part float64) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	const width = 30
	n := int(width * min(part, 1))
	fmt.Fprintf(p.out, "\r\x1b[K  [%s%s] %s", strings.Repeat("#", n), strings.Repeat(".", width-n), what)
}

// Clear takes the bar away.
func (p *Bar) Clear() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// Done leaves the full bar where it is.
func (p *Bar) Done() {
	if p.out != nil {
		p.At(p.length)
		fmt.Fprintln(p.out)
	}
}
