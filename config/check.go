package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"voicebridge/control"
	"voicebridge/control/transfers"
	"voicebridge/providers"
	"voicebridge/providers/all"
)

// minToken is the shortest media token: 16 characters are enough to make
// guessing hopeless at the rate at which handshakes are taken.
const minToken = 16

// complaint takes what is wrong with a field, and the fix.
type complaint func(field, format string, args ...any)

// check tells everything that is wrong, naming the field and the fix.
func (c *Config) check() error {
	var errs []error
	wrong := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	c.checkAddresses(wrong)
	_, accounts := c.MakeAccounts()
	_, agents := c.agents()
	_, tokens := c.tokens()
	if !c.Agent.set() && (len(c.Accounts) == 0 || c.Media.Token != "" || c.Media.Insecure || len(c.Routes) == 0 &&
		c.Router.URL == "") {
		wrong("agent.url", "must be the agent's WebSocket URL, such as wss://agent.example.com/call; or set "+
			"agent.announce, "+
			"or routes to agents that wait in pools")
	}
	c.checkRoutes(wrong)
	c.checkWords(wrong)
	c.checkTargets(wrong)
	c.checkTransfers(wrong)
	c.checkRedis(wrong)
	c.checkTimes(wrong)
	c.checkSizes(wrong)
	return errors.Join(append(errs, accounts, agents, tokens)...)
}

// checkAddresses checks where the bridge is, and what lets media connections in.
func (c *Config) checkAddresses(wrong complaint) {
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
		wrong("media.token", "must have at least %d characters: make one with 'openssl rand -hex 16' and give it as "+
			"${MEDIA_TOKEN}; "+
			"or list accounts, whose calls get tokens of their own", minToken)
	case strings.ContainsAny(c.Media.Token, "/?#% "):
		wrong("media.token", "must hold only letters, digits, '-', '_' and '.': it is part of a URL's path")
	}
	if c.TokenSecret != "" && len(c.TokenSecret) < minToken {
		wrong("token_secret", "must have at least %d characters: make one with 'openssl rand -hex 32'", minToken)
	}
	if len(c.Accounts) > 0 && !publicURL(c.PublicURL) {
		wrong("public_url", "must be the https:// URL at which carriers reach this bridge: signatures are checked "+
			"with it")
	}
	for _, own := range []string{"/hooks", "/media"} {
		if before, _, has := strings.Cut(c.PublicURL, own); has {
			wrong("public_url", "must be the URL of the bridge, not that of a webhook: %s", before)
		}
	}
	if c.InstanceURL != "" && !publicURL(c.InstanceURL) {
		wrong("instance_url", "must be the https:// URL at which carriers reach this very instance")
	}
}

// checkRoutes checks which agents answer which numbers.
func (c *Config) checkRoutes(wrong complaint) {
	for i, r := range c.Routes {
		field := fmt.Sprintf("routes[%d].", i)
		if _, known := c.Accounts[r.Account]; r.Account != "" && !known {
			wrong(field+"account", "%q is not one of accounts", r.Account)
		}
		if _, known := c.EveryAgent()[r.Agent]; !known {
			wrong(field+"agent", "%q is not one of agents", r.Agent)
		}
		checkPattern(field+"to", r.To, wrong)
		checkPattern(field+"from", r.From, wrong)
		if err := providers.CheckMetadata(r.Metadata); err != nil {
			wrong(field+"metadata", "%v", err)
		}
	}
}

// checkWords checks what is said.
func (c *Config) checkWords(wrong complaint) {
	w := reflect.ValueOf(c.Words)
	for i := range w.NumField() {
		if name := w.Type().Field(i).Tag.Get("yaml"); w.Field(i).Len() > control.MaxSay {
			wrong("words."+name, "must have at most %d bytes", control.MaxSay)
		}
	}
}

// checkPattern checks how numbers begin.
func checkPattern(field, pattern string, wrong complaint) {
	switch number := strings.TrimSuffix(pattern, "*"); {
	case strings.Contains(number, "*"):
		wrong(field, "%q: a '*' may stand at the end only", pattern)
	case number != "" && strings.Trim(number, "0123456789 ()-.") == "":
		wrong(field, "%q would never fit: numbers are written in E.164 and in quotes, such as \"+15550100\"", pattern)
	case strings.HasPrefix(number, "+") && strings.Trim(number[1:], "0123456789") != "":
		wrong(field, "%q would never fit: numbers are a plus and digits, such as \"+15550100\"", pattern)
	}
}

