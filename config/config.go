// Package config is the configuration file: it is read strictly, checked with errors
// that name the field and the fix, and made into what it describes.
package config

import (
	"cmp"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/bridge"
	"voicebridge/certificate"
	"voicebridge/cluster"
	"voicebridge/control/transfers"
	"voicebridge/logs"
	"voicebridge/session"
	"voicebridge/transfer"
)

// Config is the configuration file; docs/configuration.md is its reference, and
// a test holds the two together.
type Config struct {
	Listen      string             `yaml:"listen"`
	Admin       string             `yaml:"admin"`
	TLS         certificate.Files  `yaml:"tls"`
	PublicURL   string             `yaml:"public_url"`
	TokenSecret string             `yaml:"token_secret"`
	Accounts    map[string]Account `yaml:"accounts"`
	Media       Media              `yaml:"media"`
	Agent       Agent              `yaml:"agent"`
	Agents      map[string]*Agent  `yaml:"agents"`
	Routes      []Route            `yaml:"routes"`
	Words       Words              `yaml:"words"`
	Router      Target             `yaml:"router"`
	Events      Target             `yaml:"events"`
	API         API                `yaml:"api"`
	Transfers   Transfers          `yaml:"transfers"`
	Instance    string             `yaml:"instance"`
	InstanceURL string             `yaml:"instance_url"`
	Redis       Redis              `yaml:"redis"`
	Limits      Limits             `yaml:"limits"`
	Log         Log                `yaml:"log"`
}

// Account is a block whose keys, but for those of accountKeys, are the carrier's own.
type Account Block

// Block holds keys that are known elsewhere.
type Block map[string]any

// accountKeys are the keys that accounts of every carrier have.
type accountKeys struct {
	Provider      string   `yaml:"provider"`
	From          string   `yaml:"from"`
	Numbers       []string `yaml:"numbers"`
	UnsignedMedia bool     `yaml:"unsigned_media"`
}

// Target is where the user's application is asked or told.
type Target struct {
	URL     string   `yaml:"url"`
	Secret  string   `yaml:"secret"`
	Timeout Duration `yaml:"timeout"`
}

type API struct {
	Tokens []Token `yaml:"tokens"`
}

// Token is a token of the API, of which the file has the SHA-256 only.
type Token struct {
	Name     string   `yaml:"name"`
	SHA256   string   `yaml:"sha256"`
	Accounts []string `yaml:"accounts"`
	May      []string `yaml:"may"`
}

type Fallback struct {
	Agent    string `yaml:"agent"`
	Say      string `yaml:"say"`
	Dial     string `yaml:"dial"`
	Language string `yaml:"language"`
	Voice    string `yaml:"voice"`
}

// Words are what the bridge itself says, and how.
type Words struct {
	Language     string `yaml:"language"`
	Voice        string `yaml:"voice"`
	Busy         string `yaml:"busy"`
	NotInService string `yaml:"not_in_service"`
	NoAnswer     string `yaml:"no_answer"`
	NotConnected string `yaml:"not_connected"`
	Accept       string `yaml:"accept"`
}

type Media struct {
	Token    string `yaml:"token"`
	Insecure bool   `yaml:"insecure"`
	Loops    Whole  `yaml:"event_loops"`
}

type Agent struct {
	URL        string            `yaml:"url"`
	Protocol   string            `yaml:"protocol"`
	Options    Block             `yaml:"options"`
	Tools      Tools             `yaml:"tools"`
	Announce   Target            `yaml:"announce"`
	Pool       bool              `yaml:"pool"`
	Wait       Duration          `yaml:"wait"`
	Ready      Duration          `yaml:"ready_timeout"`
	Greeting   Duration          `yaml:"greeting_timeout"`
	Reconnect  Reconnect         `yaml:"reconnect"`
	Fallback   Fallback          `yaml:"fallback"`
	Bearer     string            `yaml:"bearer"`
	Secret     string            `yaml:"secret"`
	Headers    map[string]string `yaml:"headers"`
	Plaintext  bool              `yaml:"plaintext"`
	InputRate  Whole             `yaml:"input_rate"`
	OutputRate Whole             `yaml:"output_rate"`
	Prebuffer  Duration          `yaml:"prebuffer"`
	Queue      Duration          `yaml:"queue"`
	Attempt    Duration          `yaml:"dial_timeout"`
	Write      Duration          `yaml:"write_timeout"`
	Ping       Duration          `yaml:"ping_interval"`
}

