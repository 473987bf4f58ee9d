package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// at is an error about a value, with its key and line.
func at(n ast.Node, wrong string) error {
	return fmt.Errorf("%s: %q %s (line %d)", strings.TrimPrefix(n.GetPath(), "$."), n.GetToken().Value, wrong,
		n.GetToken().Position.Line)
}

// variable is ${NAME}, or ${file:PATH}.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*|file:[^}]+)\}`)

// Load reads a file: strictly, with ${NAME} replaced from the environment,
// and checked.
func Load(path string, env func(string) string) (*Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	cfg, err := Parse(b, env)
	if err != nil {
		return nil, fmt.Errorf("config: %s: %w", path, err)
	}
	return cfg, nil
}

// Parse is Load of what a file holds.
func Parse(b []byte, env func(string) string) (*Config, error) {
	cfg := Default()
	b = quoted(b)
	var some any // nothing but comments must not wipe the defaults
	if err := yaml.Unmarshal(b, &some); err != nil {
		return nil, errors.New(firstLine(err))
	}
	if some != nil {
		if err := errors.Join(checkKeys(b), checkBare(b)); err != nil {
			return nil, err
		}
		if err := yaml.UnmarshalWithOptions(b, cfg, yaml.Strict()); err != nil {
			return nil, errors.New(firstLine(err))
		}
	}
	x := expander{env: env}
	x.config(cfg)
	for _, a := range cfg.EveryAgent() {
		a.complete()
	}
	wrong := append(x.unread, located(b, cfg.check(), x.missing)...)
	if len(x.missing) > 0 {
		names := slices.Compact(slices.Sorted(slices.Values(x.missing)))
		err := fmt.Errorf("environment variables are not set, or empty: %s", strings.Join(names, ", "))
		wrong = append([]error{err}, wrong...)
	}
	return cfg, errors.Join(wrong...)
}

// numbers are the types of scalars whose text a number does not keep: 0101 and +15550100 as much
// as 1.10.
var numbers = []token.Type{token.IntegerType, token.FloatType, token.OctetIntegerType, token.HexIntegerType,
	token.BinaryIntegerType}

// tokens are those of a file.
func tokens(b []byte) token.Tokens { return lexer.Tokenize(string(b)) }

