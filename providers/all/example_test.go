package all_test

import (
	"fmt"

	"voicebridge/providers"
	"voicebridge/providers/all"
)

// The two ends of a media connection: what the carrier's end makes of an event, the
// bridge's turns into the same event again.
func ExampleLookup() {
	spec := all.Lookup("twilio")
	carrier, bridge := spec.NewPeer(), spec.NewStream()
	f := spec.Formats[0]
	var out providers.Messages
	for _, ev := range []providers.Event{
		{Kind: providers.EventStart, Start: &providers.Start{Account: "AC1", Call: "CA1", Stream: "MZ1", In: f,
			Out: f}},
		{Kind: providers.EventDigit, Digit: '5'},
	} {
		if err := carrier.Encode(&out, &ev); err != nil {
			fmt.Println(err)
		}
	}
	for _, m := range out.All() {
		evs, err := bridge.Decode(nil, m)
		if err != nil {
			fmt.Println(err)
		}
		for _, ev := range evs {
			fmt.Println(ev.Kind, string(ev.Digit) == "5")
		}
	}
	// Output:
	// start false
	// digit true
}