// span is a time with its bounds.
type span struct {
	name     string
	v        Duration
	min, max time.Duration
}

// checkTimes checks all times.
func (c *Config) checkTimes(wrong complaint) {
	spans := []span{
		{"limits.handshake_timeout", c.Limits.Handshake, 100 * time.Millisecond, time.Minute},
		{"limits.start_timeout", c.Limits.Start, 100 * time.Millisecond, time.Minute},
		{"limits.idle_timeout", c.Limits.Idle, time.Second, 24 * time.Hour},
		{"limits.write_timeout", c.Limits.Write, 100 * time.Millisecond, time.Minute},
		{"limits.drain_timeout", c.Limits.Drain, 0, 24 * time.Hour},
		{"limits.max_duration", c.Limits.MaxDuration, time.Second, 24 * time.Hour},
		{"limits.lead", c.Limits.Lead, 40 * time.Millisecond, 2 * time.Second},
		{"limits.caller_queue", c.Limits.CallerQueue, 20 * time.Millisecond, time.Minute},
		{"transfers.timeout", c.Transfers.Ring, control.MinRing, control.MaxRing},
		{"transfers.keep", c.Transfers.Keep, time.Second, 24 * time.Hour},
		{"redis.lease", c.Redis.Lease, time.Second, time.Minute},
	}
	for name, a := range c.EveryAgent() {
		field := AgentField(name)
		spans = append(spans,
			span{field + ".prebuffer", a.Prebuffer, 0, time.Second},
			span{field + ".queue", a.Queue, time.Second, time.Hour},
			span{field + ".dial_timeout", a.Attempt, 100 * time.Millisecond, time.Minute},
			span{field + ".wait", a.Wait, 100 * time.Millisecond, 5 * time.Minute},
			span{field + ".ready_timeout", a.Ready, 0, time.Minute},
			span{field + ".greeting_timeout", a.Greeting, 0, 5 * time.Minute},
			span{field + ".write_timeout", a.Write, 100 * time.Millisecond, time.Minute},
			span{field + ".ping_interval", a.Ping, time.Second, time.Hour})
	}
	for _, s := range spans {
		if v := time.Duration(s.v); v < s.min || v > s.max {
			wrong(s.name, "%v must be between %v and %v", v, s.min, s.max)
		}
	}
}

