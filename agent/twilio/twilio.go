// Package twilio speaks to agents that were written for Twilio's Media Streams, as Twilio does,
// whatever carrier the call has: it is the Peer of providers/twilio, turned round. Sources:
// Twilio's "Media Streams - WebSocket messages", and what such agents read and send.
package twilio

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"voicebridge/agent"
	"voicebridge/codec"
	"voicebridge/providers"
	carrier "voicebridge/providers/twilio"
)

// Name is the dialect's.
const Name = "twilio"

// Dialect describes it.
var Dialect = &agent.Dialect{Name: Name, Title: "Twilio Media Streams", Attempt: 10 * time.Second, New: newProtocol,
	Can: agent.Features{Formats: "mu-law at 8 kHz, untouched", Marks: "marks, when they are heard", Hangup: true,
		Digits: true, Transfers: true}} // by REST

// format is the only one.
var format = carrier.Spec.Formats[0]

const (
	// maxText bounds a message, in bytes: 90 s of audio, as a model may answer at once.
	maxText = 1 << 20
	// maxBinary bounds what is none of the protocol's, and ignored.
	maxBinary = 1 << 10
	// Marks and clears a second, and in a row: an answer of a minute has a mark for each piece.
	maxCommands, commandsBurst = 1000, 8192
	maxName                    = 1024 // bytes of a mark's name
	maxParameter               = 500  // of a custom parameter's name and value (Twilio's <Parameter>)
)

// options are the dialect's own.
type options struct {
	AccountSID string `yaml:"account_sid"`
	AuthToken  string `yaml:"auth_token"`
	// VoiceURL is asked for TwiML, whose stream is the agent's URL; empty: it is as configured.
	VoiceURL string `yaml:"voice_url"`
}

// protocol is that of one configured agent.
type protocol struct {
	account string
	token   string // of the account; empty: agents cannot ask for anything
	host    string // of the agent
	voice   string // the webhook that tells where the agent is; empty: none
	http    *http.Client
	// signer is the carrier's end of an account; nil: handshakes are not signed.
	signer providers.Exchange
}

func newProtocol(o agent.Options) (agent.Protocol, error) {
	var own options
	if o.Decode != nil {
		if err := o.Decode(&own); err != nil {
			return nil, err
		}
	}
	switch {
	case o.Incoming:
		return nil, errors.New("url: must be set: agents written for Twilio wait to be dialled")
	case o.InputRate != 0 && o.InputRate != format.Rate, o.OutputRate != 0 && o.OutputRate != format.Rate:
		return nil, fmt.Errorf("input_rate, output_rate: such agents hear and speak %v", format)
	}
	p := &protocol{account: own.AccountSID, token: own.AuthToken, voice: own.VoiceURL, http: o.HTTP}
	if u, err := url.Parse(own.VoiceURL); err != nil || own.VoiceURL != "" &&
		(u.Scheme != "https" && u.Scheme != "http" ||
			u.Host == "" || u.User != nil) {
		return nil, errors.New("options.voice_url: must begin with https:// and name a host")
	}
	if own.AccountSID == "" {
		p.account = sid("AC", "voicebridge")
	}
	if own.AuthToken == "" {
		return p, nil
	}
	var err error
	if p.signer, err = carrier.NewExchange(providers.Setup{Decode: func(c any) error {
		*c.(*carrier.Config) = carrier.Config{AccountSID: p.account, AuthToken: own.AuthToken}
		return nil
	}}); err != nil {
		return nil, fmt.Errorf("options.%w", err)
	}
	return p, nil
}

// sid returns an identifier as Twilio's are: two letters, and 32 hexadecimal digits that a text
// stands for.
func sid(kind, of string) string {
	sum := sha256.Sum256([]byte(kind + of))
	return kind + hex.EncodeToString(sum[:16])
}

// Formats implements agent.Protocol.
func (p *protocol) Formats(*url.URL) (hears, speaks codec.Format, err error) {
	return format, format, nil
}

// Address implements agent.Addresser: it is as configured.
func (p *protocol) Address(configured string) (string, error) {
	if u, err := url.Parse(configured); err == nil {
		p.host = u.Host
	}
	return configured, nil
}

// Limits implements agent.Protocol.
func (p *protocol) Limits(*url.URL) (text, binary int64) { return maxText, maxBinary }

// NewTalk implements agent.Protocol.
func (p *protocol) NewTalk(*url.URL) agent.Talk {
	return &talk{protocol: p, commands: rate.NewLimiter(maxCommands, commandsBurst)}
}

// Handshake implements agent.Handshaker: it is signed as Twilio signs it.
func (p *protocol) Handshake(u *url.URL, h http.Header) error {
	if p.signer == nil {
		return nil
	}
	signed, err := p.signer.Handshake(u.String(), time.Now())
	maps.Copy(h, signed)
	return err
}

