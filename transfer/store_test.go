package transfer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"voicebridge/transfer"
	"voicebridge/transfer/transfertest"
)

// TestMemory: the store in memory does what every store must.
func TestMemory(t *testing.T) {
	transfertest.Harness{
		New: func(*testing.T) transfer.Store { return transfer.NewMemory(time.Now, transfertest.Tombstone) },
		Live: func(t *testing.T, s transfer.Store, owner string) {
			if err := s.Renew(t.Context(), owner, time.Hour); err != nil {
				t.Fatal(err)
			}
		},
		Die: func(t *testing.T, s transfer.Store, owner string) {
			if err := s.Release(t.Context(), owner); err != nil {
				t.Fatal(err)
			}
		},
		Keys: func(_ *testing.T, s transfer.Store) int { return s.(*transfer.Memory).Len() },
		Fading: func(_ *testing.T, s transfer.Store) int {
			before := s.(*transfer.Memory).Len()
			time.Sleep(transfertest.Tombstone)
			return before - s.(*transfer.Memory).Len()
		},
		Unindex: func(_ *testing.T, s transfer.Store, call string) { s.(*transfer.Memory).Unindex(call) },
		Evict:   func(_ *testing.T, s transfer.Store, id string) { s.(*transfer.Memory).Evict(id) },
	}.Run(t, synctest.Test)
}
