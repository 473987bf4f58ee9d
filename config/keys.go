package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// checkKeys tells which keys of a file there are not, each with its path and the one that may be
// meant.
func checkKeys(b []byte) error {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return errors.New(firstLine(err))
	}
	var errs []error
	for _, doc := range file.Docs {
		errs = append(errs, unknownKeys(doc.Body, reflect.TypeFor[Config](), "")...)
	}
	return errors.Join(errs...)
}

// unknownKeys looks for keys that a type has not.
func unknownKeys(n ast.Node, t reflect.Type, path string) (errs []error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			errs = append(errs, unknownKeys(v, t, path)...)
		}
	case *ast.MappingValueNode:
		key := n.Key.GetToken().Value
		next, known := under(t, key)
		if !known {
			return []error{fmt.Errorf("%s: there is no such key%s (line %d)", path+key, meant(key, keysOf(t)),
				n.Key.GetToken().Position.Line)}
		}
		if next != nil {
			errs = append(errs, unknownKeys(n.Value, next, path+key+".")...)
		}
	case *ast.SequenceNode:
		for i, v := range n.Values {
			if t.Kind() == reflect.Slice {
				errs = append(errs, unknownKeys(v, t.Elem(),
					fmt.Sprintf("%s[%d].", strings.TrimSuffix(path, "."), i))...)
			}
		}
	}
	return errs
}

// under is the type of what is below a key; nil: anything.
func under(t reflect.Type, key string) (next reflect.Type, known bool) {
	switch t.Kind() {
	case reflect.Map:
		if t == reflect.TypeFor[Account]() || t == reflect.TypeFor[Block]() { // the carrier, or the dialect, knows
			return nil, true
		}
		return t.Elem(), true
	case reflect.Struct:
		for f := range t.Fields() {
			if f.Tag.Get("yaml") == key {
				return f.Type, true
			}
		}
		return nil, len(keysOf(t)) == 0
	}
	return nil, true // decoding tells what is wrong
}

// keysOf are the keys that a struct has.
func keysOf(t reflect.Type) (keys []string) {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for f := range t.Fields() {
		switch tag := f.Tag.Get("yaml"); tag {
		case "":
		case ",inline":
			keys = append(keys, keysOf(f.Type)...)
		default:
			keys = append(keys, tag)
		}
	}
	return keys
}

// meant asks whether one of the names is meant, where one is like it.
func meant(name string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		if d := distance(strings.ToLower(name), n); d < least && d < len(n) {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many letters are to be changed, added or left out to make one word of another
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			same := before
			if a[i] != b[j] {
				same++
			}
			before = row[j+1]
			row[j+1] = min(same, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// bare is a variable without its braces.
var bare = regexp.MustCompile(`^\$[A-Za-z_][A-Za-z0-9_]*$`)

// checkBare tells of values that are variables without braces.
func checkBare(b []byte) error {
	var errs []error
	for _, t := range tokens(b) {
		if bare.MatchString(t.Value) {
			errs = append(errs, fmt.Errorf("%s: must be ${%s}: variables have braces (line %d)", t.Value, t.Value[1:],
				t.Position.Line))
		}
	}
	return errors.Join(errs...)
}
