package voicebridge_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// allowed lists what each room may import of this module. A room below providers is a
// carrier, one below agent a dialect. Tests may import anything. docs/architecture.md
// has the picture.
var allowed = map[string][]string{
	"codec":                 {},
	"codec/internal/speex":  {},
	"wav":                   {"codec"},
	"ws":                    {"ws/dial", "ws/frame", "ws/meter"},
	"ws/dial":               {},
	"ws/frame":              {},
	"ws/meter":              {},
	"notify":                {},
	"cluster":               {},
	"transfer":              {},
	"transfer/redisstore":   {"cluster", "transfer"},
	"transfer/transfertest": {"transfer"},

	"providers":                      {"codec"},
	"providers/internal/byteorder":   {},
	"providers/internal/mediajson":   {"providers"},
	"providers/internal/rest":        {"providers"},
	"providers/internal/xmldoc":      {},
	"providers/internal/twiliomedia": {"codec", "providers", "providers/internal/mediajson", "providers/internal/rest"},
	"providers/internal/telnyxmedia": {"codec", "providers", "providers/internal/byteorder",
		"providers/internal/mediajson", "providers/internal/rest"},
	"providers/internal/rtpmedia":    {"codec"},
	"providers/internal/audiosocket": {"codec", "providers/internal/rtpmedia"},
	"providers/internal/asteriskmedia": {"codec", "providers", "providers/internal/audiosocket",
		"providers/internal/byteorder", "providers/internal/rtpmedia"},
	"providers/internal/plivomedia": {"codec", "providers", "providers/internal/mediajson", "providers/internal/rest"},
	"providers/internal/plivolike": {"codec", "providers", "providers/internal/plivomedia", "providers/internal/rest",
		"providers/internal/xmldoc"},
	"providers/internal/plivolike/plivoliketest": {"codec", "providers", "providers/internal/plivolike",
		"providers/internal/plivomedia", "providers/providertest"},
	"providers/CARRIER": {"codec", "providers", "providers/CARRIER", "providers/internal/asteriskmedia",
		"providers/internal/audiosocket", "providers/internal/mediajson", "providers/internal/plivolike",
		"providers/internal/plivomedia",
		"providers/internal/rest", "providers/internal/telnyxmedia", "providers/internal/twiliomedia",
		"providers/internal/xmldoc", "ws"},
	"providers/all":          {"providers", "providers/CARRIER"},
	"providers/providertest": {"codec", "providers"},

	"session":         {"agent", "calls", "codec", "providers", "session/audio", "session/verdict"},
	"session/audio":   {"agent", "calls", "codec", "providers", "session/timing"},
	"session/timing":  {},
	"session/verdict": {"calls"},
	"calls":           {"providers"},
	"ticket":          {"providers"},
	"agent":           {"agent/tools", "calls", "codec", "providers"},
	"agent/tools":     {"calls", "notify"},
	"agent/flatjson":  {},
	"agent/model":     {"agent", "agent/tools", "calls", "codec", "notify", "providers"},
	"agent/link":      {"agent", "calls", "codec", "notify", "providers", "ws"},
	"agent/DIALECT": {"agent", "agent/DIALECT", "agent/flatjson", "agent/model", "agent/tools", "calls", "codec", "providers",
		"providers/CARRIER"},
	"agent/all": {"agent", "agent/DIALECT", "agent/link"},

	"control": {"agent", "calls", "cluster", "codec", "control/background", "control/directory",
		"control/handover", "control/registry", "control/router", "control/sweep", "control/totals",
		"control/urls", "notify",
		"providers",
		"session",
		"session/audio",
		"ticket"},
	"control/background": {},
	"control/handover":   {"agent", "calls", "control/directory", "session"},
	"control/directory":  {"agent", "notify", "providers", "session"},
	"control/urls":       {"providers", "ticket"},
	"control/router":     {"notify", "providers"},
	"control/sweep":      {"calls", "control/directory", "providers"},
	"control/registry":   {"session"},
	"control/totals":     {"calls", "control/registry", "providers", "session", "session/audio"},
	"control/transfers": {"agent", "calls", "control", "control/urls", "providers", "session", "ticket", "transfer",
		"wav"},
	"hooks/gate":      {"providers"},
	"hooks/operators": {"agent", "calls", "cluster", "control", "hooks/gate"},
	"journal":         {"calls", "providers"},
	"hooks":           {"control", "control/urls", "hooks/gate", "providers", "wav"},
	"media":           {"calls", "control", "hooks/gate", "providers", "session", "ws"},
	"api": {"agent", "calls", "cluster", "control", "control/transfers", "hooks/gate", "journal", "providers",
		"session",
		"transfer"},
	"bridge": {"api", "calls", "cluster", "control", "control/directory", "control/transfers", "hooks", "hooks/gate",
		"hooks/operators", "journal", "media",
		"notify", "providers", "wav", "ws"},
	"config": {"agent", "agent/all", "agent/link", "agent/tools", "api", "bridge", "calls", "certificate", "cluster", "codec", "control",
		"control/directory", "control/transfers", "logs", "media", "notify", "providers", "providers/all", "session",
		"transfer", "transfer/redisstore", "wav"},

	"api/client":   {"calls"},
	"progress":     {},
	"logs":         {"codec"},
	"certificate":  {},
	"sim":          {"agent/DIALECT", "agent/link", "codec", "providers", "sim/ear", "sim/stream", "wav", "ws"},
	"sim/ear":      {"codec", "wav"},
	"sim/memnet":   {},
	"sim/models":   {"codec", "sim/ear", "ws"},
	"sim/outage":   {},
	"sim/promises": {},
	"sim/stream":   {"codec", "providers", "sim/ear", "ws"},
	"demo": {"agent", "agent/all", "agent/link", "agent/tools", "api", "api/client", "bridge", "calls", "codec", "config",
		"control", "control/transfers", "logs", "notify", "progress", "providers", "providers/all", "session", "sim",
		"sim/ear", "sim/models", "sim/stream",
		"transfer", "wav"},
	"bench": {"agent/DIALECT", "bench/markers", "bench/process", "codec", "providers", "sim", "sim/ear", "ws",
		"ws/frame"},
	"bench/markers":   {"codec"},
	"bench/process":   {},
	"bench/report":    {"bench"},
	"bench/yardstick": {},
	"bench/runner": {"api/client", "bench", "bench/report", "calls", "config", "progress", "providers",
		"providers/all", "sim", "sim/ear", "transfer"},
	"cmd/voicebridge": {"agent", "agent/all", "api/client", "bench/runner", "bench/yardstick", "bridge", "calls", "certificate", "config", "control", "demo", "logs",
		"providers", "providers/all", "sim", "sim/models"},
	"examples/go": {},
}

