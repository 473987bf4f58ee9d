package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"voicebridge/agent"
	dialects "voicebridge/agent/all"
	"voicebridge/providers"
	"voicebridge/providers/all"
)

var update = flag.Bool("update", false, "write schema.json")

// described are the meanings of the keys as docs/configuration.md has them.
func described(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	means := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| [^|]* \\| ([^|]*) \\|$").FindAllSubmatch(doc, -1) {
		for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllSubmatch(row[1], -1) {
			if _, seen := means[string(m[1])]; !seen {
				means[string(m[1])] = strings.ReplaceAll(link.ReplaceAllString(string(row[2]), "$1"), "`", "")
			}
		}
	}
	return means
}

type object = map[string]any

// schemaMaker makes the schema of types.
type schemaMaker struct{ means map[string]string }

// of returns the schema of a type at a path of keys.
func (s schemaMaker) of(v reflect.Type, path string) object {
	o := object{}
	if m := s.means[path]; m != "" {
		o["description"] = m
	}
	switch {
	case v == reflect.TypeFor[Duration]():
		o["type"], o["pattern"] = "string", `^(\$\{.*\}|0|(\d+(\.\d+)?(ns|us|ms|s|m|h))+)$`
	case v == reflect.TypeFor[Account]():
		maps.Copy(o, s.account())
	case v == reflect.TypeFor[Block]():
		maps.Copy(o, s.blocks())
	case v.Kind() == reflect.Pointer:
		return s.of(v.Elem(), path)
	case v.Kind() == reflect.Struct:
		o["type"], o["additionalProperties"] = "object", false
		o["properties"] = s.fields(v, path)
	case v.Kind() == reflect.Map:
		o["type"], o["additionalProperties"] = "object", s.of(v.Elem(), strings.TrimSuffix(path, "s"))
	case v.Kind() == reflect.Slice:
		o["type"], o["items"] = "array", s.of(v.Elem(), "")
	case v.Kind() == reflect.Interface: // anything
	case v.Kind() == reflect.Bool:
		o["type"] = "boolean"
	case v.Kind() == reflect.Float64:
		o["type"] = "number"
	case v.Kind() >= reflect.Int && v.Kind() <= reflect.Uint64:
		o["type"] = "integer"
	default:
		o["type"] = "string"
	}
	return o
}

func (s schemaMaker) fields(v reflect.Type, path string) object {
	if path != "" {
		path += "."
	}
	props := object{}
	for field := range v.Fields() {
		name := strings.Split(field.Tag.Get("yaml"), ",")[0]
		if field.Tag.Get("yaml") == ",inline" {
			maps.Copy(props, s.fields(field.Type, path))
			continue
		}
		props[name] = s.of(field.Type, path+name)
	}
	return props
}

// account has the keys of all carriers: which are whose is checked when it is read.
func (s schemaMaker) account() object {
	props := s.fields(reflect.TypeFor[accountKeys](), "")
	names := []any{}
	for _, spec := range all.Specs {
		names = append(names, spec.Name)
		_, _ = spec.NewAccount(providers.Setup{Decode: func(c any) error { // it refuses an empty one
			maps.Copy(props, s.fields(reflect.TypeOf(c).Elem(), ""))
			return nil
		}})
	}
	props["provider"].(object)["enum"] = names
	return object{"type": "object", "properties": props, "additionalProperties": false, "required": []any{"provider"}}
}

// blocks has the keys of all dialects.
func (s schemaMaker) blocks() object {
	props := object{}
	for _, dialect := range dialects.Dialects {
		_, _ = dialect.New(agent.Options{Decode: func(c any) error {
			maps.Copy(props, s.fields(reflect.TypeOf(c).Elem(), ""))
			return nil
		}})
	}
	return object{"type": "object", "properties": props, "additionalProperties": false}
}

// TestSchema: schema.json is of this configuration, and takes what Parse takes. To
// write it:
//
//	go test ./config -run Schema -update
func TestSchema(t *testing.T) {
	o := schemaMaker{described(t)}.of(reflect.TypeFor[Config](), "")
	o["$schema"], o["title"] = "https://json-schema.org/draft/2020-12/schema", "Configuration of voicebridge"
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(o); err != nil {
		t.Fatal(err)
	}
	want := b.Bytes()
	if *update {
		if err := os.WriteFile("schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(Schema, want) {
		t.Fatal("schema.json is not that of Config: go test ./config -run Schema -update")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../examples/voicebridge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{
		string(example): true, "listen: 127.0.0.1:1": true, "limits: {lead: 160ms, calls: 3}": true,
		"listn: x": false, "limits: {lead: 160}": false, "limits: {calls: many}": false,
		"accounts: {a: {provider: nobody}}": false, "accounts: {a: {auth_token: x}}": false,
		"agents: {a: {urll: x}}": false, "agent: {options: {encoding: pcmu}}": true,
	} {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		js, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		v, err = jsonschema.UnmarshalJSON(bytes.NewReader(js))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != good {
			t.Errorf("%.60q: %v, want good: %t", text, err, good)
		}
	}
}