// Reconnect is what is done about an agent whose connection breaks amid a call.
type Reconnect struct {
	Times *Whole   `yaml:"times"` // nil: as the dialect has it
	Pause Duration `yaml:"pause"`
	Music string   `yaml:"music"`
}

// Tools are what a model may do.
type Tools struct {
	Off          []string `yaml:"off"`
	Destinations []string `yaml:"destinations"`
	Own          []Tool   `yaml:"own"`
}

// Tool is one of the user's own.
type Tool struct {
	Name        string         `yaml:"name"`
	Description string         `yaml:"description"`
	Parameters  map[string]any `yaml:"parameters"`
	URL         string         `yaml:"url"`
	Secret      string         `yaml:"secret"`
	Timeout     Duration       `yaml:"timeout"`
}

// Route sends the calls to some numbers of an account to an agent.
type Route struct {
	Account  string            `yaml:"account"`
	From     string            `yaml:"from"`
	To       string            `yaml:"to"`
	Agent    string            `yaml:"agent"`
	Metadata map[string]string `yaml:"metadata"`
}

type Limits struct {
	Calls       Whole    `yaml:"calls"`
	Handshakes  float64  `yaml:"handshakes_per_second"`
	Header      Whole    `yaml:"header_bytes"`
	Message     Whole    `yaml:"message_bytes"`
	Handshake   Duration `yaml:"handshake_timeout"`
	Start       Duration `yaml:"start_timeout"`
	Idle        Duration `yaml:"idle_timeout"`
	Write       Duration `yaml:"write_timeout"`
	Drain       Duration `yaml:"drain_timeout"`
	MaxDuration Duration `yaml:"max_duration"`
	Lead        Duration `yaml:"lead"`
	CallerQueue Duration `yaml:"caller_queue"`
}

type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Duration is written as in Go: 160ms, 10s, 4h.
type Duration time.Duration

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	v, err := time.ParseDuration(n.GetToken().Value)
	if err != nil {
		return at(n, "is not a duration: write it with a unit, as in 160ms, 10s or 4h")
	}
	*d = Duration(v)
	return nil
}

// Whole is a whole number.
type Whole int64

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (w *Whole) UnmarshalYAML(n ast.Node) error {
	v, err := strconv.ParseInt(n.GetToken().Value, 10, 64)
	if err != nil {
		return at(n, "is not a whole number")
	}
	*w = Whole(v)
	return nil
}

// Transfers says where calls may be moved to.
type Transfers struct {
	Destinations map[string]Destination `yaml:"destinations"`
	Allow        []string               `yaml:"allow"`
	Ring         Duration               `yaml:"timeout"`
	CallerID     string                 `yaml:"caller_id"`
	Hold         string                 `yaml:"hold"`
	Music        string                 `yaml:"music"`
	Keep         Duration               `yaml:"keep"`
	PerCall      Whole                  `yaml:"per_call"`
	PerNumber    Whole                  `yaml:"per_number"`
	PerAccount   Whole                  `yaml:"per_account"`
}

type Destination struct {
	To     string `yaml:"to"`
	Digits string `yaml:"digits"`
}

// Redis is the database that several instances share.
type Redis struct {
	Addresses        []string `yaml:"addresses"`
	Master           string   `yaml:"master"` // of Sentinel, whose addresses they are then
	Cluster          bool     `yaml:"cluster"`
	Username         string   `yaml:"username"`
	Password         string   `yaml:"password"`
	SentinelPassword string   `yaml:"sentinel_password"`
	DB               Whole    `yaml:"db"`
	TLS              bool     `yaml:"tls"`
	Prefix           string   `yaml:"prefix"`
	Lease            Duration `yaml:"lease"`
}

// Default returns the configuration of an empty file.
func Default() *Config {
	m, s, l := bridge.Defaults, session.Defaults, transfers.DefaultLimits
	return &Config{
		Listen: "127.0.0.1:9001",
		Media:  Media{Loops: Whole(runtime.GOMAXPROCS(0))},
		Limits: Limits{
			Calls: Whole(m.Calls), Handshakes: m.Handshakes, Header: Whole(m.Header), Message: Whole(m.Message),
			Handshake: Duration(m.Handshake), Start: Duration(s.Start), Idle: Duration(m.Idle),
			Write: Duration(m.Write), Drain: Duration(m.Drain), MaxDuration: Duration(s.MaxDuration),
			Lead: Duration(s.Lead), CallerQueue: Duration(s.CallerQueue),
		},
		Transfers: Transfers{Ring: Duration(transfers.DefaultRing), CallerID: "own", Hold: transfers.HoldAgent,
			Keep: Duration(transfer.Tombstone), PerCall: Whole(l.Call), PerNumber: Whole(l.Number),
			PerAccount: Whole(l.Account)},
		Redis: Redis{Prefix: "voicebridge:", Lease: Duration(cluster.DefaultLease)},
		Log:   Log{Level: "info", Format: "text"},
	}
}