// libraries are modules that belong to some rooms.
var libraries = map[string][]string{
	"github.com/gorilla/websocket": {"bench/yardstick", "ws", "examples/go"}, // the plain relay
	"github.com/zaf/g711":          {"codec"},
	"github.com/HdrHistogram/":     {"bench"},
	"golang.org/x/sys":             {"bench/process", "bench/yardstick", "ws"},
	"golang.org/x/net/proxy":       {"ws/dial"},
	"github.com/prometheus/": {"api", "bridge", "control", "control/totals", "control/transfers", "hooks", "media",
		"session/audio"},
	"github.com/alecthomas/kong":     {"cmd/voicebridge"},
	"github.com/goccy/go-yaml":       {"bench/runner", "cmd/voicebridge", "config", "demo", "sim"},
	"github.com/golang-jwt/":         {"providers/CARRIER"},
	"github.com/twilio/":             {"providers/CARRIER"},
	"github.com/redis/":              {"cluster", "config", "journal", "transfer/redisstore"},
	"github.com/cenkalti/backoff":    {"notify", "providers"},
	"github.com/coreos/go-systemd":   {"cmd/voicebridge"},
	"github.com/getkin/":             {},
	"golang.org/x/net/http/httpguts": {"agent/link", "agent/model"},
	"golang.org/x/time":              {"bridge", "agent/DIALECT", "hooks/gate", "media", "providers"},
	"pgregory.net/rapid":             {"providers/providertest"},
}

