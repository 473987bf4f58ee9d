package redisstore

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"voicebridge/transfer"
)

// schema is the version of the records' fields. Fields of later versions are kept.
const schema = "1"

// field is how one field of a record is stored.
type field struct {
	name string
	get  func(*transfer.Record) string
	set  func(*transfer.Record, string) error
}

func text[T ~string](name string, at func(*transfer.Record) *T) field {
	return field{name, func(r *transfer.Record) string { return string(*at(r)) },
		func(r *transfer.Record, s string) error { *at(r) = T(s); return nil }}
}

func number[T ~int64](name string, at func(*transfer.Record) *T) field {
	return field{name, func(r *transfer.Record) string { return strconv.FormatInt(int64(*at(r)), 10) },
		func(r *transfer.Record, s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			*at(r) = T(n)
			return err
		}}
}

func flag(name string, at func(*transfer.Record) *bool) field {
	return field{name, func(r *transfer.Record) string {
		if *at(r) {
			return "1"
		}
		return ""
	}, func(r *transfer.Record, s string) error { *at(r) = s == "1"; return nil }}
}

func words(name string, at func(*transfer.Record) *map[string]string) field {
	return field{name, func(r *transfer.Record) string {
		if len(*at(r)) == 0 {
			return ""
		}
		b, _ := json.Marshal(*at(r)) // strings always can
		return string(b)
	}, func(r *transfer.Record, s string) error {
		if s == "" {
			return nil
		}
		return json.Unmarshal([]byte(s), at(r))
	}}
}

var fields = []field{
	text("id", func(r *transfer.Record) *string { return &r.ID }),
	text("call", func(r *transfer.Record) *string { return &r.Call }),
	text("account", func(r *transfer.Record) *string { return &r.Account }),
	text("provider", func(r *transfer.Record) *string { return &r.Provider }),
	text("caller", func(r *transfer.Record) *string { return &r.Caller }),
	text("to", func(r *transfer.Record) *string { return &r.To }),
	text("from", func(r *transfer.Record) *string { return &r.From }),
	text("own", func(r *transfer.Record) *string { return &r.Own }),
	text("forward", func(r *transfer.Record) *string { return &r.Forward }),
	text("name", func(r *transfer.Record) *string { return &r.Name }),
	text("mode", func(r *transfer.Record) *transfer.Mode { return &r.Mode }),
	text("agent", func(r *transfer.Record) *string { return &r.Agent }),
	text("host", func(r *transfer.Record) *string { return &r.Host }),
	text("whisper", func(r *transfer.Record) *string { return &r.Whisper }),
	text("language", func(r *transfer.Record) *string { return &r.Language }),
	text("voice", func(r *transfer.Record) *string { return &r.Voice }),
	text("brief", func(r *transfer.Record) *string { return &r.Brief }),
	text("accept", func(r *transfer.Record) *string { return &r.Accept }),
	text("digits", func(r *transfer.Record) *string { return &r.Digits }),
	flag("detect", func(r *transfer.Record) *bool { return &r.Detect }),
	number("ring", func(r *transfer.Record) *time.Duration { return &r.Ring }),
	text("hold", func(r *transfer.Record) *string { return &r.Hold }),
	words("on_fail", func(r *transfer.Record) *map[string]string { return &r.OnFail }),
	text("on_end", func(r *transfer.Record) *string { return &r.OnEnd }),
	words("context", func(r *transfer.Record) *map[string]string { return &r.Context }),
	text("by", func(r *transfer.Record) *string { return &r.By }),
	number("returns", func(r *transfer.Record) *int64 { return &r.Returns }),
	text("place", func(r *transfer.Record) *string { return &r.Place }),
	text("ref", func(r *transfer.Record) *string { return &r.Ref }),
	text("room", func(r *transfer.Record) *string { return &r.Room }),
	text("nonce", func(r *transfer.Record) *string { return &r.Nonce }),
	text("state", func(r *transfer.Record) *transfer.State { return &r.State }),
	text("want", func(r *transfer.Record) *transfer.State { return &r.Want }),
	text("reason", func(r *transfer.Record) *string { return &r.Reason }),
	text("detail", func(r *transfer.Record) *string { return &r.Detail }),
	number("version", func(r *transfer.Record) *int64 { return &r.Version }),
	number("fence", func(r *transfer.Record) *int64 { return &r.Fence }),
	text("owner", func(r *transfer.Record) *string { return &r.Owner }),
	number("due", func(r *transfer.Record) *int64 { return &r.Due }),
	number("created", func(r *transfer.Record) *int64 { return &r.Created }),
	number("updated", func(r *transfer.Record) *int64 { return &r.Updated }),
	flag("dialed", func(r *transfer.Record) *bool { return &r.Dialed }),
	text("leg", func(r *transfer.Record) *string { return &r.Leg }),
	number("picked", func(r *transfer.Record) *int64 { return &r.Picked }),
	flag("leg_in", func(r *transfer.Record) *bool { return &r.LegIn }),
	flag("leg_down", func(r *transfer.Record) *bool { return &r.LegDown }),
	flag("human", func(r *transfer.Record) *bool { return &r.Human }),
	text("at", func(r *transfer.Record) *transfer.Place { return &r.At }),
	flag("caller_in", func(r *transfer.Record) *bool { return &r.CallerIn }),
	flag("caller_gone", func(r *transfer.Record) *bool { return &r.CallerGone }),
	flag("settled", func(r *transfer.Record) *bool { return &r.Settled }),
}

// hashOf returns a record as it is kept.
func hashOf(r *transfer.Record) map[string]string {
	m := map[string]string{"schema": schema}
	for _, f := range fields {
		m[f.name] = f.get(r)
	}
	return m
}

// parse reads a record that was kept. Fields that are not known are left to whoever knows
// them.
func parse(m map[string]string) (*transfer.Record, error) {
	r := &transfer.Record{}
	for _, f := range fields {
		if s, there := m[f.name]; there {
			if err := f.set(r, s); err != nil {
				return nil, fmt.Errorf("transfer: store: field %s: %w", f.name, err)
			}
		}
	}
	return r, nil
}

// changes returns the fields in which two records differ.
func changes(before, after *transfer.Record) map[string]string {
	m := map[string]string{}
	for _, f := range fields {
		if s := f.get(after); s != f.get(before) {
			m[f.name] = s
		}
	}
	return m
}
