package all

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/carriers.md")

// TestTable: docs/carriers.md shows what the carriers can do. To write it:
//
//	go test ./providers/all -run Table -update
func TestTable(t *testing.T) {
	const page, begin, end = "../../docs/carriers.md", "<!-- the table is made by providers/all -->\n", "<!-- end -->\n"
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
		if err := os.WriteFile(page, []byte(before+begin+Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if shown != Table() {
		t.Errorf("%s shows\n%s\nwant\n%s", page, shown, Table())
	}
}
