package voicebridge_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed lists what each folder may import of this module. A folder below
// providers is a carrier. Tests may import anything.
var allowed = map[string][]string{
	"codec":                  {},
	"codec/internal/speex":   {},
	"ws":                     {},
	"providers":              {"codec"},
	"providers/CARRIER":      {"codec", "providers"},
	"providers/all":          {"providers", "providers/CARRIER"},
	"providers/providertest": {"codec", "providers"},
	"session":                {"codec", "providers", "ws"},
	"notify":                 {},
	"calls":                  {"providers"},
	"cluster":                {},
	"transfer":               {},
	"agent":                  {"codec", "notify", "session", "ws"},
	"media":                  {"calls", "cluster", "codec", "notify", "providers", "session", "transfer", "ws"},
	"wav":                    {"codec"},
	"sim":                    {"agent", "codec", "providers", "wav", "ws"},
	"bench":                  {"agent", "codec", "providers", "sim", "ws"},
	"cmd/voicebridge":        {"agent", "bench", "calls", "cluster", "codec", "media", "notify", "providers", "providers/all", "session", "sim", "transfer", "wav"},
	"examples/go":            {},
}

// libraries are modules that belong to one place.
var libraries = map[string][]string{
	"github.com/gorilla/websocket":   {"bench", "ws", "examples/go"}, // bench has the plain relay
	"github.com/zaf/g711":            {"codec"},
	"github.com/HdrHistogram/":       {"bench"},
	"golang.org/x/sys":               {"bench", "ws"},
	"golang.org/x/net/proxy":         {"ws"},
	"github.com/prometheus/":         {"media"},
	"github.com/alecthomas/kong":     {"cmd/voicebridge"},
	"github.com/goccy/go-yaml":       {"cmd/voicebridge"},
	"github.com/golang-jwt/":         {"providers/CARRIER"},
	"github.com/twilio/":             {"providers/CARRIER"},
	"github.com/redis/":              {"cluster", "cmd/voicebridge", "transfer"},
	"github.com/cenkalti/backoff":    {"notify", "providers"},
	"github.com/getkin/":             {},
	"golang.org/x/net/http/httpguts": {"agent"},
	"golang.org/x/time":              {"agent", "media"},
	"pgregory.net/rapid":             {"providers/providertest"},
}

// carrier replaces the name of a carrier's folder.
func carrier(dir string) string {
	if rest, ok := strings.CutPrefix(dir, "providers/"); ok && rest != "all" && rest != "providertest" {
		return "providers/CARRIER"
	}
	return dir
}

// TestImports holds the directions of the imports.
func TestImports(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		dir := carrier(filepath.ToSlash(filepath.Dir(path)))
		may, known := allowed[dir]
		if !known {
			t.Errorf("%s: folder %s has no place in the order of imports", path, dir)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if own, ok := strings.CutPrefix(imported, "voicebridge/"); ok && !slices.Contains(may, carrier(own)) {
				t.Errorf("%s must not import %s", path, imported)
			}
			if dir == "codec" && strings.Contains(imported, ".") && imported != "github.com/zaf/g711" {
				t.Errorf("%s must not import %s: codec has G.711's tables from zaf/g711, and else std only", path, imported)
			}
			for lib, places := range libraries {
				if strings.HasPrefix(imported, lib) && !slices.Contains(places, dir) {
					t.Errorf("%s must not import %s: it belongs to %v", path, imported, places)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}
