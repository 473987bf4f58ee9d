package media

import (
	"errors"

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
var closeCodes = map[session.Cause]int{
	session.ProtocolError:    ws.CloseBadStart,
	session.StartTimeout:     ws.CloseTimeout,
	session.MediaTimeout:     ws.CloseTimeout,
	session.Shutdown:         ws.CloseGoingAway,
	session.AgentUnreachable: ws.CloseInternal,
	session.AgentLost:        ws.CloseInternal,
	session.AgentTimeout:     ws.CloseInternal,
	session.AgentSilent:      ws.CloseInternal,
	session.AgentProtocol:    ws.CloseInternal,
}

// Close implements session.Media.
func (c *conn) Close(end session.End) {
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
func endOf(err error) session.End {
	switch code := ws.CloseCode(err); {
	case ws.InGoodOrder(code):
		return session.End{Cause: session.CallerHangup}
	case code != 0:
		return session.End{Cause: session.CarrierLost, Err: err}
	case errors.Is(err, ws.ErrSlow):
		return session.End{Cause: session.CarrierTimeout, Err: err}
	case ws.IsTimeout(err):
		return session.End{Cause: session.MediaTimeout, Err: err}
	}
	return session.End{Cause: session.ProtocolError, Err: err}
}