// Development returns the configuration of a bridge that takes every media connection,
// for one agent. Addresses may be empty.
func Development(agentURL, listen, admin string) (*Config, error) {
	cfg := Default()
	cfg.Listen, cfg.Admin = cmp.Or(listen, cfg.Listen), admin
	cfg.Media.Insecure = true
	cfg.Agent.URL, cfg.Agent.Plaintext = agentURL, true
	cfg.Agent.complete()
	return cfg, cfg.check()
}

// complete puts the defaults where nothing is set.
func (a *Agent) complete() {
	queue := session.Defaults.AgentQueue
	if a.service() {
		queue = modelQueue
	}
	for _, f := range []struct {
		v   *Duration
		def time.Duration
	}{
		{&a.Queue, queue},
		{&a.Attempt, a.attempt()},
		{&a.Write, link.DefaultWrite},
		{&a.Ping, link.DefaultPing},
		{&a.Wait, link.DefaultWait},
		{&a.Reconnect.Pause, redialPause},
		{&a.Announce.Timeout, defaultTarget},
	} {
		if *f.v == 0 {
			*f.v = Duration(f.def)
		}
	}
	if d := a.dialect(); d != nil && a.Prebuffer == 0 {
		a.Prebuffer = Duration(d.Prebuffer)
	}
	if a.Pool && a.Ready == 0 {
		a.Ready = Duration(link.DefaultReady)
	}
}

// dialect is what the agent speaks; nil: there is none of that name.
func (a *Agent) dialect() *agent.Dialect {
	if a.Protocol == "" {
		return dialects.Dialects[0]
	}
	return dialects.Lookup(a.Protocol)
}

// attempt is how long the agent may take to accept a connection, if nothing is set.
func (a *Agent) attempt() time.Duration {
	if d := a.dialect(); d != nil {
		return link.AttemptOf(d)
	}
	return link.DefaultAttempt // whatever it is, it is refused
}

const (
	// modelQueue is how much of a model's audio waits: it says a long answer at once, and does not wait.
	modelQueue  = 5 * time.Minute
	redialPause = 500 * time.Millisecond
	// redials is how often a model is dialled again: it has the talk so far from the bridge. Other agents
	// must know what to do, and be told to.
	redials    = 3
	maxRedials = 20
)

// redials is how often the agent is dialled again.
func (a *Agent) redials() int {
	switch {
	case a.Reconnect.Times != nil:
		return int(*a.Reconnect.Times)
	case a.service():
		return redials
	}
	return 0
}

// defaultTarget is how long the user's application may take to answer.
const defaultTarget = 3 * time.Second

// set reports whether the block says how the agent is reached.
func (a *Agent) set() bool { return a.URL != "" || a.Announce.URL != "" || a.Pool || a.service() }

// service reports whether the agent is at a vendor's, where no URL is needed.
func (a *Agent) service() bool {
	d := a.dialect()
	return d != nil && d.Service
}

// Logger logs to w as configured.
func (c *Config) Logger(w io.Writer) *logs.Logger {
	return logs.New(w, c.level(), c.Log.Format == "json")
}

// level is that of what is logged.
func (c *Config) level() (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.Log.Level)) // checked
	return level
}

// SetLevel has the level of a running log follow the configuration.
func (c *Config) SetLevel(level *slog.LevelVar) { level.Set(c.level()) }

// EveryAgent lists the agents with the names of their blocks; "" is the default.
func (c *Config) EveryAgent() map[string]*Agent {
	m := map[string]*Agent{}
	if c.Agent.set() {
		m[""] = &c.Agent
	}
	for name, a := range c.Agents {
		if a == nil {
			a = &Agent{}
		}
		m[name] = a
	}
	return m
}

// AgentField is the field of an agent.
func AgentField(name string) string {
	if name == "" {
		return "agent"
	}
	return "agents." + name
}
