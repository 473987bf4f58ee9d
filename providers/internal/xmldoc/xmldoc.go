// Package xmldoc reads answer documents in XML as strictly as carriers do: elements
// and attributes that a schema does not have are refused. It serves the simulated ends
// of carriers whose documents are alike: a Response that holds verbs.
package xmldoc

import (
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
)

// Schema has the attributes that each element may have.
type Schema map[string][]string

// Element is any XML element.
type Element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Children []Element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

// Name returns the element's name.
func (e *Element) Name() string { return e.XMLName.Local }

// Attr returns an attribute's value; empty: it is not there.
func (e *Element) Attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// Words are a text that is spoken, as an element that carriers of this kind have.
type Words struct {
	Voice    string `xml:"voice,attr,omitempty"`
	Language string `xml:"language,attr,omitempty"`
	Text     string `xml:",chardata"`
}

// WordsOf makes such an element; nil: there is no text.
func WordsOf(text, language, voice string) *Words {
	if text == "" {
		return nil
	}
	return &Words{voice, language, text}
}

// Errors of Read.
var (
	ErrSyntax = errors.New("not well-formed")
	ErrSchema = errors.New("not in the schema")
)

// Read reads a document of at most most bytes, whose root must be Response. The error
// is ErrSyntax or ErrSchema.
func Read(body []byte, most int, schema Schema) (*Element, error) {
	if len(body) > most {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrSyntax, most)
	}
	var root Element
	if err := xml.Unmarshal(body, &root); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if root.Name() != "Response" {
		return nil, fmt.Errorf("%w: the root is not Response", ErrSyntax)
	}
	return &root, schema.check(&root)
}

func (s Schema) check(e *Element) error {
	allowed, known := s[e.Name()]
	if !known {
		return fmt.Errorf("%w: element %.40q", ErrSchema, e.Name())
	}
	for _, a := range e.Attrs {
		if !slices.Contains(allowed, a.Name.Local) {
			return fmt.Errorf("%w: attribute %.40q of %s", ErrSchema, a.Name.Local, e.Name())
		}
	}
	for i := range e.Children {
		if err := s.check(&e.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

// Marshal writes a document with its XML declaration.
func Marshal(v any) ([]byte, error) {
	b, err := xml.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), b...), nil
}
