// Package ws is WebSocket connections with every limit set. They carry messages
// and know nothing of calls.
//
// A connection is read in one of two ways. Read waits for the next message. Serve
// has each message given to a Handler: by an event loop, which serves many
// connections on one goroutine, or by a goroutine of the connection's own where
// there is no loop. Both run the same framing over the same line, so that they
// behave alike. Only the handshakes are left to a library. Package dial makes the connections below them; package
// meter tells how busy a loop is.
//
// # How it is built
//
//	Handler   what a user of the package is: Message, Writable, Closed
//	Conn      messages, pings, close codes, limits            ws.go, read.go
//	frame     frames of RFC 6455, taken apart as they come    frame/
//	(TLS)     where the URL is wss://, between the two
//	line      bytes; writes never wait                        line.go
//	Loop      tells lines what they can do                    loop_linux.go
//
// What is read runs upwards on one goroutine: the loop's, or the connection's own. It
// owns the fields of Conn below "Owned by whoever reads" without a lock. What is
// written runs downwards on whatever goroutine calls Put. The two meet in the line,
// under its lock, and nowhere else.
//
// # Turns
//
// An event loop works for one connection for a fifth of a millisecond. Whoever needs more (it sends
// all that is taken, or what takes long) is not listened to any more, and waits in a queue: its
// head has another turn each time that the loop comes round, and all who wait have a quarter of the
// loop's time together. So the others are late by one turn, however many there are.
//
// # Locks
//
// Four, in this order; none is held while a Handler is called, and none over a system
// call that can wait:
//
//   - Conn.out orders what is written: nothing follows the close message. It is held over a write,
//     which does not wait.
//   - Conn.mu guards the timers and the pong that is owed. It is held for a few
//     assignments.
//   - line.mu guards what is kept because the other side did not take it. It is held
//     over a write, which does not wait: the descriptor is non-blocking.
//   - Loop.mu guards the map of connections and the functions to be run by the loop.
//
// # Writing
//
// Put makes one frame and gives it to the line, which writes as much as the system
// takes at once. The rest is kept, Put reports more == false, and the loop (or a
// goroutine that ends with it) sends it as soon as it can; then Writable is called. So a
// peer that does not read holds up nobody: what it did not take within Limits.Write
// ends its connection with ErrSlow, and no more than 4 MB are kept for it.
//
// # The end
//
// A connection ends from one of three sides, and always in the same order: the reason
// is noted (the first one counts), Closed is called or Read fails, the descriptor is
// closed.
//
//   - The other side closes: closedBy answers its close message, gone is set, and the
//     line is closed at once.
//   - This side closes: Close sends its message and starts a timer of a second
//     (linger). Meanwhile what still comes is read and discarded, for data that nobody
//     reads would make the system take the close message back.
//   - The line fails, or is cut because of a limit: lost says which of the errors is
//     the one to be told. What had come before is still given to the Handler.
package ws
