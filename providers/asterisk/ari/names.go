package ari

import "strings"

// Variables goes with what makes a channel.
type Variables struct {
	Variables map[string]string `json:"variables"`
}

// Channel is one as ARI tells it.
type Channel struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Caller struct {
		Number string `json:"number"`
	} `json:"caller"`
	Dialplan struct {
		Exten string `json:"exten"`
		App   string `json:"app_name"`
		Data  string `json:"app_data"`
	} `json:"dialplan"`
	Vars map[string]string `json:"channelvars,omitempty"`
}

// DialedMark stands in the id of the channel to a number, behind that of the leg that is to be
// connected to it.
const DialedMark = ".to-"

// Bridges are named after what they are for: a call and its media, or a room.
func BridgeOf(leg string) string { return leg + ".call" }
func RoomOf(room string) string  { return "room-" + room }
func RoomName(b string) string   { return strings.TrimPrefix(b, "room-") }
func IsRoom(bridge string) bool  { return strings.HasPrefix(bridge, "room-") }

// Silence and a number, 1 to 10, are a sound that lasts so many seconds.
const Silence = "sound:silence/"

// TokenParam is the parameter of the media connection's URL with its token.
const TokenParam = "token"

// Detected is the channel variable in which AMD leaves what it has found.
const Detected = "AMDSTATUS"

// The channel variables with which Asterisk says where a channel's audio is reached.
const (
	ConnectionVar = "MEDIA_WEBSOCKET_CONNECTION_ID"
	AddressVar    = "UNICASTRTP_LOCAL_ADDRESS"
	PortVar       = "UNICASTRTP_LOCAL_PORT"
)
