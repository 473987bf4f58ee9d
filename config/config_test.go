package config

import (
	"cmp"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/calls"
	"voicebridge/providers"
	"voicebridge/providers/all"
	"voicebridge/session"
	"voicebridge/wav"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestExampleConfig(t *testing.T) {
	cfg, err := Load("../examples/voicebridge.yaml", env(map[string]string{
		"TWILIO_AUTH_TOKEN": "tok: }", "AGENT_BEARER": "b: [", "AGENT_SECRET": "s",
		"API_TOKEN_SHA256": strings.Repeat("0", 64),
	}))
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := cfg.MakeAccounts()
	if err != nil || accounts["main"].Spec.Name != "twilio" || cfg.Accounts["main"]["auth_token"] != "tok: }" {
		t.Errorf("%+v, %v", accounts, err)
	}
	if cfg.Agent.Bearer != "b: [" || cfg.Limits.Calls != 200 ||
		time.Duration(cfg.Limits.MaxDuration) != time.Hour || time.Duration(cfg.Limits.Lead) != session.Defaults.Lead ||
		cfg.Agent.Headers["X-Tenant"] != "acme" {
		t.Errorf("%+v", cfg)
	}
}

// TestConfigErrors: each says which field is wrong.
func TestConfigErrors(t *testing.T) {
	const good = "agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {insecure: true}\n"
	if _, err := Parse([]byte(good), env(nil)); err != nil {
		t.Fatal(err)
	}
	// Nothing at all leaves the defaults as they are.
	if _, err := Parse([]byte("# nothing\n"), env(nil)); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("an empty file: %v, want just media.token and agent.url", err)
	}
	for yaml, want := range map[string]string{
		"":                             "agent.url",
		good + "lisen: x":              "lisen",
		good + "limits: {x: 1}":        "x",
		good + "limits: {calls: 0}":    "limits.calls",
		good + "limits: {calls: many}": `limits.calls: "many" is not a whole number (line 3)`,
		good + "limits: {lead: 160}":   `limits.lead: "160" is not a duration`,
		good + "limits: {calls: 1.5}":  "limits.calls",
		good + "limits: {handshakes_per_second: .nan}": "limits.handshakes_per_second",
		good + "listen: 9001":                          "listen",
		good + "listen: 127.0.0.1:99999":               "listen",
		good + "admin: 127.0.0.1:9001":                 "admin",
		good + "log: {level: INFO+3}":                  "log.level",
		"agent: {url: 'ws://127.0.0.1:1/', headers: {'a b': c}}\nmedia: {insecure: true}\n": "agent.headers",
		"agent: {url: 'ws://127.0.0.1:1/', bearer: '${EMPTY}'}\nmedia: {insecure: true}\n":  "EMPTY",
		good + "limits: {lead: 10s}":                                             "limits.lead",
		good + "limits: {header_bytes: 1}":                                       "limits.header_bytes",
		good + "limits: {message_bytes: 1}":                                      "limits.message_bytes",
		good + "limits: {handshakes_per_second: 0}":                              "limits.handshakes_per_second",
		good + "log: {level: loud}":                                              "log.level",
		good + "log: {format: xml}":                                              "log.format",
		good + "listen: ''":                                                      "listen",
		good + "agent: {url: 'ws://127.0.0.1:1/'}":                               "agent",
		good + "  token: 0123456789abcdef":                                       "",
		"agent: {url: 'ws://127.0.0.1:1/'}":                                      "media.token",
		"agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {token: short}":               "media.token",
		"agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {token: '0123456789abc/ef'}":  "media.token",
		"agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {insecure: true, token: abc}": "media.insecure",
		"agent: {url: 'ws://example.com/'}\nmedia: {insecure: true}":             "agent.url",
		"agent: {url: 'ws://[::1]/', input_rate: 7}\nmedia: {insecure: true}":    "agent.input_rate",
		"agent: {url: 'ws://[::1]/', queue: 1ms}\nmedia: {insecure: true}":       "agent.queue",
		"agent: {url: '${URL}', bearer: '${B}'}\nmedia: {insecure: true}":        "B, URL",
	} {
		_, err := Parse([]byte(yaml), env(map[string]string{"EMPTY": ""}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v\nwant something about %q", yaml, err, want)
		}
	}
	const account = good + "public_url: https://h\naccounts: {main: {provider: twilio, account_sid: " +
		"AC00000000000000000000000000000001, auth_token: " +
		"hush}}\n"
	if _, err := Parse([]byte(account), env(nil)); err != nil {
		t.Error(err)
	}
	for old, tt := range map[string][2]string{
		"public_url: https://h": {"public_url: http://h", "public_url"},
		"https://h":             {"https://h?q", "public_url"},
		"provider: twilio":      {"provider: nobody", "accounts.main.provider"},
		"main:":                 {"'a/b':", "accounts"},
		"account_sid: AC00000000000000000000000000000001": {"account_sid: 7", "accounts.main."},
		"auth_token: hush":       {"auth_token: ''", "accounts.main.auth_token"},
		", auth_token: hush":     {", auth_tokens: hush", "auth_tokens"},
		"{provider: twilio, acc": {"{provider: vonage, acc", "accounts.main."},
		"media: {insecure: true": {"token_secret: short\nmedia: {insecure: true", "token_secret"},
	} {
		_, err := Parse([]byte(strings.Replace(account, old, tt[0], 1)), env(nil))
		if err == nil || !strings.Contains(err.Error(), tt[1]) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want something about %s", tt[0], err, tt[1])
		}
	}
	const routed = account + "agents: {sales: {url: 'wss://sales.example/', prebuffer: 80ms}}\nroutes: [{account: " +
		"main, to: '+1555*', agent: sales}]\n"
	cfg, err := Parse([]byte(routed), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	agents, err := cfg.agents()
	if err != nil || agents["sales"].Session.Prebuffer != 80*time.Millisecond ||
		agents["sales"].Session.AgentQueue != session.Defaults.AgentQueue || agents[""].Dialer == nil {
		t.Errorf("%+v, %v", agents, err)
	}
	for old, tt := range map[string][2]string{
		"wss://sales":          {"https://sales", "agents.sales.url"},
		"prebuffer: 80ms":      {"prebuffer: 80h", "agents.sales.prebuffer"},
		"agent: sales":         {"agent: support", "routes[0].agent"},
		"{account: main, to":   {"{account: other, to", "routes[0].account"},
		"+1555*":               {"+1*555", "routes[0].to"},
		"routes: [{account: m": {"routes: [{acount: m", "acount"},
	} {
		if _, err := Parse([]byte(strings.Replace(routed, old, tt[0], 1)), env(nil)); err == nil ||
			!strings.Contains(err.Error(), tt[1]) {
			t.Errorf("%s: %v, want something about %s", tt[0], err, tt[1])
		}
	}
	const pooled = account + "agents: {desk: {pool: true, bearer: 0123456789abcdef}, app: {announce: {url: " +
		"'https://app.example/'}}}\n" +
		"router: {url: 'https://app.example/', secret: 0123456789abcdef}\nevents: {url: 'http://127.0.0.1:1/'}\n" +
		"api: {tokens: [{name: ops, sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]}\n"
	cfg, err = Parse([]byte(pooled), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	if agents, err = cfg.agents(); err != nil || agents["desk"].Session.AgentDial != 11*time.Second ||
		cfg.Agents["desk"].Ready != Duration(2*time.Second) {
		t.Errorf("%+v, %v", agents, err)
	}
	if tokens, err := cfg.tokens(); err != nil || len(tokens) != 1 || cfg.Router.target().Timeout != 3*time.Second {
		t.Errorf("%+v, %v", tokens, err)
	}
	for old, tt := range map[string][2]string{
		"bearer: 0123456789abcdef}":        {"bearer: short}", "agents.desk.bearer"},
		"pool: true":                       {"pool: true, url: 'wss://x/'", "agents.desk.url"},
		"{announce: {url: 'https://app":    {"{announce: {url: 'http://app", "agents.app.announce.url"},
		"router: {url: 'https":             {"router: {url: 'ftp", "router.url"},
		"secret: 0123456789abcdef}":        {"secret: short}", "router.secret"},
		"events: {":                        {"events: {timeout: 1m, ", "events.timeout"},
		"sha256: '00":                      {"sha256: '", "api.tokens[0].sha256"},
		"name: ops, ":                      {"", "api.tokens[0].name"},
		"api: {tokens: [":                  {"api: {tokens: [{name: ops, sha256: '" + strings.Repeat("1", 64) + "'}, ", "api.tokens[1].name"},
		"agent: {url: 'ws://127.0.0.1:1/'": {"agent: {pool: true", "agent.pool"},
		"ws://127.0.0.1:1/'}":              {"ws://127.0.0.1:1/', fallback: {dial: '555'}}", "agent.fallback.dial"},
		"'ws://127.0.0.1:1/'}":             {"'ws://127.0.0.1:1/', greeting_timeout: 1h}", "agent.greeting_timeout"},
		"public_url: https://h": {"public_url: https://h\nroutes: [{from: '*1', agent: desk}]",
			"routes[0].from"},
		"public_url: https": {"routes: [{agent: desk, metadata: {k: " + strings.Repeat("x", 800) +
			"}}]\npublic_url: https", "routes[0].metadata"},
		"auth_token: hush":   {"auth_token: hush, from: 555", "accounts.main.from"},
		", auth_token: hush": {", auth_token: hush, numbers: 7", "accounts.main."},
		"account_sid: AC00000000000000000000000000000001": {"account_sid: AC00000000000000000000000000000001, " +
			"base_url: 'http://x.example'", "accounts.main.base_url"},
	} {
		_, err := Parse([]byte(strings.Replace(pooled, old, tt[0], 1)), env(nil))
		if err == nil || !strings.Contains(err.Error(), tt[1]) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want something about %s", tt[0], err, tt[1])
		}
	}
	// A secret may stand in a file of its own.
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err = Parse([]byte(strings.Replace(account, "hush", "'${file:"+secret+"}'", 1)), env(nil))
	if err != nil || cfg.Accounts["main"]["auth_token"] != "hush" {
		t.Errorf("%v, %v", cfg, err)
	}
	if _, err := Parse([]byte(strings.Replace(account, "hush", "'${file:/nowhere}'", 1)), env(nil)); err == nil ||
		!strings.Contains(err.Error(), "/nowhere") {
		t.Error(err)
	}
	// Everything that is wrong is told at once.
	_, err = Parse([]byte("limits: {calls: 0}\nlog: {level: loud}"), env(nil))
	for _, field := range []string{"limits.calls", "log.level", "media.token", "agent.url"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

// TestConfigLines: each error says where, inside accounts, too; a variable that is
// missing hides nothing else.
func TestConfigLines(t *testing.T) {
	file := `public_url: https://bridge.example.com
accounts:
  main:
    provider: twilio
    account_sid: AC00000000000000000000000000000001
    auth_tokn: hush
  other: {provider: vonage, api_key: k, application_id: a, signature_secret: "${NOPE}", rate: 1}
agent:
  url: http://a
  fallback: {say: "` + strings.Repeat("x", 1001) + `"}
routes:
  - {to: 15550100}
  - {from: "+1 555*"}
`
	_, err := Parse([]byte(file), env(nil))
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"empty: NOPE",
		"accounts.main.auth_tokn: is no key of such an account; did you mean auth_token? (line 6)",
		"(line 9)",
		`routes[0].to: "15550100" would never fit`, "(line 12)", `routes[1].from: "+1 555*" would never fit`,
		"(line 13)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "signature_secret") {
		t.Errorf("%v", err)
	}
}

// TestRoute: the first that fits counts.
func TestRoute(t *testing.T) {
	c := &Config{Routes: []Route{
		{Account: "main", To: "+15550100", Agent: "one"},
		{Account: "main", To: "+1555*", Agent: "area"},
		{To: "+49*", Agent: "germany"},
		{Account: "berlin", Agent: "berlin"},
		{From: "+1666*", Agent: "vip"},
	}}
	if got, ok := c.route("other", "+16660000", "+1"); !ok || got.Agent != "vip" {
		t.Errorf("by the caller: %+v, %v", got, ok)
	}
	for _, tt := range []struct{ account, to, want string }{
		{"main", "+15550100", "one"}, {"main", "+15550101", "area"}, {"other", "+15550100", "-"},
		{"main", "+4930", "germany"},
		{"berlin", "+4930", "germany"}, {"berlin", "+1", "berlin"}, {"main", "", "-"},
	} {
		if got, ok := c.route(tt.account, "", tt.to); got.Agent != tt.want && (ok || tt.want != "-") {
			t.Errorf("%+v: %q, %v", tt, got, ok)
		}
	}
	c.Agent.URL = "wss://x"
	if got, ok := c.route("other", "", "+1"); got.Agent != "" || !ok {
		t.Errorf("without a route: %q, %v, want the default agent", got, ok)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("agent: {url: 'ws://127.0.0.1:1/', headers: {a: '${B}'}}\nmedia: {insecure: true}\nlimits: {lead: " +
		"1s}\n"))
	f.Add([]byte("log: {level: info}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cfg, err := Parse(b, env(map[string]string{"B": "b"})); (cfg == nil) && err == nil {
			t.Fatal("neither a configuration nor an error")
		}
	})
}

// keys lists the keys of a configuration struct.
func keys(v reflect.Type, prefix string) (all []string) {
	for i := range v.NumField() {
		f := v.Field(i)
		if !f.IsExported() { // of a simulated carrier
			continue
		}
		name := prefix + f.Tag.Get("yaml")
		if f.Tag.Get("yaml") == ",inline" {
			all = append(all, keys(f.Type, prefix)...)
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			all = append(all, keys(f.Type, name+".")...)
		} else {
			all = append(all, name)
		}
	}
	return all
}

// TestConfigReference: docs/configuration.md lists exactly the keys that there
// are, and the causes.
func TestConfigReference(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, cell := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllSubmatch(doc, -1) {
		for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllSubmatch(cell[1], -1) {
			listed[string(m[1])] = true
		}
	}
	want := append(keys(reflect.TypeFor[Config](), ""), keys(reflect.TypeFor[accountKeys](), "")...)
	for _, spec := range all.Specs { // each refuses an empty block, but shows what it knows
		_, _ = spec.NewAccount(providers.Setup{Decode: func(c any) error {
			want = append(want, keys(reflect.TypeOf(c).Elem(), "")...)
			return nil
		}})
	}
	for _, dialect := range dialects.Dialects {
		_, _ = dialect.New(agent.Options{Decode: func(c any) error {
			want = append(want, keys(reflect.TypeOf(c).Elem(), "")...)
			return nil
		}})
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, c := range calls.Causes {
		want = append(want, string(c))
	}
	for _, k := range want {
		if !listed[k] {
			t.Errorf("docs/configuration.md does not list %s", k)
		}
		delete(listed, k)
	}
	for k := range listed {
		t.Errorf("docs/configuration.md lists %s, which there is not", k)
	}
}

// TestText: what takes a text has all of it, however much it looks like a number.
func TestText(t *testing.T) {
	cfg, err := Parse([]byte(`agent: {url: 'ws://127.0.0.1:1/', headers: {X-Tenant: 0042, X-B: 1_000}}
media: {insecure: true}
public_url: https://b.example
limits: {calls: 16, max_duration: 1h}
accounts:
  v: {provider: vonage, api_key: 01234567, api_secret: 0x1F, application_id: 1.10,
    signature_secret: 0000000000000000000000000000000000000001, from: +15550100}
routes:
  - to: +15550100
    metadata: {zip: 01234, version: 1.10, big: 18446744073709551615, bits: 0b11, yes: yes, on: 2020-01-02, n: 7}
transfers: {destinations: {desk: {to: +15550101, digits: 0101}}}
`), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	for want, got := range map[string]string{
		"0042": cfg.Agent.Headers["X-Tenant"], "1_000": cfg.Agent.Headers["X-B"], "+15550100": cfg.Routes[0].To,
		"01234": cfg.Routes[0].Metadata["zip"], "1.10": cfg.Routes[0].Metadata["version"],
		"18446744073709551615": cfg.Routes[0].Metadata["big"], "0b11": cfg.Routes[0].Metadata["bits"],
		"yes": cfg.Routes[0].Metadata["yes"], "2020-01-02": cfg.Routes[0].Metadata["on"],
		"7":    cfg.Routes[0].Metadata["n"],
		"0101": cfg.Transfers.Destinations["desk"].Digits,
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var own struct {
		APIKey    string `yaml:"api_key"`
		Secret    string `yaml:"api_secret"`
		Signature string `yaml:"signature_secret"`
		App       string `yaml:"application_id"`
	}
	keys, block, err := cfg.Accounts["v"].split()
	if err != nil || keys.From != "+15550100" {
		t.Errorf("%+v, %v", keys, err)
	}
	if err := block.decode("x")(&own); err != nil || own.APIKey != "01234567" || own.Secret != "0x1F" ||
		own.Signature != strings.Repeat("0", 39)+"1" || own.App != "1.10" {
		t.Errorf("%+v, %v", own, err)
	}
	if cfg.Limits.Calls != 16 {
		t.Errorf("a number is %d, want 16", cfg.Limits.Calls)
	}
}

// TestMistakes: what people write by mistake is told with the mend.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	music := filepath.Join(dir, "silence.wav")
	if err := wav.Write(music, make([]int16, 8000), 8000); err != nil {
		t.Fatal(err)
	}
	const base = "media: {token: abcdefghijklmnopqrstuv}\nagent: {url: 'ws://127.0.0.1:1/'}\npublic_url: " +
		"https://b.example\n"
	account := func(sid, token string) string {
		return "accounts: {main: {provider: twilio, account_sid: " + sid + ", auth_token: " + token + "}}\n"
	}
	const sid = "AC00000000000000000000000000000001"
	for text, want := range map[string]string{
		base + "lisen: x\n": "lisen: there is no such key; did you mean listen? " +
			"(line 4)",
		base + "limits: {cals: 1}\n": "limits.cals: there is no such key; did you mean calls?",
		base + "api: {tokens: [{nme: x}]}\n": "api.tokens[0].nme: there is no such key; did you mean " +
			"name?",
		base + "agents: {a: {url: 'ws://h/', pol: true}}\n": "agents.a.pol: there is no such key; did you mean pool?",
		base + "accounts: {main: {provider: twillio}}\n": "is no carrier with accounts; did you mean twilio?: " +
			"there are",
		base + account(sid, "$TOKEN"):      "$TOKEN: must be ${TOKEN}",
		base + account(sid, "'${PADDED}'"): "environment variable PADDED: has spaces",
		base + account("AC123", "x"):       "account_sid: must be",
		strings.Replace(base, "b.example", "b.example/hooks/twilio/main/inbound", 1) + account(sid,
			"x"): "not that of a webhook: https://b.example",
		strings.Replace(base, "https://", "HTTPS://", 1) + account(sid,
			"x"): "public_url: must be the https:// URL",
		base + account(sid, "x") + "router: {url: 'https://r.example', timeout: 10s}\n": "",
		base + "accounts: {v: {provider: vonage, api_key: k, api_secret: s, signature_secret: " +
			"00000000000000000000000000000000}}\n" +
			"router: {url: 'https://r.example', timeout: 5s}\n": "router.timeout: 5s is too long for vonage, which " +
			"waits 5s for an answer: at most 4.5s",
		base + "transfers: {music: " + music + "}\n": "has no audio, or only silence",
		base + "agents: {a: {url: 'ws://127.0.0.1/', options: {encodin: pcmu}}}\n": "agents.a.options.encodin: is no " +
			"key of such an agent's options; did you mean encoding?",
		base + "agents: {a: {url: 'ws://127.0.0.1/', protocol: twilio, options: " +
			"{auth_token: x, account_sid: AC1}}}\n": "agents.a.options.account_sid: must be the SID",
		base + "agents: {a: {pool: true, bearer: 0123456789abcdef, protocol: twilio}}\n": "url: must be set: agents " +
			"written for Twilio wait to be dialled",
	} {
		_, err := Parse([]byte(text), env(map[string]string{"PADDED": "x\n", "TOKEN": "x"}))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}

// TestLineBreaks: a file with the line breaks of another system is no different.
func TestLineBreaks(t *testing.T) {
	const text = "agent: {url: 'ws://127.0.0.1:1/'}\nmedia: {insecure: true}\nroutes:\n  - metadata: {zip: 01234}\n"
	cfg, err := Parse([]byte(strings.ReplaceAll(text, "\n", "\r\n")), env(nil))
	if err != nil || cfg.Routes[0].Metadata["zip"] != "01234" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// TestModels: an agent at a vendor's needs no URL, has the tools that are left to it, and is dialled again; what is
// wrong names the field.
func TestModels(t *testing.T) {
	const good = `public_url: https://b.example
accounts: {main: {provider: twilio, account_sid: AC0123456789abcdef0123456789abcdef, auth_token: hush}}
transfers: {destinations: {office: {to: "+15550100"}}}
agents: {night: {url: wss://n.example/}}
agent:
  protocol: openai
  options: {key: k, model: m, session: {reasoning: {effort: low}}}
  tools:
    off: [send_digits]
    destinations: [office, "agent:night"]
    own: [{name: find, description: Finds., parameters: {type: object}, url: https://t.example/}]
  fallback: {agent: night}
`
	cfg, err := Parse([]byte(good), os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	agents, err := cfg.agents()
	if err != nil {
		t.Fatal(err)
	}
	own := agents[""]
	if own.Fallback.Agent != "night" || own.Session.Reconnect.Times != redials ||
		agents["night"].Session.Reconnect.Times != 0 {
		t.Errorf("%+v, %+v", own.Fallback, own.Session)
	}
	set, err := cfg.tools(&cfg.Agent)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range set.List(true) {
		names = append(names, d.Name)
	}
	if want := []string{"end_call", "transfer_call", "find"}; !slices.Equal(names, want) {
		t.Errorf("the tools are %v", names)
	}
	for want, change := range map[string][2]string{
		"agent.options.model":         {"model: m, ", ""},
		"agent.options.session.tools": {"{reasoning: {effort: low}}", "{tools: []}"},
		"agent.options.voices":        {"model: m, ", "model: m, voices: x, "},
		"agent.tools.off":             {"[send_digits]", "[send_keys]"},
		"agent.tools.destinations[0]": {"[office, ", "[desk, "},
		"agent.tools.destinations[1]": {`"agent:night"`, `"agent:day"`},
		"agent.tools.own[0].url":      {"https://t.example/", "http://t.example/"},
		"agent.tools.own[0].name":     {"name: find", "name: end_call"},
		"agent.fallback.agent":        {"{agent: night}", "{agent: day}"},
		"agent.reconnect.times":       {"fallback:", "reconnect: {times: 99}\n  fallback:"},
		"agents.night.tools":          {"{url: wss://n.example/}", "{url: wss://n.example/, tools: {off: [end_call]}}"},
		"agent.input_rate":            {"fallback:", "input_rate: 8000\n  fallback:"},
	} {
		if !strings.Contains(good, change[0]) {
			t.Fatalf("%q is not there", change[0])
		}
		_, err := Parse([]byte(strings.Replace(good, change[0], change[1], 1)), os.Getenv)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestAgentPages: the configurations in docs/agents.md are good.
func TestAgentPages(t *testing.T) {
	page, err := os.ReadFile("../docs/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 9 {
		t.Fatalf("there are %d", len(blocks))
	}
	secrets := map[string]string{"TWILIO_ACCOUNT_SID": "AC0123456789abcdef0123456789abcdef"}
	for _, b := range blocks {
		text := string(b[1])
		if !strings.Contains(text, "accounts:") && !strings.Contains(text, "media:") {
			text += "media: {insecure: true}\n"
		}
		if _, err := Parse([]byte(text), func(name string) string {
			return cmp.Or(secrets[name], "a-secret-of-some-length")
		}); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}
