package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"voicebridge/agent"
	"voicebridge/cluster"
	"voicebridge/media"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/transfer"
)

// config is the configuration file; docs/configuration.md is its reference, and
// a test holds the two together.
type config struct {
	Listen      string                   `yaml:"listen"`
	Admin       string                   `yaml:"admin"`
	PublicURL   string                   `yaml:"public_url"`
	TokenSecret string                   `yaml:"token_secret"`
	Accounts    map[string]accountConfig `yaml:"accounts"`
	Media       mediaConfig              `yaml:"media"`
	Agent       agentConfig              `yaml:"agent"`
	Agents      map[string]*agentConfig  `yaml:"agents"`
	Routes      []routeConfig            `yaml:"routes"`
	Router      targetConfig             `yaml:"router"`
	Events      targetConfig             `yaml:"events"`
	API         apiConfig                `yaml:"api"`
	Transfers   transfersConfig          `yaml:"transfers"`
	Instance    string                   `yaml:"instance"`
	InstanceURL string                   `yaml:"instance_url"`
	Redis       redisConfig              `yaml:"redis"`
	Limits      limitsConfig             `yaml:"limits"`
	Log         logConfig                `yaml:"log"`
}

// accountConfig is a block whose keys, but for those of accountKeys, are the
// carrier's own.
type accountConfig map[string]any

// accountKeys are the keys that accounts of every carrier have.
type accountKeys struct {
	Provider      string   `yaml:"provider"`
	From          string   `yaml:"from"`
	Numbers       []string `yaml:"numbers"`
	UnsignedMedia bool     `yaml:"unsigned_media"`
}

// targetConfig is where the user's application is asked or told.
type targetConfig struct {
	URL     string   `yaml:"url"`
	Secret  string   `yaml:"secret"`
	Timeout duration `yaml:"timeout"`
}

type apiConfig struct {
	Tokens []tokenConfig `yaml:"tokens"`
}

// tokenConfig is a token of the API, of which the file has the SHA-256 only.
type tokenConfig struct {
	Name   string `yaml:"name"`
	SHA256 string `yaml:"sha256"`
}

type fallbackConfig struct {
	Say  string `yaml:"say"`
	Dial string `yaml:"dial"`
}

type mediaConfig struct {
	Token    string `yaml:"token"`
	Insecure bool   `yaml:"insecure"`
	Loops    whole  `yaml:"event_loops"`
}

type agentConfig struct {
	URL        string            `yaml:"url"`
	Announce   targetConfig      `yaml:"announce"`
	Pool       bool              `yaml:"pool"`
	Wait       duration          `yaml:"wait"`
	Ready      duration          `yaml:"ready_timeout"`
	Greeting   duration          `yaml:"greeting_timeout"`
	Fallback   fallbackConfig    `yaml:"fallback"`
	Bearer     string            `yaml:"bearer"`
	Secret     string            `yaml:"secret"`
	Headers    map[string]string `yaml:"headers"`
	Plaintext  bool              `yaml:"plaintext"`
	InputRate  whole             `yaml:"input_rate"`
	OutputRate whole             `yaml:"output_rate"`
	Prebuffer  duration          `yaml:"prebuffer"`
	Queue      duration          `yaml:"queue"`
	Attempt    duration          `yaml:"dial_timeout"`
	Write      duration          `yaml:"write_timeout"`
	Ping       duration          `yaml:"ping_interval"`
}

// routeConfig sends the calls to some numbers of an account to an agent.
type routeConfig struct {
	Account  string            `yaml:"account"`
	From     string            `yaml:"from"`
	To       string            `yaml:"to"`
	Agent    string            `yaml:"agent"`
	Metadata map[string]string `yaml:"metadata"`
}

