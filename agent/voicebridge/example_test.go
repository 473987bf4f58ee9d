package voicebridge_test

import (
	"fmt"
	"net/url"

	"voicebridge/agent"
	"voicebridge/agent/voicebridge"
	"voicebridge/providers"
)

// What is said with an agent, without any connection: an event becomes messages, and
// what the agent says becomes commands.
func Example() {
	protocol, err := voicebridge.Dialect.New(agent.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	u, _ := url.Parse("wss://agent.example.com/?in_rate=8000")
	hears, speaks, err := protocol.Formats(u)
	fmt.Println(hears, speaks, err)

	talk := protocol.NewTalk(u)
	var out providers.Messages
	err = talk.Encode(&out, &agent.Event{Kind: agent.EventAudio, Audio: make([]byte, 320)})
	fmt.Println(len(out.All()), out.All()[0].Binary, len(out.All()[0].Data), err)

	talk.Decode(providers.Message{Data: []byte(`{"type":"mark","name":"hello"}`)}, func(cmd *agent.Command) {
		fmt.Println(cmd.Kind == agent.CommandMark, cmd.Mark)
	})
	// Output:
	// l16/8000 l16/16000 <nil>
	// 1 true 320 <nil>
	// true hello
}
