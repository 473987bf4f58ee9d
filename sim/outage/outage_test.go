package outage

import (
	"testing"
)

// TestGroups: a Cluster and a Sentinel come up, and go on when a master is killed.
func TestGroups(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() (*Group, error){
		"cluster":  func() (*Group, error) { return StartCluster(t.Context(), t.TempDir(), 3) },
		"sentinel": func() (*Group, error) { return StartSentinel(t.Context(), t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			g, err := start()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
			}()
			if err := g.Kill(0); err != nil {
				t.Fatal(err)
			}
			if err := g.Failover(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
}
