package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"clearmlserving/inference/engine"
)

// Limits of one schema or example in a document; larger ones are left out.
const (
	maxSchema     = 256 << 10
	maxExample    = 64 << 10
	maxDepth      = 64
	maxCategories = 1000
)

// bodySchema is the schema of a request's body that will be at the place of a document, nil for
// any JSON.
func bodySchema(s engine.Signature, place string) []byte {
	schema := placed(s.BodySchema, place)
	if schema == nil && s.Table && len(s.Inputs) > 0 {
		schema = tableSchema(s.Inputs, place)
	}
	if len(schema) > maxSchema {
		return nil
	}
	return schema
}

func answerSchema(s engine.Signature, place string) []byte { return placed(s.AnswerSchema, place) }

// Example is the example of a body that the signature has, or one made of its columns; nil if
// there is none.
func Example(s engine.Signature) []byte {
	if s.Example != nil && len(s.Example) <= maxExample && json.Valid(s.Example) && utf8.Valid(s.Example) {
		return s.Example
	}
	if !s.Table || len(s.Inputs) == 0 {
		return nil
	}
	var out bytes.Buffer
	out.WriteByte('{')
	for i, t := range s.Inputs {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(quoted(t.Name))
		out.WriteByte(':')
		out.Write(exampleValue(t))
	}
	out.WriteByte('}')
	if out.Len() > maxExample {
		return nil
	}
	return out.Bytes()
}

func exampleValue(t engine.TensorSpec) []byte {
	if len(t.Categories) > 0 {
		return category(t, t.Categories[0])
	}
	switch t.Datatype {
	case engine.Bool:
		return []byte("false")
	case engine.Bytes:
		return []byte(`""`)
	case engine.FP16, engine.BF16, engine.FP32, engine.FP64:
		return []byte("0.5")
	}
	return []byte("1")
}

// tableSchema is the schema of a record of columns, a list of records, or rows.
func tableSchema(columns []engine.TensorSpec, place string) []byte {
	var properties, row bytes.Buffer
	names := make([]json.RawMessage, len(columns))
	for i, t := range columns {
		if i > 0 {
			properties.WriteByte(',')
			row.WriteByte(',')
		}
		names[i] = quoted(t.Name)
		column := columnSchema(t)
		properties.Write(names[i])
		properties.WriteByte(':')
		properties.Write(column)
		row.Write(column)
		if properties.Len() > maxSchema {
			return nil
		}
	}
	required, err := encode(names)
	if err != nil {
		return nil
	}
	record := `{"$ref":` + string(quoted(place+"/$defs/record")) + `}`
	n := len(columns)
	return fmt.Appendf(nil, `{"description":"A record, a list of records, or rows in the order of the columns.","anyOf":[%s,{"type":"array","minItems":1,"items":%s},{"type":"array","minItems":1,"items":{"$ref":%s}}],`+
		`"$defs":{"record":{"type":"object","properties":{%s},"required":%s,"additionalProperties":false},"row":{"type":"array","prefixItems":[%s],"minItems":%d,"maxItems":%d}}}`,
		record, record, quoted(place+"/$defs/row"), properties.Bytes(), required, row.Bytes(), n, n)
}

// columnSchema is the schema of one value of a table. Whole numbers are not demanded where
// training had them, because models compute with any number.
func columnSchema(t engine.TensorSpec) []byte {
	if n := len(t.Categories); n > 0 && n <= maxCategories {
		values := make([]json.RawMessage, n, n+1)
		for i, text := range t.Categories {
			values[i] = category(t, text)
		}
		if t.Optional {
			values = append(values, json.RawMessage("null"))
		}
		if list, err := encode(values); err == nil {
			return append(append([]byte(`{"enum":`), list...), '}')
		}
	}
	kind, bounds := "", ""
	switch {
	case t.Datatype == engine.Bool:
		kind = `"boolean"`
	case t.Datatype == engine.Bytes:
		kind = `"string"`
	case t.Datatype.Size() > 0:
		kind = `"number"`
		if t.Datatype == engine.FP32 {
			bounds = fmt.Sprintf(`,"minimum":%v,"maximum":%v`, -math.MaxFloat32, math.MaxFloat32)
		}
	default:
		return []byte(`{"type":["number","string","boolean","null"]}`)
	}
	if t.Optional {
		kind = "[" + kind + `,"null"]`
	}
	return []byte(`{"type":` + kind + bounds + "}")
}

