package all

import (
	"os"
	"strings"
	"testing"
)

// TestTable: docs/agents.md has the table of the dialects as it is made here.
func TestTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), Table()) {
		t.Errorf("docs/agents.md must have this:\n%s", Table())
	}
}
