package engine

import (
	"bytes"
	"encoding/json"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"clearmlserving/serving"
)

// Limits of what is learned from requests.
const (
	maxLearned   = 200      // exchanges
	maxLearnBody = 64 << 10 // bytes of a body or an answer
	maxParts     = 2000     // of a schema
	maxDeep      = 16
	maxKeys      = 200 // of one object: more are a map
	maxKey       = 256 // bytes of a name; a longer one is not described
)

// Lessons are what golden samples and recorded requests tell of an endpoint: a body that its model has
// answered, and what all bodies and all answers have in common. One goroutine uses them.
type Lessons struct {
	count        int
	body, answer *shape
	example      json.RawMessage
	exampleOf    string
}

// Add learns from an exchange; of is ExampleGolden or ExampleRecorded. It returns false if there was nothing to
// learn: enough are known, fields are blanked, the body is not JSON, or it had no good answer.
func (l *Lessons) Add(e serving.Exchange, of string) bool {
	if l.count >= maxLearned || !usable(e) {
		return false
	}
	body, ok := decoded(e.Body)
	if !ok {
		return false
	}
	if l.count++; l.count == 1 {
		l.body, l.answer = newShape(), newShape()
	}
	if l.exampleOf == "" || (l.exampleOf == ExampleRecorded && of == ExampleGolden) {
		l.example, l.exampleOf = compact(e.Body), of
	}
	l.body.see(body, 0)
	if answer, ok := decoded(e.Answer); ok {
		l.answer.see(answer, 0)
	} else {
		l.answer.unknown = true
	}
	return true
}

// usable reports whether an exchange has a body that a client may send again, and a good answer.
func usable(e serving.Exchange) bool {
	kind, _, err := mime.ParseMediaType(e.ContentType)
	isJSON := e.ContentType == "" || err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
	return isJSON && !e.Redacted && e.Status >= 200 && e.Status < 300
}

// decoded is a JSON text, if it is one and not too large to look at.
func decoded(text []byte) (value any, ok bool) {
	if len(text) > maxLearnBody || !utf8.Valid(text) || !json.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return value, d.Decode(&value) == nil
}

func compact(text []byte) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return bytes.Clone(text)
	}
	return b.Bytes()
}

// Apply is s with the lessons: an example instead of a made one, and schemas where nothing else describes body or
// answer.
func (l *Lessons) Apply(s Signature) Signature {
	if l.count == 0 {
		return s
	}
	told := false
	if s.ExampleOf == "" || s.ExampleOf == ExampleMade {
		s.Example, s.ExampleOf, told = l.example, l.exampleOf, true
	}
	if schema := l.body.json(); schema != nil && s.Body() == nil {
		s.BodySchema, told = schema, true
	}
	if schema := l.answer.json(); schema != nil && s.AnswerSchema == nil {
		s.AnswerSchema, told = schema, true
	}
	if told {
		s.Source = s.Also(SourceRequests)
	}
	return s
}

// Also is the Source of s with one more.
func (s Signature) Also(source string) string {
	switch {
	case s.Source == "" || s.Source == SourceNone:
		return source
	case source == "" || source == SourceNone:
		return s.Source
	}
	if slices.Contains(strings.Split(s.Source, ", "), source) {
		return s.Source
	}
	return s.Source + ", " + source
}

// shape is what the values at one place have in common.
type shape struct {
	parts   *int // how many more places there may be
	unknown bool // values there are not looked at

	null, boolean, text, number bool

	lists   bool
	items   *shape
	objects int
	keys    map[string]*key
}

// key is a member of objects.
type key struct {
	shape

	in int // how many objects have it
}

func newShape() *shape {
	parts := maxParts
	return &shape{parts: &parts}
}

func (s *shape) see(value any, depth int) {
	if s.unknown {
		return
	}
	switch v := value.(type) {
	case nil:
		s.null = true
	case bool:
		s.boolean = true
	case string:
		s.text = true
	case json.Number:
		s.number = true
	case []any:
		if s.lists = true; s.items == nil {
			part := s.part(depth)
			s.items = &part
		}
		for _, one := range v {
			s.items.see(one, depth+1)
		}
	case map[string]any:
		s.object(v, depth)
	}
}

func (s *shape) object(members map[string]any, depth int) {
	if s.objects++; s.objects == 1 {
		s.keys = map[string]*key{}
	}
	for name, value := range members {
		if s.keys == nil { // too many
			return
		}
		k := s.keys[name]
		switch {
		case k == nil && (*s.parts <= 0 || len(name) > maxKey):
			continue
		case k == nil && len(s.keys) == maxKeys:
			s.keys = nil
			return
		case k == nil:
			k = &key{shape: s.part(depth)}
			s.keys[name] = k
		}
		k.in++
		k.see(value, depth+1)
	}
}

// part is a new place below this one. What is too deep, or one too many, is not looked at.
func (s *shape) part(depth int) shape {
	*s.parts--
	return shape{parts: s.parts, unknown: *s.parts < 0 || depth >= maxDeep}
}

// json is the JSON Schema of the values, nil if nothing is known of them.
func (s *shape) json() json.RawMessage {
	schema := s.schema()
	if len(schema) == 0 {
		return nil
	}
	return encoded(schema)
}

func (s *shape) schema() map[string]any {
	schema := map[string]any{}
	var types []string
	for _, t := range []struct {
		seen bool
		name string
	}{
		{s.objects > 0, "object"}, {s.lists, "array"}, {s.text, "string"}, {s.number, "number"}, {s.boolean, "boolean"}, {s.null, "null"},
	} {
		if t.seen {
			types = append(types, t.name)
		}
	}
	switch {
	case s.unknown || len(types) == 0:
		return schema
	case len(types) == 1:
		schema["type"] = types[0]
	default:
		schema["type"] = types
	}
	if s.lists {
		if items := s.items.schema(); len(items) > 0 {
			schema["items"] = items
		}
	}
	if len(s.keys) == 0 {
		return schema
	}
	properties, required := map[string]any{}, []string{}
	for _, name := range slices.Sorted(maps.Keys(s.keys)) {
		properties[name] = s.keys[name].schema()
		if s.keys[name].in == s.objects {
			required = append(required, name)
		}
	}
	if schema["properties"] = properties; len(required) > 0 {
		schema["required"] = required
	}
	return schema
}
