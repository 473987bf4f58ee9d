package asterisk

import (
	"testing"

	"voicebridge/codec"
	"voicebridge/providers"
	"voicebridge/providers/providertest"
)

func TestConformance(t *testing.T) {
	text := providertest.Text
	f := codec.Format{Encoding: codec.PCMU, Rate: 8000}
	start := providertest.Event(providers.EventStart)
	start.Start = &providers.Start{Call: "1795376166.2", Stream: "1795376166.2", In: f, Out: f}
	audio := providertest.Event(providers.EventAudio)
	audio.Audio = make([]byte, 160)
	digit := providertest.Event(providers.EventDigit)
	digit.Digit = '1'
	mark := providertest.Event(providers.EventMark)
	mark.Mark = "mark-1"
	fixture := func(name string) providers.Message {
		return providers.Message{Data: providertest.Fixture(t, name)}
	}
	unknown := providertest.Event(providers.EventUnknown)
	providertest.Run(t, providertest.Harness{
		Spec: Spec,
		Start: func(f codec.Format) *providers.Start {
			return &providers.Start{Call: "caller-1", Stream: "caller-1.media-x", In: f, Out: f}
		},
		Documented: []providertest.Documented{
			{Message: fixture("media-start.txt"), Event: start},
			{Message: providers.Message{Binary: true, Data: make([]byte, 160)}, Event: audio},
			{Message: fixture("media-dtmf.txt"), Event: digit},
			{Message: fixture("media-mark-processed.txt"), Event: mark},
			{Message: fixture("media-status.txt"), Event: unknown},
		},
		Malformed: []providers.Message{
			text("DTMF_END"), text("DTMF_END digit:x"), text("DTMF_END digit:12"), text("media_start"),
			text(`{"event":"DTMF_END","digit":5}`), {Binary: true, Data: make([]byte, 639)},
		},
		Unknown: []providers.Message{text("SOMETHING_ELSE a:b"), text(`{"event":"SOMETHING_ELSE"}`),
			text("MEDIA_XOFF\n")},
		BadFormat: fixture("media-start-opus.json"),
	})
}

func TestControl(t *testing.T) {
	sample := Sample("http://127.0.0.1", Spec.Formats[0])
	providertest.RunControl(t, providertest.Control{Spec: Spec, Secret: "the secret",
		Config: func(base string) func(any) error {
			return func(c any) error {
				if err := sample(c); err != nil {
					return err
				}
				c.(*Config).URL, c.(*Config).Password = base+"/ari", "the secret"
				return nil
			}
		}})
}
