package outage

import (
	"os"
	"testing"
)

// TestGroups: a Cluster and a Sentinel come up, and go on when a master is killed.
func TestGroups(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(string) (*Group, error){
		"cluster":  func(dir string) (*Group, error) { return StartCluster(t.Context(), dir, 3) },
		"sentinel": func(dir string) (*Group, error) { return StartSentinel(t.Context(), dir) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := Dir()
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			g, err := start(dir)
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
