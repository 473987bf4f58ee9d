package all

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/carriers.md")

// TestTable: docs/carriers.md and the README show what the carriers can do. To write them:
//
//	go test ./providers/all -run Table -update
func TestTable(t *testing.T) {
	for page, table := range map[string]string{"../../docs/carriers.md": Table(), "../../README.md": Summary()} {
		const begin, end = "<!-- the table is made by providers/all -->\n", "<!-- end -->\n"
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		before, rest, ok := strings.Cut(string(b), begin)
		shown, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table", page)
		}
		if *update {
			if err := os.WriteFile(page, []byte(before+begin+table+end+after), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if shown != table {
			t.Errorf("%s shows\n%s\nwant\n%s", page, shown, table)
		}
	}
}

// TestFolders: each carrier's folder tells how it is set up.
func TestFolders(t *testing.T) {
	for _, s := range Specs {
		b, err := os.ReadFile("../" + s.Name + "/README.md")
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{"## Set up", "## Quirks", "## How sure"} {
			if !strings.Contains(string(b), part) {
				t.Errorf("%s: README.md has no part %q", s.Name, part)
			}
		}
	}
}