// talk is what is said in one call.
type talk struct {
	protocol *protocol

	// Owned by whoever sends.
	peer providers.Peer
	at   time.Duration // of the caller's audio, by samples

	// Owned by whoever reads.
	commands *rate.Limiter
	cmd      agent.Command
	audio    []byte
}

// Formats implements agent.Talk.
func (t *talk) Formats() (hears, speaks codec.Format) { return format, format }

// Ready implements agent.Talk: there is no such word.
func (t *talk) Ready() bool { return true }

// Start implements agent.Talk.
func (t *talk) Start(out *providers.Messages, call *agent.Call, _ bool) error {
	t.peer, t.at = carrier.Spec.NewPeer(), 0
	if err := t.peer.Encode(out, &providers.Event{Kind: providers.EventConnected}); err != nil {
		return err
	}
	return t.peer.Encode(out, &providers.Event{Kind: providers.EventStart, Start: &providers.Start{
		Account: t.protocol.account,
		Call:    sid("CA", call.Session),
		Stream:  sid("MZ", call.Session+"/"+strconv.Itoa(call.Known.Returns)),
		In:      format, Out: format, Params: parameters(call),
	}})
}

// parameters are the custom parameters: the metadata, what agents look for by convention, and what their own webhook
// has told.
func parameters(call *agent.Call) map[string]string {
	params := map[string]string{"call_id": call.Session}
	for _, custom := range []map[string]string{call.Custom(), call.Told} {
		for name, value := range custom {
			if len(name)+len(value) < maxParameter {
				params[name] = value
			}
		}
	}
	for name, value := range map[string]string{"from_number": call.Known.From, "to_number": call.Known.To,
		"direction": call.Known.Direction} {
		if value != "" {
			params[name] = value
		}
	}
	return params
}

// Encode implements agent.Talk. What Twilio has no word for is not told.
func (t *talk) Encode(out *providers.Messages, ev *agent.Event) error {
	is := providers.Event{At: -1}
	switch ev.Kind {
	case agent.EventAudio:
		is = providers.Event{Kind: providers.EventAudio, Audio: ev.Audio, At: t.at}
		t.at += format.Duration(len(ev.Audio))
	case agent.EventGap:
		t.at += ev.Duration // the timestamps jump, and the agent fills in
		return nil
	case agent.EventDigit:
		is.Kind, is.Digit = providers.EventDigit, ev.Digit
	case agent.EventMark: // heard, or cleared: it is echoed
		is.Kind, is.Mark = providers.EventMark, ev.Mark
	case agent.EventStop:
		is.Kind = providers.EventStop
	default:
		return nil
	}
	return t.peer.Encode(out, &is)
}

// message is any of an agent's. Whose stream it is for is not asked: not all say.
type message struct {
	Event string `json:"event"`
	Media *struct {
		Payload string `json:"payload"`
	} `json:"media"`
	Mark *struct {
		Name string `json:"name"`
	} `json:"mark"`
}

// Decode implements agent.Talk. What Twilio ignores is ignored, and counted.
func (t *talk) Decode(m providers.Message, do func(*agent.Command)) {
	t.cmd = agent.Command{}
	t.read(m, &t.cmd)
	do(&t.cmd)
}

func (t *talk) read(m providers.Message, cmd *agent.Command) {
	var msg message
	if m.Binary {
		cmd.Kind, cmd.Type = agent.CommandUnknown, "binary"
		return
	}
	if err := json.Unmarshal(m.Data, &msg); err != nil {
		fault(cmd, "bad_json", "not a JSON object, or of the wrong types")
		return
	}
	if msg.Event == "media" && msg.Media != nil {
		t.media(msg.Media.Payload, cmd)
		return
	}
	if !t.commands.Allow() {
		cmd.Fatal = true
		fault(cmd, "rate_limited", "far more than "+strconv.Itoa(maxCommands)+" messages a second")
		return
	}
	switch {
	case msg.Event == "mark" && msg.Mark != nil && len(msg.Mark.Name) <= maxName:
		cmd.Kind, cmd.Mark = agent.CommandMark, msg.Mark.Name
	case msg.Event == "mark":
		fault(cmd, "bad_field", "mark.name is missing, or too long")
	case msg.Event == "media":
		fault(cmd, "bad_field", "media.payload is missing")
	case msg.Event == "clear":
		cmd.Kind = agent.CommandClear
	default:
		cmd.Kind, cmd.Type = agent.CommandUnknown, msg.Event[:min(len(msg.Event), 64)]
	}
}

func (t *talk) media(payload string, cmd *agent.Command) {
	var err error
	if t.audio, err = base64.StdEncoding.AppendDecode(t.audio[:0], []byte(payload)); err != nil {
		fault(cmd, "bad_field", "media.payload is not base64")
		return
	}
	cmd.Kind, cmd.Audio = agent.CommandAudio, t.audio
}

// fault has a message refused. Nobody is told: Twilio says nothing, either.
func fault(cmd *agent.Command, code, message string) {
	*cmd = agent.Command{Kind: agent.CommandFault, Code: code, Message: message, Fatal: cmd.Fatal}
}