type limitsConfig struct {
	Calls       whole    `yaml:"calls"`
	Handshakes  float64  `yaml:"handshakes_per_second"`
	Header      whole    `yaml:"header_bytes"`
	Message     whole    `yaml:"message_bytes"`
	Handshake   duration `yaml:"handshake_timeout"`
	Start       duration `yaml:"start_timeout"`
	Idle        duration `yaml:"idle_timeout"`
	Write       duration `yaml:"write_timeout"`
	Drain       duration `yaml:"drain_timeout"`
	MaxDuration duration `yaml:"max_duration"`
	Lead        duration `yaml:"lead"`
	CallerQueue duration `yaml:"caller_queue"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// duration is written as in Go: 160ms, 10s, 4h.
type duration time.Duration

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (d *duration) UnmarshalYAML(n ast.Node) error {
	v, err := time.ParseDuration(n.GetToken().Value)
	if err != nil {
		return at(n, "is not a duration: write it with a unit, as in 160ms, 10s or 4h")
	}
	*d = duration(v)
	return nil
}

// whole is a whole number.
type whole int64

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (w *whole) UnmarshalYAML(n ast.Node) error {
	v, err := strconv.ParseInt(n.GetToken().Value, 10, 64)
	if err != nil {
		return at(n, "is not a whole number")
	}
	*w = whole(v)
	return nil
}

// at is an error about a value, with its key and line.
func at(n ast.Node, wrong string) error {
	return fmt.Errorf("%s: %q %s (line %d)", strings.TrimPrefix(n.GetPath(), "$."), n.GetToken().Value, wrong, n.GetToken().Position.Line)
}

func defaultConfig() *config {
	m, s := media.Defaults, session.Defaults
	return &config{
		Listen: "127.0.0.1:9001",
		Media:  mediaConfig{Loops: whole(runtime.GOMAXPROCS(0))},
		Limits: limitsConfig{
			Calls: whole(m.Calls), Handshakes: m.Handshakes, Header: whole(m.Header), Message: whole(m.Message),
			Handshake: duration(m.Handshake), Start: duration(s.Start), Idle: duration(m.Idle),
			Write: duration(m.Write), Drain: duration(m.Drain), MaxDuration: duration(s.MaxDuration),
			Lead: duration(s.Lead), CallerQueue: duration(s.CallerQueue),
		},
		Transfers: transfersConfig{Ring: duration(media.DefaultRingTime), CallerID: "own", Hold: media.HoldAgent, Keep: duration(transfer.Tombstone)},
		Redis:     redisConfig{Prefix: "{voicebridge}:", Lease: duration(cluster.DefaultLease)},
		Log:       logConfig{Level: "info", Format: "text"},
	}
}

// complete puts the defaults where nothing is set.
func (a *agentConfig) complete() {
	for _, f := range []struct {
		v   *duration
		def time.Duration
	}{
		{&a.Queue, session.Defaults.AgentQueue},
		{&a.Attempt, agent.DefaultAttempt},
		{&a.Write, agent.DefaultWrite},
		{&a.Ping, agent.DefaultPing},
		{&a.Wait, agent.DefaultWait},
		{&a.Announce.Timeout, defaultTarget},
	} {
		if *f.v == 0 {
			*f.v = duration(f.def)
		}
	}
	if a.Pool && a.Ready == 0 {
		a.Ready = duration(agent.DefaultReady)
	}
}

// defaultTarget is how long the user's application may take to answer.
const defaultTarget = 3 * time.Second

// set tells whether the block says how the agent is reached.
func (a *agentConfig) set() bool { return a.URL != "" || a.Announce.URL != "" || a.Pool }

// target is nil where none is configured.
func (t *targetConfig) target() *notify.Target {
	if t.URL == "" {
		return nil
	}
	if t.Timeout == 0 {
		t.Timeout = duration(defaultTarget)
	}
	return &notify.Target{URL: t.URL, Secret: t.Secret, Timeout: time.Duration(t.Timeout)}
}

// everyAgent lists the agents with the names of their blocks; "" is the default.
func (c *config) everyAgent() map[string]*agentConfig {
	m := map[string]*agentConfig{}
	if c.Agent.set() {
		m[""] = &c.Agent
	}
	for name, a := range c.Agents {
		if a == nil {
			a = &agentConfig{}
		}
		m[name] = a
	}
	return m
}

// block is the field of an agent.
func block(name string) string {
	if name == "" {
		return "agent"
	}
	return "agents." + name
}

// variable is ${NAME}, or ${file:PATH}.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*|file:[^}]+)\}`)

// loadConfig reads a file: strictly, with ${NAME} replaced from the environment,
// and checked.
func loadConfig(path string, env func(string) string) (*config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	cfg, err := parseConfig(b, env)
	if err != nil {
		return nil, fmt.Errorf("config: %s: %w", path, err)
	}
	return cfg, nil
}