// quoted puts quotes around numbers that are not written as a program would: what takes a text
// then has all of it, and what takes a number still does.
func quoted(b []byte) []byte {
	lines := strings.Split(string(b), "\n")
	var odd []*token.Token
	for _, t := range tokens(b) {
		plain, err := strconv.ParseInt(t.Value, 10, 64)
		if slices.Contains(numbers, t.Type) && (err != nil || strconv.FormatInt(plain, 10) != t.Value) {
			odd = append(odd, t)
		}
	}
	for _, t := range slices.Backward(odd) { // so that columns to the left stay what they are
		if t.Position.Line > len(lines) { // the library counts other line breaks, too
			continue
		}
		line, at := []rune(lines[t.Position.Line-1]), t.Position.Column-1
		if end := at + len(t.Value); at >= 0 && end <= len(line) && string(line[at:end]) == t.Value {
			lines[t.Position.Line-1] = string(line[:at]) + strconv.Quote(t.Value) + string(line[end:])
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

// expander replaces variables: in values only, so that no secret can become syntax.
type expander struct {
	env     func(string) string
	missing []string
	unread  []error
}

// text replaces the variables of a value.
func (x *expander) text(s *string) { *s = variable.ReplaceAllStringFunc(*s, x.value) }

// value is what ${NAME} or ${file:PATH} stands for.
func (x *expander) value(reference string) string {
	name := reference[2 : len(reference)-1]
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			x.unread = append(x.unread, err)
		}
		return strings.TrimSpace(string(b))
	}
	v := x.env(name)
	if v != strings.TrimSpace(v) {
		x.unread = append(x.unread, fmt.Errorf("environment variable %s: has spaces, or a line break, around its value",
			name))
	}
	if v == "" {
		x.missing = append(x.missing, name)
		return reference // so that all else can be checked
	}
	return v
}

// config replaces the variables of all values that may hold some.
func (x *expander) config(cfg *Config) {
	for _, s := range []*string{&cfg.Listen, &cfg.Admin, &cfg.PublicURL, &cfg.TokenSecret, &cfg.Media.Token,
		&cfg.Router.URL, &cfg.Router.Secret, &cfg.Events.URL, &cfg.Events.Secret, &cfg.Instance, &cfg.InstanceURL,
		&cfg.Redis.Username, &cfg.Redis.Password, &cfg.Redis.SentinelPassword} {
		x.text(s)
	}
	for i := range cfg.Redis.Addresses {
		x.text(&cfg.Redis.Addresses[i])
	}
	for i := range cfg.API.Tokens {
		x.text(&cfg.API.Tokens[i].SHA256)
	}
	for _, a := range cfg.EveryAgent() {
		for _, s := range []*string{&a.URL, &a.Bearer, &a.Secret, &a.Announce.URL, &a.Announce.Secret} {
			x.text(s)
		}
		for k, v := range a.Headers {
			x.text(&v)
			a.Headers[k] = v
		}
		x.block(a.Options)
		for i := range a.Tools.Own {
			x.text(&a.Tools.Own[i].URL)
			x.text(&a.Tools.Own[i].Secret)
		}
	}
	for _, a := range cfg.Accounts {
		x.block(Block(a))
	}
}

func (x *expander) block(b Block) {
	for k, v := range b {
		if s, ok := v.(string); ok {
			x.text(&s)
			b[k] = s
		}
	}
}

// located takes joined errors apart and adds to each the line of the field that it
// begins with. Those about variables that are missing say nothing new.
func located(b []byte, err error, missing []string) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, located(b, e, missing)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	file, parseErr := parser.ParseBytes(b, 0)
	field, _, _ := strings.Cut(err.Error(), ": ")
	for parseErr == nil && field != "" {
		path, pathErr := yaml.PathString("$." + field)
		if pathErr == nil {
			if node, e := path.FilterFile(file); e == nil && node != nil {
				value := node.GetToken().Value
				if slices.ContainsFunc(missing,
					func(name string) bool { return strings.Contains(value, "${"+name+"}") }) {
					return nil
				}
				return []error{fmt.Errorf("%w (line %d)", err, node.GetToken().Position.Line)}
			}
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return []error{err}
}

// split parts the common keys from the carrier's own.
func (a Account) split() (keys accountKeys, own Block, err error) {
	own, common := maps.Clone(Block(a)), Block{}
	for _, k := range []string{"provider", "from", "numbers", "unsigned_media"} {
		if v, ok := own[k]; ok {
			common[k] = v
			delete(own, k)
		}
	}
	return keys, own, common.decode("such an account")(&keys)
}

// firstLine is all of the library's errors that may be shown: the rest quotes the
// file, secrets and all.
func firstLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// unknownKey is how the library complains of one.
var unknownKey = regexp.MustCompile(`unknown field "([^"]*)"`)

// decode returns what puts a block into a struct, strictly. whose is for errors.
func (b Block) decode(whose string) func(into any) error {
	return func(into any) error {
		text, err := yaml.Marshal(b)
		if err == nil {
			err = yaml.UnmarshalWithOptions(text, into, yaml.Strict())
		}
		if err == nil {
			return nil
		}
		first := firstLine(err)
		if m := unknownKey.FindStringSubmatch(first); m != nil {
			return fmt.Errorf("%s: is no key of %s%s", m[1], whose, meant(m[1], keysOf(reflect.TypeOf(into).Elem())))
		}
		return fmt.Errorf("block: %s", first[strings.Index(first, "]")+1:])
	}
}