// checkSizes checks all other numbers, and words of which there are few.
func (c *Config) checkSizes(wrong complaint) {
	for _, n := range []struct {
		name     string
		v        Whole
		min, max int64
	}{
		{"media.event_loops", c.Media.Loops, 0, 1024},
		{"limits.calls", c.Limits.Calls, 1, 1e6},
		{"limits.header_bytes", c.Limits.Header, 4096, 1 << 20},
		{"limits.message_bytes", c.Limits.Message, 4096, 16 << 20},
		{"transfers.per_call", c.Transfers.PerCall, 0, 1e6},
		{"transfers.per_number", c.Transfers.PerNumber, 0, 1e6},
		{"transfers.per_account", c.Transfers.PerAccount, 0, 1e6},
	} {
		if v := int64(n.v); v < n.min || v > n.max {
			wrong(n.name, "%d must be between %d and %d", v, n.min, n.max)
		}
	}
	if h := c.Limits.Handshakes; !(h > 0 && h <= 1e6) { // not a number is neither
		wrong("limits.handshakes_per_second", "%v must be more than 0 and at most a million", h)
	}
	for _, w := range []struct {
		name, v string
		words   []string
	}{
		{"log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}},
		{"log.format", c.Log.Format, []string{"text", "json"}},
		{"transfers.caller_id", c.Transfers.CallerID, []string{"own", "caller"}},
		{"transfers.hold", c.Transfers.Hold, []string{transfers.HoldAgent, transfers.HoldMusic}},
	} {
		if !slices.Contains(w.words, w.v) {
			last := len(w.words) - 1
			wrong(w.name, "%q must be %s or %s", w.v, strings.Join(w.words[:last], ", "), w.words[last])
		}
	}
}

// address reports whether s is host:port with a number for a port.
func address(s string) bool {
	_, port, err := net.SplitHostPort(s)
	n, err2 := strconv.ParseUint(port, 10, 16)
	return err == nil && err2 == nil && n <= 65535
}

// publicURL reports whether s is an https URL, or an http one of this machine,
// without query.
func publicURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || !strings.HasPrefix(s, u.Scheme) || u.Host == "" || u.RawQuery != "" || u.Fragment != "" ||
		u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// answerTime is what an answer takes beside the router.
const answerTime = 500 * time.Millisecond

// patience is how long the least patient of the accounts' carriers waits for an answer; 0: nobody
// knows.
func (c *Config) patience() (least time.Duration, who string) {
	for _, block := range c.Accounts {
		keys, _, err := block.split()
		spec := all.Lookup(keys.Provider)
		if err != nil || spec == nil {
			continue
		}
		if wait := spec.Abilities.AnswerWait; wait > 0 && (least == 0 || wait < least) {
			least, who = wait, spec.Name
		}
	}
	return least, who
}

// checkTargets checks where the user's application is.
func (c *Config) checkTargets(wrong complaint) {
	for field, t := range map[string]*Target{"router": &c.Router, "events": &c.Events} {
		target := t.target()
		if target == nil {
			continue
		}
		if err := target.Check(); err != nil {
			key, words, _ := strings.Cut(err.Error(), ": ")
			wrong(field+"."+key, "%s", words)
		}
		if wait, who := c.patience(); field == "router" && wait > 0 && target.Timeout > wait-answerTime {
			wrong("router.timeout", "%v is too long for %s, which waits %v for an answer: at most %v", target.Timeout,
				who,
				wait, wait-answerTime)
		}
		if target.Timeout < 100*time.Millisecond || target.Timeout > 10*time.Second {
			wrong(field+".timeout", "%v must be between 100ms and 10s", target.Timeout)
		}
	}
}

// dialsStrings reports whether there is an account that dials what is no number.
func (c *Config) dialsStrings() bool {
	for _, block := range c.Accounts {
		keys, _, err := block.split()
		if spec := all.Lookup(keys.Provider); err == nil && spec != nil && spec.Abilities.DialStrings {
			return true
		}
	}
	return false
}

// checkTransfers checks where calls may be moved to.
func (c *Config) checkTransfers(wrong complaint) {
	t := &c.Transfers
	for name, d := range t.Destinations {
		if !providers.ValidNumber(d.To) && !(strings.Contains(d.To, "/") && c.dialsStrings()) {
			wrong("transfers.destinations."+name+".to", "%q must be a number in E.164, such as \"+15550100\" in quotes",
				d.To)
		}
		if !control.ValidDialDigits(d.Digits) {
			wrong("transfers.destinations."+name+".digits", "%q must be at most %d of 0-9 * # w", d.Digits,
				control.MaxDialDigits)
		}
	}
	for i, p := range t.Allow {
		number, open := strings.CutSuffix(p, "*")
		if !strings.HasPrefix(number, "+") || strings.Trim(number[1:], "0123456789") != "" || !open &&
			!providers.ValidNumber(number) {
			wrong(fmt.Sprintf("transfers.allow[%d]", i),
				"%q must be a number in E.164, or how numbers begin and a '*', such as \"+1555*\" in quotes", p)
		}
	}
	if t.Music != "" {
		if _, err := readMusic(t.Music); err != nil {
			wrong("transfers.music", "%v", err)
		}
	}
}

// checkRedis checks what is needed to be several instances.
func (c *Config) checkRedis(wrong complaint) {
	r := &c.Redis
	for i, a := range r.Addresses {
		if !address(a) {
			wrong(fmt.Sprintf("redis.addresses[%d]", i), "%q must be an address such as 127.0.0.1:6379", a)
		}
	}
	if strings.ContainsAny(r.Prefix, "{}") {
		wrong("redis.prefix", "%q must hold no braces: the keys of each call have a hash tag of their own, so that a "+
			"cluster spreads them", r.Prefix)
	}
	if r.Cluster && (r.Master != "" || r.DB != 0) {
		wrong("redis.cluster", "excludes redis.master and redis.db")
	}
	if len(r.Addresses) == 0 && (r.Master != "" || r.Cluster || r.Password != "") {
		wrong("redis.addresses", "must be set")
	}
	if len(r.Addresses) > 0 && c.TokenSecret == "" {
		wrong("token_secret", "must be set with redis: the instances share it; make one with 'openssl rand -hex 32'")
	}
}
