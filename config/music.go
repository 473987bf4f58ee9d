package config

import (
	"fmt"
	"slices"

	"voicebridge/wav"
)

// chime is the name of the music that comes with the bridge.
const chime = "chime"

// readMusic reads what callers hear who wait, from a WAV file.
func readMusic(path string) (*wav.Music, error) {
	if path == chime {
		return wav.Chime(), nil
	}
	pcm, rate, err := wav.Read(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("must be a WAV file, or %q: %w", chime, err)
	case silent(pcm):
		return nil, fmt.Errorf("%s has no audio, or only silence", path)
	}
	return wav.NewMusic(pcm, rate), nil
}

// silent reports whether audio has nothing in it that is heard: a peak below -60 dBFS.
func silent(pcm []int16) bool {
	return !slices.ContainsFunc(pcm, func(s int16) bool { return s > 32 || s < -32 })
}
