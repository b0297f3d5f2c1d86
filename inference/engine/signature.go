package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"clearmlserving/serving"
)

// Limits of a signature, which comes from a worker.
const (
	maxTensors = 20_000
	// MaxExample bounds the bytes of an example and of a schema.
	MaxExample = 1 << 20
)

// ParseSignature reads a signature in its JSON form, as a worker reports it. nil is no signature.
func ParseSignature(text []byte) (Signature, error) {
	if len(text) == 0 {
		return Signature{Source: SourceNone}, nil
	}
	var s Signature
	if err := json.Unmarshal(text, &s); err != nil {
		return Signature{Source: SourceNone}, fmt.Errorf("signature: %w", err)
	}
	if err := s.check(); err != nil {
		return Signature{Source: SourceNone}, fmt.Errorf("signature: %w", err)
	}
	if s.Source == "" {
		s.Source = SourceNone
	}
	if s.Preprocessed {
		s.Inputs, s.ModelInputs, s.Table = nil, s.Inputs, false
	}
	if s.Postprocessed {
		s.Outputs, s.ModelOutputs = nil, s.Outputs
	}
	return s.WithExample(), nil
}

// WithExample is s with an example made of the columns of a Table, unless it has a better one.
func (s Signature) WithExample() Signature {
	if !s.Table || s.Preprocessed || (s.ExampleOf != "" && s.ExampleOf != ExampleMade) {
		return s
	}
	if record := s.record(); record != nil {
		s.Example, s.ExampleOf = record, ExampleMade
	}
	return s
}

func (s Signature) check() error {
	for _, side := range [][]TensorSpec{s.Inputs, s.Outputs} {
		if len(side) > maxTensors {
			return fmt.Errorf("%d tensors, at most %d", len(side), maxTensors)
		}
		seen := make(map[string]bool, len(side))
		for _, t := range side {
			switch {
			case t.Name == "" || seen[t.Name]:
				return fmt.Errorf("name %q is empty or duplicate", t.Name)
			case t.Datatype != "" && t.Datatype != Bytes && t.Datatype.Size() == 0:
				return fmt.Errorf("%q has the unknown type %q", t.Name, t.Datatype)
			case slices.ContainsFunc(t.Shape, func(n int64) bool { return n < -1 }):
				return fmt.Errorf("%q has the shape %v", t.Name, t.Shape)
			}
			seen[t.Name] = true
		}
	}
	for _, text := range []json.RawMessage{s.BodySchema, s.AnswerSchema, s.Example} {
		if len(text) > MaxExample {
			return fmt.Errorf("a schema or example of %d bytes, at most %d", len(text), MaxExample)
		}
	}
	if s.Table && len(s.Inputs) == 0 {
		return errors.New("a table without columns")
	}
	return nil
}

// Common is the signature that several share; it is empty if they take different bodies.
func Common(signatures []Signature) Signature {
	var all Signature
	for i, one := range signatures {
		if i == 0 {
			all = one
			continue
		}
		if one.Table != all.Table || !bytes.Equal(one.BodySchema, all.BodySchema) || !reflect.DeepEqual(one.Inputs, all.Inputs) {
			return Signature{}
		}
		if !bytes.Equal(one.AnswerSchema, all.AnswerSchema) || !reflect.DeepEqual(one.Outputs, all.Outputs) {
			all.AnswerSchema, all.Outputs = nil, nil
		}
		if all.Example == nil {
			all.Example, all.ExampleOf = one.Example, one.ExampleOf
		}
	}
	return all
}

// With is s with what an endpoint's settings say of its tensors.
func (s Signature) With(settings Signature) Signature {
	if len(settings.Inputs) == 0 && len(settings.Outputs) == 0 {
		return s
	}
	if s.Table && len(settings.Inputs) > 0 {
		s.BodySchema = s.Body() // the bodies stay those of the table
	}
	same := slices.EqualFunc(s.Inputs, settings.Inputs, func(a, b TensorSpec) bool { return a.Name == b.Name })
	s.Table = s.Table && (same || len(settings.Inputs) == 0)
	s.Inputs = override(s.Inputs, settings.Inputs)
	s.Outputs = override(s.Outputs, settings.Outputs)
	s.Source = Signature{Source: SourceSettings}.Also(s.Source)
	return s
}

// override returns the settings' tensors, each completed by the one of that name.
func override(known, settings []TensorSpec) []TensorSpec {
	if len(settings) == 0 {
		return known
	}
	byName := make(map[string]TensorSpec, len(known))
	for _, t := range known {
		byName[t.Name] = t
	}
	list := make([]TensorSpec, len(settings))
	for i, t := range settings {
		list[i] = t
		if k, ok := byName[t.Name]; ok {
			list[i] = k
			if t.Datatype != "" {
				list[i].Datatype = t.Datatype
			}
			if t.Shape != nil {
				list[i].Shape = t.Shape
			}
		}
	}
	return list
}

