package config

// What the configuration describes.

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/agent/link"
	"voicebridge/agent/tools"
	"voicebridge/api"
	"voicebridge/bridge"
	"voicebridge/calls"
	"voicebridge/cluster"
	"voicebridge/control"
	"voicebridge/control/directory"
	"voicebridge/control/transfers"
	"voicebridge/media"
	"voicebridge/notify"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/transfer"
	"voicebridge/transfer/redisstore"
)

// carriers are the names of those that have accounts.
func carriers() (names []string) {
	for _, s := range all.Specs {
		names = append(names, s.Name)
	}
	return names
}

// accountName is what may stand in a URL's path.
var accountName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// MakeAccounts makes the accounts; its error names the fields.
func (c *Config) MakeAccounts() (map[string]control.Account, error) {
	var errs []error
	accounts := map[string]control.Account{}
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
			errs = append(errs, fmt.Errorf("accounts: %q must be 1 to 64 letters, digits, '-' or '_': it is part "+
				"of URLs", name))
			continue
		case spec == nil || spec.NewAccount == nil:
			errs = append(errs, fmt.Errorf("%s.provider: %q is no carrier with accounts%s: there are %s", field,
				keys.Provider, meant(keys.Provider, carriers()), strings.Join(carriers(), ", ")))
			continue
		}
		for _, n := range append([]string{keys.From}, keys.Numbers...) {
			if n != "" && !providers.ValidNumber(n) {
				errs = append(errs, fmt.Errorf("%s.from, numbers: %q must be a number in E.164, such as "+
					"\"+15550100\" in quotes", field, n))
			}
		}
		account, err := spec.NewAccount(providers.Setup{Decode: own.decode("such an account")})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", field, err))
			continue
		}
		accounts[name] = control.Account{Spec: spec, Account: account, From: keys.From, Numbers: keys.Numbers,
			UnsignedMedia: keys.UnsignedMedia}
	}
	return accounts, errors.Join(errs...)
}

