package outage

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// Proxy passes TCP connections on, until it is cut.
type Proxy struct {
	Addr   string
	target string
	l      net.Listener
	mu     sync.Mutex
	cut    bool
	conns  map[net.Conn]struct{}
	group  sync.WaitGroup
}

// NewProxy listens for connections to the target.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sim: proxy: %w", err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, l: l, conns: map[net.Conn]struct{}{}}
	p.group.Go(p.accept)
	return p, nil
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.pass(c) })
	}
}

// keep holds a connection for as long as it lasts; false: the line is cut. A
// connection that is made then hangs, as in a network that drops packets.
func (p *Proxy) keep(c net.Conn) (whole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return !p.cut
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

func (p *Proxy) pass(c net.Conn) {
	defer p.drop(c)
	if !p.keep(c) {
		_, _ = io.Copy(io.Discard, c) // nothing comes through, up to the end
		return
	}
	to, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(to)
	p.keep(to)
	done := make(chan struct{})
	p.group.Go(func() {
		defer close(done)
		p.copy(to, c)
		to.Close()
	})
	p.copy(c, to)
	c.Close()
	<-done
}

// copy passes bytes on; those that come while the line is cut are lost, and the
// connection with them.
func (p *Proxy) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		cut := p.cut
		p.mu.Unlock()
		if cut && err == nil {
			continue
		}
		if n > 0 && !cut {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut drops everything that is sent from here on, without a word, as a partition
// does; Mend ends that, and the connections that were there.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

// Mend lets everything through again.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	for c := range p.conns {
		c.Close()
	}
}

// Close ends the proxy and all connections.
func (p *Proxy) Close() {
	p.l.Close()
	p.Mend()
	p.group.Wait()
}