func parseConfig(b []byte, env func(string) string) (*config, error) {
	cfg := defaultConfig()
	var some any // nothing but comments must not wipe the defaults
	if err := yaml.Unmarshal(b, &some); err != nil {
		return nil, errors.New(firstLine(err))
	}
	if some != nil {
		if err := yaml.UnmarshalWithOptions(b, cfg, yaml.Strict()); err != nil {
			return nil, errors.New(firstLine(err))
		}
	}
	// Variables are replaced in values only, so that no secret can become syntax.
	var missing []string
	var unread []error
	expand := func(s *string) {
		*s = variable.ReplaceAllStringFunc(*s, func(m string) string {
			name := m[2 : len(m)-1]
			if path, ok := strings.CutPrefix(name, "file:"); ok {
				b, err := os.ReadFile(path)
				if err != nil {
					unread = append(unread, err)
				}
				return strings.TrimSpace(string(b))
			}
			v := env(name)
			if v == "" {
				missing = append(missing, name)
				return m // so that all else can be checked
			}
			return v
		})
	}
	for _, s := range []*string{&cfg.Listen, &cfg.Admin, &cfg.PublicURL, &cfg.TokenSecret, &cfg.Media.Token,
		&cfg.Router.URL, &cfg.Router.Secret, &cfg.Events.URL, &cfg.Events.Secret, &cfg.Instance, &cfg.InstanceURL,
		&cfg.Redis.Username, &cfg.Redis.Password, &cfg.Redis.SentinelPassword} {
		expand(s)
	}
	for i := range cfg.Redis.Addresses {
		expand(&cfg.Redis.Addresses[i])
	}
	for i := range cfg.API.Tokens {
		expand(&cfg.API.Tokens[i].SHA256)
	}
	for _, a := range cfg.everyAgent() {
		for _, s := range []*string{&a.URL, &a.Bearer, &a.Secret, &a.Announce.URL, &a.Announce.Secret} {
			expand(s)
		}
		for k, v := range a.Headers {
			expand(&v)
			a.Headers[k] = v
		}
		a.complete()
	}
	for _, a := range cfg.Accounts {
		for k, v := range a {
			if s, ok := v.(string); ok {
				expand(&s)
				a[k] = s
			}
		}
	}
	wrong := append(unread, located(b, cfg.check(), missing)...)
	if len(missing) > 0 {
		wrong = append([]error{fmt.Errorf("environment variables are not set, or empty: %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(missing))), ", "))}, wrong...)
	}
	return cfg, errors.Join(wrong...)
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
				if slices.ContainsFunc(missing, func(name string) bool { return strings.Contains(value, "${"+name+"}") }) {
					return nil
				}
				return []error{fmt.Errorf("%w (line %d)", err, node.GetToken().Position.Line)}
			}
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return []error{err}
}

// minToken is the shortest media token: 16 characters are enough to make
// guessing hopeless at the rate at which handshakes are taken.
const minToken = 16

// check tells everything that is wrong, naming the field and the fix.
func (c *config) check() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	if !address(c.Listen) {
		wrong("listen", "%q must be an address such as 127.0.0.1:9001", c.Listen)
	}
	if c.Admin != "" && (!address(c.Admin) || c.Admin == c.Listen) {
		wrong("admin", "%q must be an address such as 127.0.0.1:9002, and not that of listen", c.Admin)
	}
	switch {
	case c.Media.Insecure && c.Media.Token != "":
		wrong("media.insecure", "must be false where media.token is set")
	case len(c.Accounts) > 0 && c.Media.Token == "":
	case !c.Media.Insecure && len(c.Media.Token) < minToken:
		wrong("media.token", "must have at least %d characters: make one with 'openssl rand -hex 16' and give it as ${MEDIA_TOKEN}; or list accounts, whose calls get tokens of their own", minToken)
	case strings.ContainsAny(c.Media.Token, "/?#% "):
		wrong("media.token", "must hold only letters, digits, '-', '_' and '.': it is part of a URL's path")
	}
	if c.TokenSecret != "" && len(c.TokenSecret) < minToken {
		wrong("token_secret", "must have at least %d characters: make one with 'openssl rand -hex 32'", minToken)
	}
	if len(c.Accounts) > 0 && !publicURL(c.PublicURL) {
		wrong("public_url", "must be the https:// URL at which carriers reach this bridge: signatures are checked with it")
	}
	if _, err := c.accounts(); err != nil {
		errs = append(errs, err)
	}
	if !c.Agent.set() && (len(c.Accounts) == 0 || c.Media.Token != "" || c.Media.Insecure || len(c.Routes) == 0 && c.Router.URL == "") {
		wrong("agent.url", "must be the agent's WebSocket URL, such as wss://agent.example.com/call; or set agent.announce, or routes to agents that wait in pools")
	}
	if _, err := c.agents(); err != nil {
		errs = append(errs, err)
	}
	for i, r := range c.Routes {
		field := fmt.Sprintf("routes[%d].", i)
		if _, known := c.Accounts[r.Account]; r.Account != "" && !known {
			wrong(field+"account", "%q is not one of accounts", r.Account)
		}
		if _, known := c.everyAgent()[r.Agent]; !known {
			wrong(field+"agent", "%q is not one of agents", r.Agent)
		}
		for name, pattern := range map[string]string{"to": r.To, "from": r.From} {
			switch number := strings.TrimSuffix(pattern, "*"); {
			case strings.Contains(number, "*"):
				wrong(field+name, "%q: a '*' may stand at the end only", pattern)
			case number != "" && strings.Trim(number, "0123456789 ()-.") == "":
				wrong(field+name, "%q would never fit: numbers are written in E.164 and in quotes, such as \"+15550100\"", pattern)
			case strings.HasPrefix(number, "+") && strings.Trim(number[1:], "0123456789") != "":
				wrong(field+name, "%q would never fit: numbers are a plus and digits, such as \"+15550100\"", pattern)
			}
		}
		if err := providers.CheckParams(r.Metadata); err != nil {
			wrong(field+"metadata", "%v", err)
		}
	}
	c.checkTargets(wrong)
	c.checkTransfers(wrong)
	if _, err := c.tokens(); err != nil {
		errs = append(errs, err)
	}
	type limit struct {
		name     string
		v        duration
		min, max time.Duration
	}
	var limits []limit
	for name, a := range c.everyAgent() {
		limits = append(limits,
			limit{block(name) + ".prebuffer", a.Prebuffer, 0, time.Second},
			limit{block(name) + ".queue", a.Queue, time.Second, time.Hour},
			limit{block(name) + ".dial_timeout", a.Attempt, 100 * time.Millisecond, time.Minute},
			limit{block(name) + ".wait", a.Wait, 100 * time.Millisecond, 5 * time.Minute},
			limit{block(name) + ".ready_timeout", a.Ready, 0, time.Minute},
			limit{block(name) + ".greeting_timeout", a.Greeting, 0, 5 * time.Minute},
			limit{block(name) + ".write_timeout", a.Write, 100 * time.Millisecond, time.Minute},
			limit{block(name) + ".ping_interval", a.Ping, time.Second, time.Hour})
	}
	for _, f := range append(limits, []limit{
		{"limits.handshake_timeout", c.Limits.Handshake, 100 * time.Millisecond, time.Minute},
		{"limits.start_timeout", c.Limits.Start, 100 * time.Millisecond, time.Minute},
		{"limits.idle_timeout", c.Limits.Idle, time.Second, 24 * time.Hour},
		{"limits.write_timeout", c.Limits.Write, 100 * time.Millisecond, time.Minute},
		{"limits.drain_timeout", c.Limits.Drain, 0, 24 * time.Hour},
		{"limits.max_duration", c.Limits.MaxDuration, time.Second, 24 * time.Hour},
		{"limits.lead", c.Limits.Lead, 40 * time.Millisecond, 2 * time.Second},
		{"limits.caller_queue", c.Limits.CallerQueue, 20 * time.Millisecond, time.Minute},
	}...) {
		if v := time.Duration(f.v); v < f.min || v > f.max {
			wrong(f.name, "%v must be between %v and %v", v, f.min, f.max)
		}
	}
	if c.Media.Loops < 0 || c.Media.Loops > 1024 {
		wrong("media.event_loops", "%d must be between 0 and 1024", c.Media.Loops)
	}
	if c.Limits.Calls < 1 {
		wrong("limits.calls", "%d must be at least 1", c.Limits.Calls)
	}
	if h := c.Limits.Handshakes; !(h > 0 && h <= 1e6) { // not a number is neither
		wrong("limits.handshakes_per_second", "%v must be more than 0 and at most a million", h)
	}
	if c.Limits.Header < 4096 || c.Limits.Header > 1<<20 {
		wrong("limits.header_bytes", "%d must be between 4096 and 1048576", c.Limits.Header)
	}
	if c.Limits.Message < 4096 || c.Limits.Message > 16<<20 {
		wrong("limits.message_bytes", "%d must be between 4096 and 16777216", c.Limits.Message)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		wrong("log.level", "%q must be debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("log.format", "%q must be text or json", c.Log.Format)
	}
	return errors.Join(errs...)
}

// address tells whether s is host:port with a number for a port.
func address(s string) bool {
	_, port, err := net.SplitHostPort(s)
	n, err2 := strconv.ParseUint(port, 10, 16)
	return err == nil && err2 == nil && n <= 65535
}

// publicURL tells whether s is an https URL, or an http one of this machine,
// without query.
func publicURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// accountName is what may stand in a URL's path.
var accountName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// accounts makes the accounts; its error names the fields.
func (c *config) accounts() (map[string]media.Account, error) {
	var errs []error
	accounts := map[string]media.Account{}
	for name, block := range c.Accounts {
		field := "accounts." + name
		keys, own, err := block.split()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", field, err))
			continue
		}
		spec := all.Lookup(keys.Provider)
		switch {
		case !accountName.MatchString(name):
			errs = append(errs, fmt.Errorf("accounts: %q must be 1 to 64 letters, digits, '-' or '_': it is part of URLs", name))
			continue
		case spec == nil || spec.NewAccount == nil:
			errs = append(errs, fmt.Errorf("%s.provider: %q is no carrier with accounts", field, keys.Provider))
			continue
		}
		for _, n := range append([]string{keys.From}, keys.Numbers...) {
			if n != "" && !providers.ValidNumber(n) {
				errs = append(errs, fmt.Errorf("%s.from, numbers: %q must be a number in E.164, such as \"+15550100\" in quotes", field, n))
			}
		}
		account, err := spec.NewAccount(own.decode)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", field, err))
			continue
		}
		accounts[name] = media.Account{Spec: spec, Account: account, From: keys.From, Numbers: keys.Numbers, UnsignedMedia: keys.UnsignedMedia}
	}
	return accounts, errors.Join(errs...)
}

