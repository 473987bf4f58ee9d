package main

import (
	"crypto/rand"
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
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"voicebridge/agent"
	"voicebridge/media"
	"voicebridge/providers/all"
	"voicebridge/session"
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
	Limits      limitsConfig             `yaml:"limits"`
	Log         logConfig                `yaml:"log"`
}

// accountConfig is a block whose keys, but for provider, are the carrier's own.
type accountConfig map[string]any

type mediaConfig struct {
	Token    string `yaml:"token"`
	Insecure bool   `yaml:"insecure"`
}

type agentConfig struct {
	URL        string            `yaml:"url"`
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
	Account string `yaml:"account"`
	To      string `yaml:"to"`
	Agent   string `yaml:"agent"`
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
		Limits: limitsConfig{
			Calls: whole(m.Calls), Handshakes: m.Handshakes, Header: whole(m.Header), Message: whole(m.Message),
			Handshake: duration(m.Handshake), Start: duration(s.Start), Idle: duration(m.Idle),
			Write: duration(m.Write), Drain: duration(m.Drain), MaxDuration: duration(s.MaxDuration),
			Lead: duration(s.Lead), CallerQueue: duration(s.CallerQueue),
		},
		Log: logConfig{Level: "info", Format: "text"},
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
	} {
		if *f.v == 0 {
			*f.v = duration(f.def)
		}
	}
}

// everyAgent lists the agents with the names of their blocks; "" is the default.
func (c *config) everyAgent() map[string]*agentConfig {
	m := map[string]*agentConfig{}
	if c.Agent.URL != "" {
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

// variable is ${NAME}.
var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

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
		return nil, err
	}
	if some != nil {
		if err := yaml.UnmarshalWithOptions(b, cfg, yaml.Strict()); err != nil {
			return nil, err
		}
	}
	// Variables are replaced in values only, so that no secret can become syntax.
	var missing []string
	expand := func(s *string) {
		*s = variable.ReplaceAllStringFunc(*s, func(m string) string {
			v := env(m[2 : len(m)-1])
			if v == "" {
				missing = append(missing, m[2:len(m)-1])
			}
			return v
		})
	}
	for _, s := range []*string{&cfg.Listen, &cfg.Admin, &cfg.PublicURL, &cfg.TokenSecret, &cfg.Media.Token} {
		expand(s)
	}
	for _, a := range cfg.everyAgent() {
		for _, s := range []*string{&a.URL, &a.Bearer, &a.Secret} {
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
	if len(missing) > 0 {
		return nil, fmt.Errorf("environment variables are not set, or empty: %s", strings.Join(missing, ", "))
	}
	return cfg, cfg.check()
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
	if c.Agent.URL == "" && (len(c.Accounts) == 0 || c.Media.Token != "" || c.Media.Insecure || len(c.Routes) == 0) {
		wrong("agent.url", "must be the agent's WebSocket URL, such as wss://agent.example.com/call")
	}
	if _, err := c.agents(); err != nil {
		errs = append(errs, err)
	}
	for i, r := range c.Routes {
		field := fmt.Sprintf("routes[%d].", i)
		if _, known := c.Accounts[r.Account]; r.Account != "" && !known {
			wrong(field+"account", "%q is not one of accounts", r.Account)
		}
		if _, known := c.Agents[r.Agent]; !known {
			wrong(field+"agent", "%q is not one of agents", r.Agent)
		}
		if strings.Contains(strings.TrimSuffix(r.To, "*"), "*") {
			wrong(field+"to", "%q: a '*' may stand at the end only", r.To)
		}
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
		provider, _ := block["provider"].(string)
		spec := all.Lookup(provider)
		switch {
		case !accountName.MatchString(name):
			errs = append(errs, fmt.Errorf("accounts: %q must be 1 to 64 letters, digits, '-' or '_': it is part of URLs", name))
			continue
		case spec == nil || spec.NewWebhooks == nil:
			errs = append(errs, fmt.Errorf("%s.provider: %q is no carrier with accounts", field, provider))
			continue
		}
		hooks, err := spec.NewWebhooks(block.decode)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", field, err))
			continue
		}
		accounts[name] = media.Account{Spec: spec, Webhooks: hooks}
	}
	return accounts, errors.Join(errs...)
}

// decode puts a block into the carrier's own struct, strictly.
func (a accountConfig) decode(into any) error {
	own := maps.Clone(a)
	delete(own, "provider")
	b, err := yaml.Marshal(own)
	if err == nil {
		err = yaml.UnmarshalWithOptions(b, into, yaml.Strict())
	}
	if err != nil {
		return fmt.Errorf("block: %s", strings.SplitN(err.Error(), "\n", 2)[0]) // the rest quotes the block, secrets and all
	}
	return nil
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
		d, err := agent.New(agent.Config{
			URL: a.URL, Bearer: a.Bearer, Secret: a.Secret, Header: header,
			InputRate: int(a.InputRate), OutputRate: int(a.OutputRate), Plaintext: a.Plaintext,
			Attempt: time.Duration(a.Attempt), Write: time.Duration(a.Write), Ping: time.Duration(a.Ping),
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", block(name), err))
			continue
		}
		agents[name] = media.Agent{Dialer: d, Session: c.session(a)}
	}
	return agents, errors.Join(errs...)
}

// route finds the first route for a call; without one the default agent answers,
// where there is one.
func (c *config) route(account, to string) (agent string, ok bool) {
	for _, r := range c.Routes {
		prefix, open := strings.CutSuffix(r.To, "*")
		if (r.Account == "" || r.Account == account) && (r.To == "" || r.To == to || open && strings.HasPrefix(to, prefix)) {
			return r.Agent, true
		}
	}
	return "", c.Agent.URL != ""
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
		AgentDial: agent.DialTime(time.Duration(a.Attempt)),
	}
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
