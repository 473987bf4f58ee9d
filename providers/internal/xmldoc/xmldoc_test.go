package xmldoc

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"
)

var schema = Schema{"Response": {}, "Dial": {"timeout"}, "Number": {}}

// TestRead: documents are read as strictly as carriers do.
func TestRead(t *testing.T) {
	for doc, want := range map[string]error{
		`<Response/>`: nil,
		`<?xml version="1.0"?><Response><Dial timeout="5"><Number>+1</Number></Dial></Response>`: nil,
		`<Response><Dial timeOut="5"/></Response>`:                                               ErrSchema,
		`<Response><dial/></Response>`:                                                           ErrSchema,
		`<Response><Dial><Number a="b"/></Dial></Response>`:                                      ErrSchema,
		`<Dial/>`:    ErrSyntax,
		`<Response>`: ErrSyntax,
		``:           ErrSyntax,
		`{}`:         ErrSyntax,
		`<Response>` + strings.Repeat(" ", 200) + `</Response>`: ErrSyntax,
	} {
		root, err := Read([]byte(doc), 200, schema)
		if !errors.Is(err, want) || want == nil && (err != nil || root.Name() != "Response") {
			t.Errorf("%.60s: %v, want %v", doc, err, want)
		}
	}
	root, err := Read([]byte(`<Response><Dial timeout="5">x</Dial></Response>`), 200, schema)
	if err != nil || root.Children[0].Attr("timeout") != "5" || root.Children[0].Attr("else") != "" ||
		root.Children[0].Text != "x" {
		t.Errorf("%+v, %v", root, err)
	}
}

// TestMarshal: what is written can be read.
func TestMarshal(t *testing.T) {
	b, err := Marshal(struct {
		XMLName xml.Name `xml:"Response"`
	}{})
	if err != nil || !strings.HasPrefix(string(b), "<?xml") {
		t.Fatalf("%s, %v", b, err)
	}
	if _, err := Read(b, 100, schema); err != nil {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`<Response><Dial timeout="5"><Number>+1</Number></Dial></Response>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		root, err := Read(b, 1<<16, schema)
		if err == nil && root.Name() != "Response" {
			t.Errorf("%q is read as %s", b, root.Name())
		}
		if err != nil && !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrSchema) {
			t.Errorf("%q: %v is neither kind of error", b, err)
		}
	})
}
