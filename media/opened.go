package media

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/session"
	"voicebridge/ws"
)

// opened is a connection that a carrier's account has made as the media of a session.
type opened struct {
	providers.MediaConn
	handler session.MediaHandler
}

// Take takes a media connection that a carrier's account has made, for the URL that an answer
// to a call has.
func (s *Server) Take(media string, c providers.MediaConn) error {
	_, path, _ := strings.Cut(media, "/media/")
	name, token, _ := strings.Cut(path, "/")
	spec := s.specs[name]
	if spec == nil {
		return fmt.Errorf("media: no carrier %.20q", name)
	}
	ad, err := s.cfg.Control.ReadMedia(spec, token)
	if err == nil {
		err = s.cfg.Control.Admit(ad)
	}
	if err != nil {
		s.refused.WithLabelValues("token").Inc()
		return fmt.Errorf("media: a connection that was made is not wanted: %w", err)
	}
	if !s.cfg.Control.Begin(context.Background(), ad, &opened{MediaConn: c}) {
		s.refused.WithLabelValues("calls").Inc()
		return errors.New("media: too many calls")
	}
	return nil
}

// Serve implements session.Media.
func (o *opened) Serve(h session.MediaHandler) {
	o.handler = h
	o.MediaConn.Serve(o)
}

// Close implements session.Media.
func (o *opened) Close(end calls.End) {
	code, special := closeCodes[end.Cause]
	if !special {
		code = ws.CloseNormal
	}
	o.MediaConn.Close(code, string(end.Cause))
}

// Message implements providers.MediaHandler.
func (o *opened) Message(m providers.Message) { o.handler.Message(m) }

// Writable implements providers.MediaHandler.
func (o *opened) Writable() { o.handler.Writable() }

// Closed implements providers.MediaHandler.
func (o *opened) Closed(err error) {
	if err == nil {
		o.handler.Closed(calls.End{Cause: calls.CallerHangup})
		return
	}
	o.handler.Closed(endOf(err))
}
