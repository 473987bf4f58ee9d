package redisstore

import (
	"testing"

	"voicebridge/transfer"
	"voicebridge/transfer/transfertest"
)

// TestFields: a record survives its store, and every field is stored.
func TestFields(t *testing.T) {
	r := transfertest.Record("cs_1", 1)
	r.Begin(1)
	r.OnFail, r.Context = map[string]string{"busy": transfer.Hangup, "": transfer.Resume},
		map[string]string{"who": "Ann"}
	r.Detect, r.Dialed, r.LegDown, r.Human, r.CallerGone, r.Settled, r.CallerIn = true, true, true, true, true, true,
		true
	r.LegIn, r.Picked, r.Returns = true, 1, 1
	for _, s := range []*string{&r.Name, &r.Own, &r.Forward, &r.Agent, &r.Host, &r.Whisper, &r.Language, &r.Voice, &r.Brief, &r.Accept, &r.Digits, &r.Hold,
		&r.OnEnd, &r.Ref, &r.Place, &r.Reason, &r.Detail, &r.Leg} {
		*s = "x"
	}
	r.Want = transfer.Failed
	m := hashOf(r)
	for name, v := range m {
		if v == "" || v == "0" {
			t.Errorf("%s is not set: the test does not cover it", name)
		}
	}
	m["of a later version"] = "?"
	got, err := parse(m)
	if err != nil {
		t.Fatal(err)
	}
	if d := changes(r, got); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if d := changes(&transfer.Record{}, r); len(d) != len(fields) {
		t.Errorf("%d of %d fields", len(d), len(fields))
	}
	if _, err := parse(map[string]string{"version": "x"}); err == nil {
		t.Error("nonsense was read")
	}
}

// FuzzLoad: whatever is stored, it is read or refused.
func FuzzLoad(f *testing.F) {
	for name, v := range hashOf(transfertest.Record("cs_1", 1)) {
		f.Add(name, v)
	}
	f.Add("on_fail", `{"busy":1}`)
	f.Fuzz(func(t *testing.T, name, value string) {
		m := hashOf(transfertest.Record("cs_1", 1))
		m[name] = value
		r, err := parse(m)
		if err != nil {
			return
		}
		if again, err := parse(hashOf(r)); err != nil || len(changes(r, again)) > 0 {
			t.Fatalf("%q: %q does not come back as it was: %v", name, value, err)
		}
	})
}

// TestUnknownFields: fields that a newer instance has written stay.
func TestUnknownFields(t *testing.T) {
	s, ctx := newStore(t), t.Context()
	r := transfertest.Record("cs_1", 1)
	if err := s.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	s.db.HSet(ctx, s.context(r.ID), "colour", "green")
	got, now, err := s.Load(ctx, r.ID)
	if err != nil || got.To != r.To {
		t.Fatalf("%+v, %v", got, err)
	}
	after, _ := got.Apply(transfer.Event{Kind: transfer.Begin}, now)
	if err := s.Move(ctx, got, after, transfer.Begin); err != nil {
		t.Fatal(err)
	}
	if s.db.HGet(ctx, s.context(r.ID), "colour").Val() != "green" {
		t.Error("a move has wiped a field that it does not know")
	}
}
