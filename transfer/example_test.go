package transfer_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"voicebridge/transfer"
)

// desk is a carrier whose destination always picks up.
type desk struct{ events chan transfer.Event }

func (d desk) Dial(context.Context, *transfer.Record) (string, error) {
	d.events <- transfer.Event{Kind: transfer.Picked, Leg: "leg-1"}
	return "leg-1", nil
}

func (d desk) Join(context.Context, *transfer.Record) error {
	d.events <- transfer.Event{Kind: transfer.CallerIn}
	d.events <- transfer.Event{Kind: transfer.Joined}
	return nil
}

func (d desk) Hangup(context.Context, *transfer.Record) error { return nil }
func (d desk) Settle(context.Context, *transfer.Record) error { return nil }
func (d desk) GiveUp(context.Context, *transfer.Record) error { return nil }
func (d desk) Leg(context.Context, *transfer.Record) ([]transfer.Event, error) {
	return nil, nil
}
func (d desk) Caller(context.Context, *transfer.Record) (transfer.Event, error) {
	return transfer.Event{}, nil
}
func (d desk) Where(context.Context, *transfer.Record) (transfer.Whereabouts, error) {
	return transfer.Whereabouts{}, nil
}
func (d desk) Changed(*transfer.Record, transfer.Entry) {}

// A call is moved to a number. What the carrier tells makes the moves.
func ExampleManager() {
	times := transfer.Defaults
	times.Instance = "example"
	carrier := desk{make(chan transfer.Event, 10)}
	m := transfer.NewManager(transfer.NewMemory(time.Now, time.Minute), carrier, times, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	defer func() { stop(); <-ended }()

	r, err := m.Start(ctx, transfer.Request{Call: "cs_1", To: "+15550100123", Mode: transfer.Conference,
		Ring: 30 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		for {
			select {
			case ev := <-carrier.events:
				_, _, _ = m.HandleEvent(ctx, r.ID, ev)
			case <-ctx.Done():
				return
			}
		}
	}()
	r, err = m.Wait(ctx, r.ID, func(r *transfer.Record) bool { return r.State == transfer.Bridged })
	fmt.Println(r.State, err)
	// Output: bridged <nil>
}
