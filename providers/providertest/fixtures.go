package providertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voicebridge/providers"
)

// Fixtures are literal messages from carriers' own documents, SDKs and captures, in
// the folder testdata/fixtures of each carrier. They are the judge of what we read and
// write: reader and writer may share a struct whose names are wrong in both.

// Fixture returns a fixture without the line break that ends the file.
func Fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b, []byte("\n"))
}

// FixtureNames lists the fixtures that match the patterns.
func FixtureNames(t testing.TB, patterns ...string) (names []string) {
	t.Helper()
	for _, p := range patterns {
		list, err := filepath.Glob(filepath.Join("testdata", "fixtures", p))
		if err != nil || len(list) == 0 {
			t.Fatalf("no fixtures %s: %v", p, err)
		}
		for _, path := range list {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// FixtureRequest reads a fixture that is a whole HTTP request.
func FixtureRequest(t testing.TB, name string) (r *http.Request, body []byte) {
	t.Helper()
	head, body, _ := bytes.Cut(Fixture(t, name), []byte("\n\n"))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\n\n"))))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r, body
}

// Decode gives a fixture to a stream and returns the one event that it means.
func Decode(t testing.TB, s providers.Stream, name string) providers.Event {
	t.Helper()
	ev, err := decode(s, providers.Message{Data: Fixture(t, name)})
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return ev
}

// Encode returns what a stream makes of a command.
func Encode(t testing.TB, s providers.Stream, cmd providers.Command) []byte {
	t.Helper()
	var out providers.Messages
	if err := s.Encode(&out, &cmd); err != nil || len(out.All()) != 1 {
		t.Errorf("%v: %d messages, %v", cmd.Kind, len(out.All()), err)
		return nil
	}
	return out.All()[0].Data
}

// WireNames lists the names of the members, elements and attributes in what carriers
// send and take: of JSON "call.from", of XML "Response/Say" and "Response/Dial@timeout",
// of a form "CallSid".
func WireNames(t testing.TB, data []byte) []string {
	t.Helper()
	set := map[string]bool{}
	trimmed := bytes.TrimSpace(data)
	switch {
	case len(trimmed) == 0:
	case trimmed[0] == '{' || trimmed[0] == '[':
		var v any
		if err := json.Unmarshal(trimmed, &v); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		jsonNames(set, "", v)
	case trimmed[0] == '<':
		xmlNames(t, set, trimmed)
	default:
		form, err := url.ParseQuery(string(trimmed))
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for name := range form {
			set[name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func jsonNames(set map[string]bool, at string, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			jsonNames(set, at, e)
		}
	case map[string]any:
		for k, e := range v {
			name := strings.TrimPrefix(at+"."+k, ".")
			set[name] = true
			jsonNames(set, name, e)
		}
	}
}

func xmlNames(t testing.TB, set map[string]bool, data []byte) {
	d := xml.NewDecoder(bytes.NewReader(data))
	var path []string
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			path = append(path, e.Name.Local)
			at := strings.Join(path, "/")
			set[at] = true
			for _, a := range e.Attr {
				set[at+"@"+a.Name.Local] = true
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
}

// Asked returns the body of what a simulated carrier asks or tells.
func Asked(t testing.TB, x providers.Exchange, ask providers.Ask) []byte {
	t.Helper()
	r, err := x.Ask(&ask, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// Known checks that all names in what we write are names of the fixtures, or among
// documented, which lists those that the carrier's documents have and no fixture shows.
func Known(t testing.TB, written []byte, fixtures, documented []string) {
	t.Helper()
	known := slices.Clone(documented)
	for _, name := range fixtures {
		data := Fixture(t, name)
		if strings.HasSuffix(name, ".http") {
			_, data = FixtureRequest(t, name)
		}
		known = append(known, WireNames(t, data)...)
	}
	for _, name := range WireNames(t, written) {
		if !slices.Contains(known, name) {
			t.Errorf("%s\nhas %s, which is in none of %v", written, name, fixtures)
		}
	}
}
