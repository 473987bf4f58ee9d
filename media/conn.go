package media

import (
	"errors"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/ws"
)

// conn is a WebSocket as the media connection of a session.
type conn struct {
	*ws.Conn
	loop    *ws.Loop
	handler session.MediaHandler
}

func newConn(c *ws.Conn, loop *ws.Loop) *conn { return &conn{Conn: c, loop: loop} }

// Serve implements session.Media.
func (c *conn) Serve(h session.MediaHandler) {
	c.handler = h
	c.Conn.Serve(c.loop, c)
}

// Put implements session.Media.
func (c *conn) Put(m providers.Message) (more bool, err error) { return c.Conn.Put(m.Binary, m.Data) }

// closeCodes tell the carrier why a session has ended; all others: in good order.
var closeCodes = map[calls.Cause]int{
	calls.ProtocolError:    ws.CloseBadStart,
	calls.StartTimeout:     ws.CloseTimeout,
	calls.MediaTimeout:     ws.CloseTimeout,
	calls.Shutdown:         ws.CloseGoingAway,
	calls.AgentUnreachable: ws.CloseInternal,
	calls.AgentLost:        ws.CloseInternal,
	calls.AgentTimeout:     ws.CloseInternal,
	calls.AgentSilent:      ws.CloseInternal,
	calls.AgentProtocol:    ws.CloseInternal,
	calls.BridgeFault:      ws.CloseInternal,
}

// Close implements session.Media.
func (c *conn) Close(end calls.End) {
	code, special := closeCodes[end.Cause]
	if !special {
		code = ws.CloseNormal
	}
	c.Conn.Close(code, string(end.Cause))
}

// Message implements ws.Handler.
func (c *conn) Message(binary bool, data []byte) {
	c.handler.Message(providers.Message{Binary: binary, Data: data})
}

// Writable implements ws.Handler.
func (c *conn) Writable() { c.handler.Writable() }

// Closed implements ws.Handler.
func (c *conn) Closed(err error) { c.handler.Closed(endOf(err)) }

// endOf is what the end of a connection means for the call.
func endOf(err error) calls.End {
	var panicked *ws.PanicError
	switch code := ws.CloseCode(err); {
	case errors.As(err, &panicked):
		return calls.End{Cause: calls.BridgeFault, Err: err}
	case ws.InGoodOrder(code):
		return calls.End{Cause: calls.CallerHangup}
	case code != 0:
		return calls.End{Cause: calls.CarrierLost, Err: err}
	case errors.Is(err, ws.ErrSlow):
		return calls.End{Cause: calls.CarrierTimeout, Err: err}
	case ws.IsTimeout(err):
		return calls.End{Cause: calls.MediaTimeout, Err: err}
	}
	return calls.End{Cause: calls.ProtocolError, Err: err}
}
