package providers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counting is a carrier that counts what it is asked, and may refuse it.
type counting struct {
	mu                         sync.Mutex
	dials, commands, questions int
	err                        error
}

func (c *counting) add(n *int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
	return c.err
}

func (c *counting) Dial(context.Context, *Dial) (Leg, error)         { return Leg{}, c.add(&c.dials) }
func (c *counting) Do(context.Context, string, *Answer) error        { return c.add(&c.commands) }
func (c *counting) Hangup(context.Context, string) error             { return c.add(&c.commands) }
func (c *counting) Get(context.Context, string) ([]CallEvent, error) { return nil, c.add(&c.questions) }

// TestPace: an account with 15 requests a second and 400 questions about its calls keeps
// within that, and a command goes before the questions.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{}
		a := NewAccount("", Abilities{}, nil, c)
		a.Limit(3, 15)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		var group sync.WaitGroup
		for range 400 {
			group.Go(func() { _, _ = a.Get(ctx, "x") }) // most come too late
		}
		synctest.Wait()
		begun := time.Now()
		for range 30 {
			if err := a.Hangup(ctx, "x"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took > 3500*time.Millisecond {
			t.Errorf("30 commands took %v", took)
		}
		for range 9 {
			if _, err := a.Dial(ctx, &Dial{}); err != nil {
				t.Fatal(err)
			}
		}
		<-ctx.Done()
		stop()
		group.Wait()
		if c.questions < 40 || c.questions > 60 || c.commands != 30 || c.dials != 9 {
			t.Errorf("%d questions, %d commands, %d calls in ten seconds", c.questions, c.commands, c.dials)
		}
	})
}

// TestPaceTooLate: what could not be done in time is refused at once, as the carrier would.
func TestPaceTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := NewAccount("", Abilities{}, nil, &counting{})
		a.Limit(1, 1)
		ctx, stop := context.WithTimeout(t.Context(), time.Second/2)
		defer stop()
		_, first := a.Dial(ctx, &Dial{})
		_, second := a.Dial(ctx, &Dial{})
		var e *CallError
		if first != nil || !errors.As(second, &e) || e.Kind != ErrRate ||
			time.Until(deadlineOf(ctx)) != time.Second/2 {
			t.Errorf("%v, %v", first, second)
		}
	})
}

func deadlineOf(ctx context.Context) time.Time {
	at, _ := ctx.Deadline()
	return at
}

// TestTooManyQuestions: a question that the carrier does not take is not repeated, a command
// is.
func TestTooManyQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{err: &CallError{Kind: ErrRate}}
		a := NewAccount("", Abilities{}, nil, c)
		_, asked := a.Get(t.Context(), "x")
		ended := a.Hangup(t.Context(), "x")
		if asked == nil || ended == nil || c.questions != 1 || c.commands != attempts {
			t.Errorf("%v, %v: %d questions, %d commands", asked, ended, c.questions, c.commands)
		}
	})
}