// mostLines is the most code, without comments and empty lines, that one room holds,
// about: one that grows past it has two jobs.
const mostLines = 1500

// roomOf is the folder of a file, with the names of carriers and dialects replaced.
func roomOf(path string) string {
	dir := filepath.ToSlash(filepath.Dir(path))
	if _, own := allowed[dir]; own {
		return dir
	}
	for parent, kind := range map[string]string{"providers/": "CARRIER", "agent/": "DIALECT"} {
		rest, below := strings.CutPrefix(dir, parent)
		if below && !strings.HasPrefix(rest, "internal/") {
			return parent + kind
		}
	}
	return dir
}

// sources calls f with each file of Go that is no test.
func sources(t *testing.T, f func(path string, text []byte)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		f(path, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

// TestImports holds the directions of the imports.
func TestImports(t *testing.T) {
	sources(t, func(path string, text []byte) {
		room := roomOf(path)
		may, known := allowed[room]
		if !known {
			t.Errorf("%s: folder %s has no place in the order of imports", path, room)
		}
		for _, imported := range importsOf(t, path, text) {
			if own, ok := strings.CutPrefix(imported, "voicebridge/"); ok &&
				!slices.Contains(may, roomOf(own+"/x.go")) {
				t.Errorf("%s must not import %s", path, imported)
			}
			if room == "codec" && strings.Contains(imported, ".") && imported != "github.com/zaf/g711" {
				t.Errorf("%s must not import %s: codec has G.711's tables from zaf/g711, and else std only", path,
					imported)
			}
			for lib, places := range libraries {
				if strings.HasPrefix(imported, lib) && !slices.Contains(places, room) {
					t.Errorf("%s must not import %s: it belongs to %v", path, imported, places)
				}
			}
		}
	})
}

func importsOf(t *testing.T, path string, text []byte) (all []string) {
	f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, imported)
	}
	return all
}

// TestCarriersByName: outside of its own folder, what it shares with others, the list of all, and
// dialects that play a carrier, no code knows a carrier by name.
func TestCarriersByName(t *testing.T) {
	names := regexp.MustCompile(`(?i)twilio|vonage|telnyx|plivo|vobiz|cloudonix`)
	sources(t, func(path string, text []byte) {
		if room := roomOf(path); room == "providers/CARRIER" || room == "providers/all" ||
			room == "agent/DIALECT" || room == "agent/all" || strings.HasPrefix(room, "providers/internal/") {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool { // comments may give examples
			switch n := n.(type) {
			case *ast.BasicLit:
				if names.MatchString(n.Value) {
					t.Errorf("%s: %s", fset.Position(n.Pos()), n.Value)
				}
			case *ast.Ident:
				if names.MatchString(n.Name) {
					t.Errorf("%s: %s", fset.Position(n.Pos()), n.Name)
				}
			}
			return true
		})
	})
}

// TestRooms: no room has two jobs.
func TestRooms(t *testing.T) {
	lines := map[string]int{}
	sources(t, func(path string, text []byte) {
		for line := range bytes.Lines(text) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, []byte("//")) {
				lines[filepath.ToSlash(filepath.Dir(path))]++
			}
		}
	})
	for room, n := range lines {
		if n > mostLines {
			t.Errorf("%s has %d lines of code, more than %d", room, n, mostLines)
		}
	}
}

// mostColumns is the longest line, with tabs of four columns.
const mostColumns = 120

// TestLines: lines can be read beside another file. A raw string, such as a tag or a
// message of a carrier, cannot be broken.
func TestLines(t *testing.T) {
	sources(t, func(path string, text []byte) {
		n := 0
		for line := range bytes.Lines(text) {
			n++
			wide := utf8.RuneCount(bytes.ReplaceAll(line, []byte("\t"), []byte("    "))) - 1
			if wide > mostColumns && !bytes.Contains(line, []byte("`")) {
				t.Errorf("%s:%d has %d columns, more than %d", path, n, wide, mostColumns)
			}
		}
	})
}