// split parts the common keys from the carrier's own.
func (a accountConfig) split() (keys accountKeys, own accountConfig, err error) {
	own, common := maps.Clone(a), accountConfig{}
	for _, k := range []string{"provider", "from", "numbers", "unsigned_media"} {
		if v, ok := own[k]; ok {
			common[k] = v
			delete(own, k)
		}
	}
	return keys, own, common.decode(&keys)
}

// firstLine is all of the library's errors that may be shown: the rest quotes the
// file, secrets and all.
func firstLine(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// unknownKey is how the library complains of one.
var unknownKey = regexp.MustCompile(`unknown field "([^"]*)"`)

// decode puts a block into a struct, strictly.
func (a accountConfig) decode(into any) error {
	b, err := yaml.Marshal(a)
	if err == nil {
		err = yaml.UnmarshalWithOptions(b, into, yaml.Strict())
	}
	if err == nil {
		return nil
	}
	first := firstLine(err)
	if m := unknownKey.FindStringSubmatch(first); m != nil {
		return fmt.Errorf("%s: is no key of such an account", m[1])
	}
	return fmt.Errorf("block: %s", first[strings.Index(first, "]")+1:])
}

// agents makes the agents; its error names the fields.
func (c *config) agents() (map[string]media.Agent, error) {
	var errs []error
	agents := map[string]media.Agent{}
	for name, a := range c.everyAgent() {
		header := http.Header{}
		for k, v := range a.Headers {
			header.Set(k, v)
		}
		d, err := c.dialer(name, a, header)
		if err == nil && a.Fallback.Dial != "" && !providers.ValidNumber(a.Fallback.Dial) {
			err = fmt.Errorf("fallback.dial: %q must be a number in E.164, such as \"+15550100\" in quotes", a.Fallback.Dial)
		}
		if err == nil && len(a.Fallback.Say) > media.MaxSay {
			err = fmt.Errorf("fallback.say: must have at most %d bytes", media.MaxSay)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", block(name), err))
			continue
		}
		agents[name] = media.Agent{Dialer: d, Session: c.session(a), Fallback: media.Fallback(a.Fallback)}
	}
	return agents, errors.Join(errs...)
}

// dialer makes an agent in one of the three ways to reach it.
func (c *config) dialer(name string, a *agentConfig, header http.Header) (session.Dialer, error) {
	in := agent.Incoming{
		InputRate: int(a.InputRate), OutputRate: int(a.OutputRate), Write: time.Duration(a.Write),
		Ping: time.Duration(a.Ping), Wait: time.Duration(a.Wait), Ready: time.Duration(a.Ready),
	}
	switch {
	case a.Pool && (a.URL != "" || a.Announce.URL != "") || a.URL != "" && a.Announce.URL != "":
		return nil, errors.New("url: only one of url, announce and pool can be set")
	case a.Pool && name == "":
		return nil, errors.New("pool: must be in a block of agents, whose name is the pool's")
	case a.Pool:
		return agent.NewPool(name, in, a.Bearer)
	case a.Announce.URL != "":
		if !publicURL(c.PublicURL) {
			return nil, errors.New("announce: needs public_url, to which agents connect")
		}
		return agent.NewAttended(in, *a.Announce.target(), c.PublicURL)
	}
	return agent.New(agent.Config{
		URL: a.URL, Bearer: a.Bearer, Secret: a.Secret, Header: header,
		InputRate: int(a.InputRate), OutputRate: int(a.OutputRate), Plaintext: a.Plaintext,
		Attempt: time.Duration(a.Attempt), Write: time.Duration(a.Write), Ping: time.Duration(a.Ping), Ready: time.Duration(a.Ready),
	})
}

// checkTargets checks where the user's application is.
func (c *config) checkTargets(wrong func(field, format string, args ...any)) {
	for field, t := range map[string]*targetConfig{"router": &c.Router, "events": &c.Events} {
		target := t.target()
		if target == nil {
			continue
		}
		if err := target.Check(); err != nil {
			wrong(field+"."+strings.SplitN(err.Error(), ":", 2)[0], "%s", strings.TrimSpace(strings.SplitN(err.Error(), ":", 2)[1]))
		}
		if target.Timeout < 100*time.Millisecond || target.Timeout > 10*time.Second {
			wrong(field+".timeout", "%v must be between 100ms and 10s", target.Timeout)
		}
	}
}

// tokens are those of the API.
func (c *config) tokens() ([]media.APIToken, error) {
	var tokens []media.APIToken
	for i, t := range c.API.Tokens {
		b, err := hex.DecodeString(t.SHA256)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("api.tokens[%d].sha256: must be the 64 hex digits that 'voicebridge token' prints, in quotes", i)
		}
		if t.Name == "" {
			return nil, fmt.Errorf("api.tokens[%d].name: must be set: it says whose token it is", i)
		}
		tokens = append(tokens, media.APIToken{Name: t.Name, SHA256: [sha256.Size]byte(b)})
	}
	return tokens, nil
}

