package voicebridge

import (
	"bytes"

	"voicebridge/agent/flatjson"
)

// maxMembers is how many members a message of audio may have to be read the fast way.
const maxMembers = 8

// audioOf returns the audio of a text message of the JSON profile, still in base64, without a parse
// of all of it: such messages are long, and come all the time. It is false where the message is no
// audio, or written in an unusual way: then it is read as commands are.
func audioOf(b []byte) (audio []byte, ok bool) {
	isAudio, has := false, false
	plain := flatjson.Members(b, maxMembers, func(key, value []byte) bool {
		switch string(key) {
		case "type":
			isAudio = string(value) == `"audio"`
		case "audio":
			audio, has = flatjson.Text(value)
			return has
		default: // encoding/json takes them in any case
			return !bytes.EqualFold(key, []byte("type")) && !bytes.EqualFold(key, []byte("audio"))
		}
		return true
	})
	return audio, plain && isAudio && has
}
