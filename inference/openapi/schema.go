package openapi

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"clearmlserving/inference/engine"
)

// Limits of one schema or example in a document; larger ones are left out.
const (
	maxSchema  = 1 << 20
	maxExample = 64 << 10
	maxDepth   = 64
)

// SchemaOf is a schema as it is put into a document, nil if it cannot be used there.
func SchemaOf(schema []byte) []byte {
	if len(schema) == 0 || len(schema) > maxSchema || !json.Valid(schema) || !utf8.Valid(schema) {
		return nil
	}
	var c copying
	c.schema(schema, 0)
	if c.unusable {
		return nil
	}
	return c.out.Bytes()
}

// exampleOf is the example of a body, nil if there is none that can be used. A recorded request of one client has
// other values for the others.
func exampleOf(s engine.Signature) []byte {
	if len(s.Example) == 0 || len(s.Example) > maxExample || !json.Valid(s.Example) || !utf8.Valid(s.Example) {
		return nil
	}
	if s.ExampleOf != engine.ExampleRecorded {
		return s.Example
	}
	var out bytes.Buffer
	decoder := json.NewDecoder(bytes.NewReader(s.Example))
	decoder.UseNumber()
	if blank(&out, decoder) != nil {
		return nil
	}
	return out.Bytes()
}

// blank copies a value with other texts, numbers and truth values.
func blank(out *bytes.Buffer, from *json.Decoder) error {
	token, err := from.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		out.WriteByte(byte(token))
		for first := true; from.More(); first = false {
			if !first {
				out.WriteByte(',')
			}
			if token == '{' {
				name, err := from.Token()
				if err != nil {
					return err
				}
				text, err := encode(name)
				if err != nil {
					return err
				}
				out.Write(append(text, ':'))
			}
			if err := blank(out, from); err != nil {
				return err
			}
		}
		end, err := from.Token()
		if delim, ok := end.(json.Delim); ok {
			out.WriteByte(byte(delim))
		}
		return err
	case string:
		out.WriteString(`"text"`)
	case json.Number:
		out.WriteByte('0')
		if strings.ContainsAny(token.String(), ".eE") {
			out.WriteString(".5")
		}
	case bool:
		out.WriteString("false")
	default:
		out.WriteString("null")
	}
	return nil
}

// copying copies a schema, checks its form, and keeps the order of its members.
type copying struct {
	out      bytes.Buffer
	unusable bool
}

// Keywords whose values are schemas, lists and maps of schemas. Other values are data.
var (
	schemaKeys  = []string{"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"} //nolint:gochecknoglobals // a constant table
	schemaLists = []string{"allOf", "anyOf", "oneOf", "prefixItems"}                                                                                                                //nolint:gochecknoglobals // a constant table
	schemaMaps  = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}                                                                           //nolint:gochecknoglobals // a constant table
	// ownPlace are the keywords whose meaning depends on the place of a schema: those of signatures have none.
	ownPlace = []string{"$ref", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"} //nolint:gochecknoglobals // a constant table
)

func (c *copying) schema(text json.RawMessage, depth int) {
	switch text = bytes.TrimSpace(text); {
	case string(text) == "true" || string(text) == "false":
		c.out.Write(text)
	case text[0] != '{' || depth > maxDepth:
		c.unusable = true
	default: // $schema is dropped: the document has one
		c.members(text, "$schema", func(key string, value json.RawMessage) {
			switch {
			case slices.Contains(ownPlace, key):
				c.unusable = true
			case !formed(key, value):
				c.unusable = true
			case slices.Contains(schemaKeys, key):
				c.schema(value, depth+1)
			case slices.Contains(schemaLists, key):
				c.list(value, depth+1)
			case slices.Contains(schemaMaps, key):
				if value[0] != '{' {
					c.unusable = true
					return
				}
				c.members(value, "", func(_ string, value json.RawMessage) { c.schema(value, depth+1) })
			default:
				c.out.Write(value)
			}
		})
	}
}

func (c *copying) list(text json.RawMessage, depth int) {
	var all []json.RawMessage
	if json.Unmarshal(text, &all) != nil || len(all) == 0 {
		c.unusable = true
		return
	}
	c.out.WriteByte('[')
	for i, one := range all {
		if i > 0 {
			c.out.WriteByte(',')
		}
		c.schema(one, depth)
	}
	c.out.WriteByte(']')
}

// members copies an object without one member, with the values that each writes.
func (c *copying) members(text json.RawMessage, dropped string, each func(key string, value json.RawMessage)) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		c.unusable = true
		return
	}
	c.out.WriteByte('{')
	first := true
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || decoder.Decode(&value) != nil {
			c.unusable = true
			return
		}
		if key == dropped {
			continue
		}
		if !first {
			c.out.WriteByte(',')
		}
		first = false
		name, err := encode(key)
		if err != nil {
			c.unusable = true
			return
		}
		c.out.Write(name)
		c.out.WriteByte(':')
		each(key, value)
	}
	c.out.WriteByte('}')
}

// kinds are the values of the keyword type.
var kinds = []string{"array", "boolean", "integer", "null", "number", "object", "string"} //nolint:gochecknoglobals // a constant table

// formed reports whether the value of a keyword has the form that validators demand, for the keywords that code
// is likely to get wrong.
func formed(key string, value json.RawMessage) bool {
	var one string
	var several []string
	switch key {
	case "type":
		if json.Unmarshal(value, &one) == nil {
			return slices.Contains(kinds, one)
		}
		return json.Unmarshal(value, &several) == nil && len(several) > 0 && !slices.ContainsFunc(several, func(kind string) bool { return !slices.Contains(kinds, kind) })
	case "required":
		return json.Unmarshal(value, &several) == nil && several != nil
	case "enum", "examples":
		return value[0] == '['
	case "title", "description", "pattern", "format":
		return value[0] == '"'
	}
	return true
}
