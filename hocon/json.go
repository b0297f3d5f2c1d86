package hocon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
)

// encodeJSON writes a value as JSON in raw UTF-8, on one line. The SDK reads such text as HOCON,
// but does not decode \uXXXX, so only characters that require an escape are escaped: not <, > and
// &, not U+2028 and U+2029.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(ordered(v)); err != nil {
		return nil, fmt.Errorf("write as JSON: %w", err)
	}
	return escapes.ReplaceAllFunc(bytes.TrimSuffix(b.Bytes(), []byte("\n")), func(escape []byte) []byte {
		switch string(escape) {
		case `\u2028`:
			return []byte("\u2028")
		case `\u2029`:
			return []byte("\u2029")
		}
		return escape
	}), nil
}

// escapes matches an escaped backslash too, so that the text after it is not taken for an escape.
var escapes = regexp.MustCompile(`\\(u202[89]|.)`)

// JSON writes the object as JSON, keys in their order, in raw UTF-8.
func (o *Object) JSON() ([]byte, error) {
	if o == nil {
		return []byte("{}"), nil
	}
	return encodeJSON(o)
}

// ordered prepares a value for encoding/json. Object itself has no MarshalJSON, so that no log shows
// the secrets of a configuration.
func ordered(v any) any {
	switch v := v.(type) {
	case *Object:
		return (*orderedObject)(v)
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = ordered(item)
		}
		return list
	}
	return v
}

type orderedObject Object

// MarshalJSON writes the keys in their order.
func (o *orderedObject) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, key := range o.keys {
		if i > 0 {
			b = append(b, ',')
		}
		name, err := encodeJSON(key)
		if err != nil {
			return nil, err
		}
		value, err := encodeJSON(o.values[key])
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// isJSON reports whether a text is a JSON object as a whole.
func isJSON(text []byte) bool {
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(text)
}
