package config

import _ "embed" // the schema

// Schema is the JSON Schema of the configuration file, for editors. A test makes it from
// Config, from the keys of all carriers and dialects, and from docs/configuration.md.
//
//go:embed schema.json
var Schema []byte
