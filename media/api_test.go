package media

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestOpenAPIPaths: the document describes what the API has, and nothing else.
func TestOpenAPIPaths(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	s := New(Config{Limits: Defaults, Log: slog.New(slog.DiscardHandler)})
	for pattern := range s.apiRoutes() {
		served = append(served, pattern)
	}
	served = append(served, "GET /v1/events", "GET /v1/openapi.yaml")
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Errorf("the document describes\n%s\nserved are\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
}