// agents makes the agents; its error names the fields.
func (c *Config) agents() (map[string]control.Agent, error) {
	var errs []error
	agents := map[string]control.Agent{}
	for name, a := range c.EveryAgent() {
		header := http.Header{}
		for k, v := range a.Headers {
			header.Set(k, v)
		}
		d, err := c.dialer(name, a, header)
		fallback, bad := c.fallback(name, a)
		if err == nil {
			err = bad
		}
		if err == nil && (a.redials() < 0 || a.redials() > maxRedials) {
			err = fmt.Errorf("reconnect.times: must be 0 to %d", maxRedials)
		}
		if err == nil && a.redials() > 0 && a.URL == "" && !a.service() {
			err = errors.New("reconnect.times: only agents that the bridge dials can be dialled again")
		}
		set := c.session(a)
		if err == nil && a.Reconnect.Music != "" {
			music, bad := readMusic(a.Reconnect.Music)
			if bad != nil {
				err = fmt.Errorf("reconnect.music: %w", bad)
			} else {
				set.Reconnect.Music = music.In
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.%w", AgentField(name), err))
			continue
		}
		agents[name] = control.Agent{Dialer: d, Session: set, Fallback: fallback}
	}
	return agents, errors.Join(errs...)
}

// fallback is what callers get whose agent fails.
func (c *Config) fallback(name string, a *Agent) (control.Fallback, error) {
	f := &a.Fallback
	_, known := c.Agents[f.Agent]
	var err error
	switch {
	case f.Agent != "" && (!known || f.Agent == name):
		err = fmt.Errorf("fallback.agent: %q is not another one of agents", f.Agent)
	case f.Dial != "" && !providers.ValidNumber(f.Dial):
		err = fmt.Errorf("fallback.dial: %q must be a number in E.164, such as \"+15550100\" in quotes", f.Dial)
	case len(f.Say) > control.MaxSay:
		err = fmt.Errorf("fallback.say: must have at most %d bytes", control.MaxSay)
	}
	return control.Fallback{Agent: f.Agent, Say: f.Say, Dial: f.Dial, Language: f.Language, Voice: f.Voice}, err
}

// dialer makes an agent in one of the three ways to reach it.
func (c *Config) dialer(name string, a *Agent, header http.Header) (agent.Dialer, error) {
	set, err := c.tools(a)
	if err != nil {
		return nil, err
	}
	dialect, protocol, err := a.protocol(set)
	if err != nil {
		return nil, err
	}
	in := link.Incoming{
		Dialect: dialect, Protocol: protocol, Write: time.Duration(a.Write),
		Ping: time.Duration(a.Ping), Wait: time.Duration(a.Wait), Ready: time.Duration(a.Ready),
	}
	switch {
	case a.Pool && (a.URL != "" || a.Announce.URL != "") || a.URL != "" && a.Announce.URL != "":
		return nil, errors.New("url: only one of url, announce and pool can be set")
	case a.Pool && name == "":
		return nil, errors.New("pool: must be in a block of agents, whose name is the pool's")
	case a.Pool:
		return link.NewPool(name, in, a.Bearer)
	case a.Announce.URL != "":
		if !publicURL(c.PublicURL) {
			return nil, errors.New("announce: needs public_url, to which agents connect")
		}
		return link.NewAttended(in, *a.Announce.target(), cmp.Or(c.InstanceURL, c.PublicURL))
	}
	return link.New(link.Config{
		Dialect: dialect, Protocol: protocol, URL: a.URL, Bearer: a.Bearer, Secret: a.Secret, Header: header,
		Plaintext: a.Plaintext,
		Attempt:   time.Duration(a.Attempt), Write: time.Duration(a.Write), Ping: time.Duration(a.Ping),
		Ready: time.Duration(a.Ready),
	})
}

// tools are what a model may do.
func (c *Config) tools(a *Agent) (*tools.Set, error) {
	own := a.Tools
	if !a.service() {
		if len(own.Off)+len(own.Destinations)+len(own.Own) > 0 {
			return nil, errors.New("tools: are for models only: other agents have commands of their own")
		}
		return nil, nil
	}
	on := map[string]bool{tools.EndCall: true, tools.TransferCall: true, tools.SendDigits: true}
	for _, name := range own.Off {
		if !on[name] {
			return nil, fmt.Errorf("tools.off: %q is none that could be switched off", name)
		}
		on[name] = false
	}
	set := tools.Config{EndCall: on[tools.EndCall], SendDigits: on[tools.SendDigits]}
	names := own.Destinations
	if names == nil {
		names = slices.Sorted(maps.Keys(c.Transfers.Destinations))
	}
	for i, name := range names {
		to := "name:" + name
		_, known := c.Transfers.Destinations[name]
		if other, is := strings.CutPrefix(name, tools.Agent); is {
			_, known = c.Agents[other]
			to = name
		}
		if !known {
			return nil, fmt.Errorf("tools.destinations[%d]: %q is not one of transfers.destinations, nor agent: and "+
				"one of agents", i, name)
		}
		if on[tools.TransferCall] {
			if set.Destinations == nil {
				set.Destinations = map[string]calls.TransferRequest{}
			}
			set.Destinations[name] = calls.TransferRequest{To: to}
		}
	}
	for _, t := range own.Own {
		set.Own = append(set.Own, tools.Own{Name: t.Name, Description: t.Description, Parameters: t.Parameters,
			Webhook: notify.Target{URL: t.URL, Secret: t.Secret, Timeout: time.Duration(t.Timeout)}})
	}
	s, err := tools.New(set)
	if err != nil {
		return nil, fmt.Errorf("tools.%w", err)
	}
	return s, nil
}

// protocol makes how the agent is spoken to.
func (a *Agent) protocol(set *tools.Set) (*agent.Dialect, agent.Protocol, error) {
	dialect := a.dialect()
	if dialect == nil {
		return nil, nil, fmt.Errorf("protocol: %q is none: they are %s", a.Protocol,
			strings.Join(dialects.Names(), ", "))
	}
	protocol, err := dialect.New(agent.Options{InputRate: int(a.InputRate), OutputRate: int(a.OutputRate),
		Incoming: a.URL == "" && !dialect.Service, Tools: set, Decode: func(own any) error {
			if err := a.Options.decode("such an agent's options")(own); err != nil {
				return fmt.Errorf("options.%w", err)
			}
			return nil
		}})
	return dialect, protocol, err
}

// tokens are those of the API.
func (c *Config) tokens() ([]api.Token, error) {
	var tokens []api.Token
	for i, t := range c.API.Tokens {
		b, err := hex.DecodeString(t.SHA256)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("api.tokens[%d].sha256: must be the 64 hex digits that 'voicebridge token' "+
				"prints, in quotes", i)
		}
		if t.Name == "" {
			return nil, fmt.Errorf("api.tokens[%d].name: must be set: it says whose token it is", i)
		}
		if slices.ContainsFunc(tokens, func(o api.Token) bool { return o.Name == t.Name }) {
			return nil, fmt.Errorf("api.tokens[%d].name: %q is another token's: instances know them by their names", i,
				t.Name)
		}
		for _, name := range t.Accounts {
			if _, known := c.Accounts[name]; !known {
				return nil, fmt.Errorf("api.tokens[%d].accounts: %q is not one of accounts", i, name)
			}
		}
		for _, scope := range t.May {
			if !slices.Contains(api.Scopes, scope) {
				return nil, fmt.Errorf("api.tokens[%d].may: %q must be one of %v", i, scope, api.Scopes)
			}
		}
		tokens = append(tokens, api.Token{Name: t.Name, SHA256: [sha256.Size]byte(b), Accounts: t.Accounts, May: t.May})
	}
	return tokens, nil
}