// Body is the JSON Schema of a request's body: BodySchema, or that of records and rows of a Table. nil:
// any JSON. It is computed by each call.
func (s Signature) Body() json.RawMessage {
	if s.BodySchema != nil || !s.Table || s.Preprocessed {
		return s.BodySchema
	}
	record := s.RecordSchema()
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"anyOf":[%s,{"type":"array","minItems":1,"items":%s},`, record, record)
	b.WriteString(`{"type":"array","minItems":1,"items":{"type":"array","prefixItems":[`)
	for i, t := range s.Inputs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(t.Element())
	}
	fmt.Fprintf(&b, `],"minItems":%d,"maxItems":%d}}]}`, len(s.Inputs), len(s.Inputs))
	return b.Bytes()
}

// RecordSchema is the JSON Schema of one record of a Table.
func (s Signature) RecordSchema() json.RawMessage {
	b := []byte(`{"type":"object","additionalProperties":false,"properties":{`)
	for i, t := range s.Inputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, quoted(t.Name)...), ':')
		b = append(b, t.Element()...)
	}
	b = append(b, `},"required":[`...)
	for i, t := range s.Inputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, quoted(t.Name)...)
	}
	return append(b, `]}`...)
}

// Element is the JSON Schema of one element of the tensor.
func (t TensorSpec) Element() json.RawMessage {
	kind := t.jsonType()
	categories := make([]json.RawMessage, 0, len(t.Categories)+1)
	for _, c := range t.Categories {
		categories = append(categories, t.element(c))
	}
	switch {
	case len(categories) > 0 && !t.Open:
		if t.Optional {
			categories = append(categories, json.RawMessage("null"))
		}
		return encoded(map[string]any{"enum": categories})
	case kind == "" && len(categories) == 0:
		return json.RawMessage("{}")
	}
	schema := map[string]any{}
	if len(categories) > 0 {
		schema["examples"] = categories
	}
	switch {
	case kind != "" && t.Optional:
		schema["type"] = []string{kind, "null"}
	case kind != "":
		schema["type"] = kind
	}
	return encoded(schema)
}

// jsonType is the JSON type of an element, "" if it is unknown. A whole number is a number: models take
// fractions where training had none.
func (t TensorSpec) jsonType() string {
	switch t.Datatype {
	case "":
		return ""
	case Bool:
		return "boolean"
	case Bytes:
		return "string"
	}
	return "number"
}

// element is a category as JSON.
func (t TensorSpec) element(category string) json.RawMessage {
	if t.Datatype != "" && t.Datatype != Bytes && json.Valid([]byte(category)) {
		return json.RawMessage(category)
	}
	return quoted(category)
}

// Sample is a plausible element as JSON.
func (t TensorSpec) Sample() json.RawMessage {
	switch {
	case t.Example != nil:
		return t.Example
	case len(t.Categories) > 0:
		return t.element(t.Categories[0])
	}
	switch t.Datatype {
	case "":
		return json.RawMessage("null")
	case Bool:
		return json.RawMessage("false")
	case Bytes:
		return json.RawMessage(`"text"`)
	case FP16, BF16, FP32, FP64:
		return json.RawMessage("0.0")
	}
	return json.RawMessage("0")
}

// record is an example of a Table: a record of plausible values, nil if a column's type is unknown and it
// cannot be missing either.
func (s Signature) record() json.RawMessage {
	b := []byte{'{'}
	for i, t := range s.Inputs {
		if t.Datatype == "" && t.Example == nil && len(t.Categories) == 0 && !t.Optional {
			return nil
		}
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(append(b, quoted(t.Name)...), ": "...)
		b = append(b, t.Sample()...)
	}
	if len(b) > MaxExample {
		return nil
	}
	return append(b, '}')
}

func quoted(text string) json.RawMessage { return encoded(text) }

// encoded is a text, or what holds only texts and JSON, without the escapes for HTML.
func encoded(value any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return json.RawMessage("{}") // RawMessage that is no JSON; the callers check it
	}
	return bytes.TrimSpace(b.Bytes())
}

// Nearest is the name that a misspelled one probably means, "" if none is near.
func Nearest(name string, names []string) string {
	const longest, most = 64, 500 // bounds the time for a wrong request
	if len(name) > longest {
		return ""
	}
	best, distance := "", 2 // or more edits are too many
	if len(name) > 3 {
		distance = len(name)/3 + 2
	}
	for _, n := range names[:min(len(names), most)] {
		if len(n) > longest {
			continue
		}
		if d := serving.Edits(name, n, distance); d < distance && d < len(name) {
			best, distance = n, d
		}
	}
	return best
}
