package rtpmedia

import "sync"

// queueMost bounds what waits to be sent: more is left out.
const queueMost = 1000

// Outbox holds frames and marks that wait to be sent, one frame every 20 ms. The zero value is
// ready.
type Outbox struct {
	mu    sync.Mutex
	queue []item
	free  [][]byte
	marks []string
}

// item waits to be sent: a frame, or a mark.
type item struct {
	audio []byte
	mark  string
}

// Play queues a frame.
func (o *Outbox) Play(frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) >= queueMost {
		return
	}
	var buf []byte
	if n := len(o.free); n > 0 {
		buf, o.free = o.free[n-1], o.free[:n-1]
	}
	o.queue = append(o.queue, item{audio: append(buf[:0], frame...)})
}

// Mark queues a mark behind the frames that wait.
func (o *Outbox) Mark(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, item{mark: name})
}

// Flush drops all that waits, marks included.
func (o *Outbox) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, it := range o.queue {
		if it.audio != nil {
			o.free = append(o.free, it.audio)
		}
	}
	o.queue = o.queue[:0]
}

// Next appends the frame that is due to buf, and returns the marks that are reached with it;
// they are good until the next call.
func (o *Outbox) Next(buf []byte) (frame []byte, marks []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marks = o.marks[:0]
	n, found := 0, false
	for ; n < len(o.queue); n++ {
		it := &o.queue[n]
		if it.audio != nil && found {
			break
		}
		if it.audio == nil {
			o.marks = append(o.marks, it.mark)
			continue
		}
		buf, found = append(buf, it.audio...), true
		o.free = append(o.free, it.audio)
	}
	o.queue = o.queue[:copy(o.queue, o.queue[n:])]
	return buf, o.marks
}