// route finds the first route for a call; without one the default agent answers,
// where there is one.
func (c *Config) route(account, from, to string) (control.Route, bool) {
	for _, r := range c.Routes {
		if (r.Account == "" || r.Account == account) && fits(r.To, to) && fits(r.From, from) {
			return control.Route{Agent: r.Agent, Metadata: r.Metadata}, true
		}
	}
	return control.Route{}, c.Agent.set()
}

// fits reports whether a number is the one of a route, or begins as it does before
// a *. Every number fits an empty one.
func fits(pattern, number string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == "" || pattern == number || open && strings.HasPrefix(number, prefix)
}

// secret makes media tokens: the configured one, so that several instances take
// each other's, or one of this process.
func (c *Config) secret() string {
	if c.TokenSecret != "" {
		return c.TokenSecret
	}
	return rand.Text()
}

func (c *Config) session(a *Agent) session.Config {
	return session.Config{
		Lead: time.Duration(c.Limits.Lead), Prebuffer: time.Duration(a.Prebuffer),
		AgentQueue: time.Duration(a.Queue), CallerQueue: time.Duration(c.Limits.CallerQueue),
		Start: time.Duration(c.Limits.Start), MaxDuration: time.Duration(c.Limits.MaxDuration),
		AgentDial: c.agentTime(a), Greeting: time.Duration(a.Greeting),
		Reconnect: session.Reconnect{Times: a.redials(), Pause: time.Duration(a.Reconnect.Pause)},
	}
}

// agentTime is how long it may take to reach an agent.
func (c *Config) agentTime(a *Agent) time.Duration {
	if a.URL == "" && !a.service() {
		return time.Duration(a.Wait) + time.Second
	}
	return link.DialTime(time.Duration(a.Attempt), link.ReadyOf(a.dialect(), time.Duration(a.Ready)))
}

func (c *Config) limits() bridge.Limits {
	return bridge.Limits{
		Calls: int(c.Limits.Calls), Header: int(c.Limits.Header), Handshake: time.Duration(c.Limits.Handshake),
		Drain: time.Duration(c.Limits.Drain),
		Limits: media.Limits{Handshakes: c.Limits.Handshakes, Message: int64(c.Limits.Message),
			Idle: time.Duration(c.Limits.Idle), Write: time.Duration(c.Limits.Write)},
	}
}