// route finds the first route for a call; without one the default agent answers,
// where there is one.
func (c *config) route(account, from, to string) (media.Route, bool) {
	for _, r := range c.Routes {
		if (r.Account == "" || r.Account == account) && fits(r.To, to) && fits(r.From, from) {
			return media.Route{Agent: r.Agent, Metadata: r.Metadata}, true
		}
	}
	return media.Route{}, c.Agent.set()
}

// fits tells whether a number is the one of a route, or begins as it does before
// a *. Every number fits an empty one.
func fits(pattern, number string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == "" || pattern == number || open && strings.HasPrefix(number, prefix)
}

// secret makes media tokens: the configured one, so that several instances take
// each other's, or one of this process.
func (c *config) secret() string {
	if c.TokenSecret != "" {
		return c.TokenSecret
	}
	return rand.Text()
}

func (c *config) session(a *agentConfig) session.Config {
	return session.Config{
		Lead: time.Duration(c.Limits.Lead), Prebuffer: time.Duration(a.Prebuffer),
		AgentQueue: time.Duration(a.Queue), CallerQueue: time.Duration(c.Limits.CallerQueue),
		Start: time.Duration(c.Limits.Start), MaxDuration: time.Duration(c.Limits.MaxDuration),
		AgentDial: c.agentTime(a), Greeting: time.Duration(a.Greeting),
	}
}

// agentTime is how long it may take to reach an agent.
func (c *config) agentTime(a *agentConfig) time.Duration {
	if a.URL == "" {
		return time.Duration(a.Wait) + time.Second
	}
	return agent.DialTime(time.Duration(a.Attempt), time.Duration(a.Ready))
}

func (c *config) limits() media.Limits {
	return media.Limits{
		Calls: int(c.Limits.Calls), Handshakes: c.Limits.Handshakes, Header: int(c.Limits.Header), Message: int64(c.Limits.Message),
		Handshake: time.Duration(c.Limits.Handshake), Idle: time.Duration(c.Limits.Idle),
		Write: time.Duration(c.Limits.Write), Drain: time.Duration(c.Limits.Drain),
	}
}

func (c *config) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked
	return newLogger(w, level, c.Log.Format == "json")
}
