package audio

// fifo is a queue of bytes that allocates only to grow, and lets go of a large
// buffer once it is empty.
type fifo struct {
	buf  []byte
	head int
}

// keepFifo is the largest buffer that an empty queue keeps.
const keepFifo = 16 << 10

// len returns how many bytes are queued.
func (q *fifo) len() int { return len(q.buf) - q.head }

// bytes returns what is queued.
func (q *fifo) bytes() []byte { return q.buf[q.head:] }

// grow lets append add to the end of the queue: append is given the buffer and
// returns it with more at its end.
func (q *fifo) grow(add func(buf []byte) []byte) {
	if q.head > 0 && q.head >= q.len() {
		q.buf = q.buf[:copy(q.buf, q.buf[q.head:])]
		q.head = 0
	}
	q.buf = add(q.buf)
}

// drop removes n bytes from the front.
func (q *fifo) drop(n int) {
	q.head += n
	if q.len() == 0 {
		q.reset()
	}
}

// truncate keeps the first n bytes only.
func (q *fifo) truncate(n int) { q.buf = q.buf[:q.head+n] }

// take moves the first n bytes into dst, which it returns.
func (q *fifo) take(dst []byte, n int) []byte {
	dst = append(dst[:0], q.buf[q.head:q.head+n]...)
	q.drop(n)
	return dst
}

func (q *fifo) reset() {
	q.head = 0
	q.buf = q.buf[:0]
	if cap(q.buf) > keepFifo {
		q.buf = nil
	}
}

// bound drops the oldest 16-bit samples beyond most bytes.
func (q *fifo) bound(most int) {
	if n := q.len() - most; n > 0 {
		q.drop((n + 1) &^ 1)
	}
}