// database connects to the one that instances share; nil: this one is alone.
func (c *Config) database() redis.UniversalClient {
	r := &c.Redis
	if len(r.Addresses) == 0 {
		return nil
	}
	opt := &redis.UniversalOptions{
		Addrs: r.Addresses, MasterName: r.Master, IsClusterMode: r.Cluster, DB: int(r.DB),
		Username: r.Username, Password: r.Password, SentinelPassword: r.SentinelPassword,
		DialTimeout: time.Second, ReadTimeout: time.Second, WriteTimeout: time.Second, MaxRetries: 1,
		ContextTimeoutEnabled: true,
	}
	if r.TLS {
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(opt)
}

// transfers are nil where no account can move calls.
func (c *Config) transfers(db redis.UniversalClient, members *cluster.Members) (*transfers.Config, error) {
	if len(c.Accounts) == 0 {
		return nil, nil
	}
	t := &transfers.Config{
		Manager: transfer.Defaults, Allow: c.Transfers.Allow, Ring: time.Duration(c.Transfers.Ring),
		ShowCaller: c.Transfers.CallerID == "caller",
		Hold:       c.Transfers.Hold, Destinations: map[string]transfers.Destination{},
	}
	keep := time.Duration(c.Transfers.Keep)
	t.Manager.Keep = keep
	t.Limits = transfers.Limits{Call: int(c.Transfers.PerCall), Number: int(c.Transfers.PerNumber),
		Account: int(c.Transfers.PerAccount)}
	for name, d := range c.Transfers.Destinations {
		t.Destinations[name] = transfers.Destination(d)
	}
	if db == nil {
		t.Store, t.Manager.Instance = transfer.NewMemory(time.Now, keep), "alone"
	} else {
		t.Store, t.Manager.Instance = redisstore.New(db, c.Redis.Prefix, keep, members), members.Self()
		t.Manager.Lease = members.Lease()
	}
	if c.Transfers.Music != "" {
		var err error
		if t.Music, err = readMusic(c.Transfers.Music); err != nil {
			return nil, fmt.Errorf("transfers.music: %w", err)
		}
	}
	return t, nil
}

// target is nil where none is configured.
func (t *Target) target() *notify.Target {
	if t.URL == "" {
		return nil
	}
	if t.Timeout == 0 {
		t.Timeout = Duration(defaultTarget)
	}
	return &notify.Target{URL: t.URL, Secret: t.Secret, Timeout: time.Duration(t.Timeout)}
}

// Bridge makes what the configuration describes, and logs what it is. close ends its
// connections.
func (c *Config) Bridge(log *slog.Logger) (cfg bridge.Config, close func() error, err error) {
	close = func() error { return nil }
	cfg = bridge.Config{
		Providers: all.Specs, Words: directory.Words(c.Words), Route: c.route, Router: c.Router.target(),
		Events:   c.Events.target(),
		Insecure: c.Media.Insecure, Token: c.Media.Token, PublicURL: c.PublicURL, InstanceURL: c.InstanceURL,
		Secret: c.secret(),
		Loops:  int(c.Media.Loops), Limits: c.limits(), Log: log,
	}
	var errs [3]error
	cfg.Accounts, errs[0] = c.MakeAccounts()
	cfg.Agents, errs[1] = c.agents()
	cfg.Tokens, errs[2] = c.tokens()
	if err := errors.Join(errs[:]...); err != nil {
		return cfg, close, err
	}
	instance := c.Instance
	if instance == "" {
		instance = strings.ToLower(rand.Text()[:8])
	}
	redis.SetLogger(redisLog{log})
	db := c.database()
	var members *cluster.Members
	if db != nil {
		close = db.Close
		members = cluster.NewMembers(db, c.Redis.Prefix, instance, time.Duration(c.Redis.Lease), log)
		cfg.Cluster = cluster.New(members, c.Redis.Prefix)
		ping(db, c.Redis.Addresses, log)
		log.Info("one of several instances", "instance", members.Self(), "redis", c.Redis.Addresses)
	}
	cfg.Transfers, err = c.transfers(db, members)
	return cfg, close, err
}

// pingTime is how long the start waits for Redis.
const pingTime = 2 * time.Second

// ping says where there is no Redis that answers. The bridge starts nevertheless: calls go on
// without.
func ping(db redis.UniversalClient, addresses []string, log *slog.Logger) {
	ctx, stop := context.WithTimeout(context.Background(), pingTime)
	defer stop()
	if err := db.Ping(ctx).Err(); err != nil {
		log.Error("Redis does not answer: calls go on, but transfers, and requests about calls of other "+
			"instances, wait", "addresses", addresses, "err", err)
	}
}

// redisLog takes what the Redis client complains of.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug("redis", "says", fmt.Sprintf(format, args...))
}
