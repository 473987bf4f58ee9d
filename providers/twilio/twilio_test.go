package twilio

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/internal/twiliomedia"
	"voicebridge/providers/providertest"
)

func TestConformance(t *testing.T) {
	const sid = "MZ00000000000000000000000000000001"
	text := func(s string) providers.Message {
		return providertest.Text(strings.ReplaceAll(s, "MZ…", sid))
	}
	silence := strings.Repeat("/", 213) + "w=="
	frame, err := base64.StdEncoding.DecodeString(silence)
	if err != nil {
		t.Fatal(err)
	}
	start := providertest.Event(providers.EventStart)
	start.Start = &providers.Start{Account: "AC…", Call: "CA…", Stream: sid, In: twiliomedia.Format, Out: twiliomedia.Format,
		Params: map[string]string{"run": "42"}}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio, audio.At = frame, 5*time.Millisecond
	digit := providertest.Event(providers.EventDigit)
	digit.Digit = '1'
	mark := providertest.Event(providers.EventMark)
	mark.Mark = "u-17"

	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{Account: "AC1", Call: "CA1", Stream: sid, In: f, Out: f,
				Params: map[string]string{"a": "b", "quote": `"\`}}
		},
		Documented: []providertest.Documented{
			{Message: text(`{"event":"connected","protocol":"Call","version":"1.0.0"}`),
				Event: providertest.Event(providers.EventConnected)},
			{Message: text(`{"event":"start","sequenceNumber":"1","streamSid":"MZ…","start":{"accountSid":"AC…","streamSid":"MZ…","callSid":"CA…","tracks":["inbound"],"customParameters":{"run":"42"},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}`), Event: start},
			{Message: text(`{"event":"media","sequenceNumber":"3","streamSid":"MZ…","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"` + silence + `"}}`), Event: audio},
			// the same with the keys in another order, an unknown key, an escape
			{Message: text(`{"media":{"payload":"` + silence +
				`","timestamp":"5","chunk":"2","track":"inbound"}, "event" : "media","streamSid":"MZ…"}`),
				Event: audio},
			{Message: text(`{"event":"media","new":[{}],"streamSid":"MZ…","media":{"timestamp":"5","payload":"` +
				strings.ReplaceAll(silence, "/", `\/`) + `"}}`), Event: audio},
			{Message: text(`{"event":"dtmf","streamSid":"MZ…","sequenceNumber":"9","dtmf":{"track":"inbound_track","digit":"1"}}`), Event: digit},
			{Message: text(`{"event":"mark","sequenceNumber":"11","streamSid":"MZ…","mark":{"name":"u-17"}}`),
				Event: mark},
			{Message: text(`{"event":"stop","sequenceNumber":"90","streamSid":"MZ…","stop":{"accountSid":"AC…","callSid":"CA…"}}`), Event: providertest.Event(providers.EventStop)},
		},
		Malformed: []providers.Message{
			{Binary: true, Data: frame},
			text(`{"event":"media","streamSid":"MZ…"}`),
			text(`{"event":"media","streamSid":"MZ…","media":{"payload":"not base64"}}`),
			text(`{"event":"media","streamSid":"MZ…","media":{"payload":"AAA"}}`),
			text(`{"event":"media","streamSid":"MZ…","media":{"chunk":"x","payload":"AAAA"}}`),
			text(`{"event":"media","streamSid":"MZ…","media":{"chunk":"-1","payload":"AAAA"}}`),
			text(`{"event":"media","streamSid":"MZ…","media":[]}`),
			text(`{"event":"media","streamSid":"MZother","media":{"payload":"AAAA"}}`),
			text(`{"event":"dtmf","streamSid":"MZ…","dtmf":{"digit":"x"}}`),
			text(`{"event":"dtmf","streamSid":"MZ…","dtmf":{"digit":"12"}}`),
			text(`{"event":"dtmf","streamSid":"MZ…"}`),
			text(`{"event":"mark","streamSid":"MZ…"}`),
			text(`{"event":"mark","streamSid":"MZother","mark":{"name":"a"}}`),
			text(`{"event":"stop","streamSid":"MZother"}`),
		},
		Unknown: []providers.Message{
			text(`{"event":"weather","streamSid":"MZ…","weather":{"rain":true}}`),
			text(`{"event":"media","streamSid":"MZ…","media":{"track":"outbound","payload":"AAAA"}}`),
		},
		BadFormat: text(`{"event":"start","streamSid":"MZ…","start":{"streamSid":"MZ…","mediaFormat":{"encoding":"audio/opus","sampleRate":48000,"channels":2}}}`),
	})
}
