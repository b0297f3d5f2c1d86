package hocon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// EncodeJSON writes a value as JSON in raw UTF-8, on one line. The SDK reads such text as HOCON,
// but does not decode \uXXXX, so only characters that require an escape are escaped: not <, > and
// &, not U+2028 and U+2029.
func EncodeJSON(v any) (string, error) {
	if o, ok := v.(*Object); ok {
		v = jsonObject{o}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("write as JSON: %w", err)
	}
	return rawSeparators(strings.TrimSuffix(b.String(), "\n")), nil
}

// rawSeparators undoes the escapes of U+2028 and U+2029, which encoding/json
// always makes, and leaves an escaped backslash before "u2028" alone.
func rawSeparators(text string) string {
	if !strings.Contains(text, `\u202`) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		switch {
		case strings.HasPrefix(text[i:], `\u2028`):
			b.WriteRune('\u2028')
			i += 5
		case strings.HasPrefix(text[i:], `\u2029`):
			b.WriteRune('\u2029')
			i += 5
		default: // an escape is never at the end of valid JSON
			b.WriteString(text[i : i+2])
			i++
		}
	}
	return b.String()
}

// JSON writes the object as JSON, keys in their order, in raw UTF-8.
func (o *Object) JSON() ([]byte, error) {
	text, err := EncodeJSON(o)
	return []byte(text), err
}

// jsonObject gives an Object to encoding/json with its keys in order.
type jsonObject struct{ o *Object }

func (j jsonObject) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	if err := writeJSON(&b, j.o); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeJSON(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case *Object:
		b.WriteByte('{')
		for i, key := range v.Keys() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, key); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeJSON(b, v.values[key]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	default:
		text, err := EncodeJSON(v)
		b.WriteString(text)
		return err
	}
}

// parseJSON reads text that is a JSON object as a whole. JSON needs its own reader because the
// dialect has fewer escapes than JSON, and this product writes JSON.
func parseJSON(text []byte) (*Object, bool) {
	if trimmed := bytes.TrimLeft(text, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || !json.Valid(text) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := readJSON(dec, 0)
	if err != nil {
		return nil, false
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, false
	}
	o, ok := v.(*Object)
	return o, ok
}

func readJSON(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, opens := token.(json.Delim)
	if !opens {
		return token, nil
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			item, err := readJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = dec.Token()
		return list, err
	}
	o := &Object{values: map[string]any{}}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		value, err := readJSON(dec, depth+1)
		if err != nil {
			return nil, err
		}
		o.put(key.(string), value)
	}
	_, err = dec.Token()
	return o, err
}

// put adds a key while an object is read; objects with the same key are merged.
func (o *Object) put(key string, value any) {
	old, exists := o.values[key]
	if !exists {
		o.keys = append(o.keys, key)
	}
	oldObject, oldIs := old.(*Object)
	newObject, newIs := value.(*Object)
	if oldIs && newIs {
		value = Merge(oldObject, newObject)
	}
	o.values[key] = value
}
