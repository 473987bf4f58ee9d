package config

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"voicebridge/bridge"
	"voicebridge/control/directory"
)

// changeable are the top-level keys that may change while the bridge runs.
var changeable = []string{"accounts", "agent", "agents", "routes", "words", "router", "api", "log", "tls"}

// Fixed names the keys in which another configuration differs, and that cannot change while the
// bridge runs.
func (c *Config) Fixed(next *Config) (keys []string) {
	now, then := reflect.ValueOf(*c), reflect.ValueOf(*next)
	for i := range now.NumField() {
		key := now.Type().Field(i).Tag.Get("yaml")
		if !slices.Contains(changeable, key) &&
			!reflect.DeepEqual(now.Field(i).Interface(), then.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	if (len(c.API.Tokens) == 0) != (len(next.API.Tokens) == 0) {
		keys = append(keys, "api.tokens, from none to some or back")
	}
	if c.Log.Format != next.Log.Format {
		keys = append(keys, "log.format")
	}
	if c.TLS.Set() != next.TLS.Set() {
		keys = append(keys, "tls, from none to some or back")
	}
	return keys
}

// Next makes what another configuration describes, for a bridge that runs with this one. What is
// as it was is kept: accounts that listen to their carrier, agents that wait for calls.
func (c *Config) Next(next *Config, running *bridge.Config) (bridge.Config, error) {
	cfg := *running
	accounts, err1 := next.MakeAccounts()
	agents, err2 := next.agents()
	tokens, err3 := next.tokens()
	if err := errors.Join(err1, err2, err3); err != nil {
		return cfg, err
	}
	for name := range accounts {
		if old, had := c.Accounts[name]; had && reflect.DeepEqual(old, next.Accounts[name]) {
			accounts[name] = running.Accounts[name]
		}
	}
	before := c.EveryAgent()
	for name, a := range next.EveryAgent() {
		if old := before[name]; old != nil && reflect.DeepEqual(old, a) {
			agents[name] = running.Agents[name]
		}
	}
	cfg.Accounts, cfg.Agents, cfg.Tokens = accounts, agents, tokens
	cfg.Route, cfg.Router, cfg.Words = next.route, next.Router.target(), directory.Words(next.Words)
	return cfg, nil
}

// Difference names the accounts and agents that another configuration adds, changes or leaves
// out, for people.
func (c *Config) Difference(next *Config) string {
	var words []string
	add := func(kind string, before, after map[string]any) {
		names := slices.Sorted(maps.Keys(before))
		for name := range after {
			if _, had := before[name]; !had {
				names = append(names, name)
			}
		}
		for _, name := range names {
			old, had := before[name]
			now, has := after[name]
			what := ""
			switch {
			case !had:
				what = "new"
			case !has:
				what = "gone"
			case !reflect.DeepEqual(old, now):
				what = "changed"
			default:
				continue
			}
			words = append(words, kind+" "+shown(name)+" "+what)
		}
	}
	add("account", anyOf(c.Accounts), anyOf(next.Accounts))
	add("agent", anyOf(c.EveryAgent()), anyOf(next.EveryAgent()))
	if !reflect.DeepEqual(c.Routes, next.Routes) || c.Router != next.Router {
		words = append(words, "routes changed")
	}
	if c.Words != next.Words {
		words = append(words, "words changed")
	}
	if !reflect.DeepEqual(c.API, next.API) {
		words = append(words, "tokens changed")
	}
	if c.Log.Level != next.Log.Level {
		words = append(words, "log.level "+next.Log.Level)
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

func anyOf[T any](m map[string]T) map[string]any {
	all := map[string]any{}
	for k, v := range m {
		all[k] = v
	}
	return all
}

// shown is the name of an agent or account; that of the agent for all other calls is empty.
func shown(name string) string {
	if name == "" {
		return "for all other calls"
	}
	return name
}