// category is a value of a column with categories, as JSON.
func category(t engine.TensorSpec, text string) []byte {
	if t.Datatype.Size() > 0 && json.Valid([]byte(text)) {
		return []byte(text)
	}
	return quoted(text)
}

func quoted(text string) []byte {
	out, err := encode(text)
	if err != nil { // a string always encodes
		return []byte(strconv.Quote(text))
	}
	return out
}

// placed is a JSON Schema with its references changed for its place in a document, nil if it cannot
// be used there.
func placed(schema []byte, place string) []byte {
	if len(schema) == 0 || len(schema) > maxSchema || !json.Valid(schema) || !utf8.Valid(schema) {
		return nil
	}
	var whole any
	if err := json.Unmarshal(schema, &whole); err != nil {
		return nil
	}
	p := placing{place: place, whole: whole}
	p.schema(schema, 0)
	if p.unusable {
		return nil
	}
	return p.out.Bytes()
}

// placing copies a schema and keeps the order of its members.
type placing struct {
	place    string
	whole    any
	out      bytes.Buffer
	unusable bool
}

// Keywords whose values are schemas, lists and maps of schemas. Other values are data.
var (
	schemaKeys  = []string{"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"} //nolint:gochecknoglobals // a constant table
	schemaLists = []string{"allOf", "anyOf", "oneOf", "prefixItems"}                                                                                                                //nolint:gochecknoglobals // a constant table
	schemaMaps  = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}                                                                           //nolint:gochecknoglobals // a constant table
	// ownBase are the keywords that give a part another place, or only have a meaning there.
	ownBase = []string{"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"} //nolint:gochecknoglobals // a constant table
)

func (p *placing) schema(text json.RawMessage, depth int) {
	switch text = bytes.TrimSpace(text); {
	case string(text) == "true" || string(text) == "false":
		p.out.Write(text)
	case text[0] != '{' || depth > maxDepth:
		p.unusable = true
	default: // $schema is dropped: the document has one
		p.members(text, "$schema", func(key string, value json.RawMessage) {
			switch {
			case key == "$ref":
				p.reference(value)
			case slices.Contains(ownBase, key):
				p.unusable = true
			case slices.Contains(schemaKeys, key):
				p.schema(value, depth+1)
			case slices.Contains(schemaLists, key):
				p.list(value, depth+1)
			case slices.Contains(schemaMaps, key):
				if value[0] != '{' {
					p.unusable = true
					return
				}
				p.members(value, "", func(_ string, value json.RawMessage) { p.schema(value, depth+1) })
			default:
				p.out.Write(value)
			}
		})
	}
}

func (p *placing) list(text json.RawMessage, depth int) {
	var all []json.RawMessage
	if json.Unmarshal(text, &all) != nil || len(all) == 0 {
		p.unusable = true
		return
	}
	p.out.WriteByte('[')
	for i, one := range all {
		if i > 0 {
			p.out.WriteByte(',')
		}
		p.schema(one, depth)
	}
	p.out.WriteByte(']')
}

// members copies an object without one member, with the values that each writes.
func (p *placing) members(text json.RawMessage, dropped string, each func(key string, value json.RawMessage)) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		p.unusable = true
		return
	}
	p.out.WriteByte('{')
	first := true
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || decoder.Decode(&value) != nil {
			p.unusable = true
			return
		}
		if key == dropped {
			continue
		}
		if !first {
			p.out.WriteByte(',')
		}
		first = false
		p.out.Write(quoted(key))
		p.out.WriteByte(':')
		each(key, value)
	}
	p.out.WriteByte('}')
}

// reference copies a reference to another part of the schema.
func (p *placing) reference(text json.RawMessage) {
	var to string
	if json.Unmarshal(text, &to) != nil || !strings.HasPrefix(to, "#") || !p.has(to[1:]) {
		p.unusable = true
		return
	}
	p.out.Write(quoted(p.place + to[1:]))
}

// has reports whether a JSON pointer leads to a part of the schema.
func (p *placing) has(pointer string) bool {
	if pointer == "" {
		return true
	}
	if pointer[0] != '/' || strings.Contains(pointer, "%") {
		return false
	}
	at := p.whole
	for part := range strings.SplitSeq(pointer[1:], "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch value := at.(type) {
		case map[string]any:
			next, ok := value[part]
			if !ok {
				return false
			}
			at = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(value) {
				return false
			}
			at = value[i]
		default:
			return false
		}
	}
	return true
}
