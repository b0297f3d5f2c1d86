package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"clearmlserving/serving"
)

// object is a JSON object whose fields keep their order.
type object []field

type field struct {
	key   string
	value any
}

// MarshalJSON writes the fields in order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(f.key)
		if err != nil {
			return nil, err
		}
		value, err := marshal(f.value)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", f.key, err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal without the escapes meant for HTML, and with a point
// in every float, so that Python reads back what it wrote.
func marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case float64:
		if text := pyFloat(v); !strings.ContainsAny(text, "in") { // inf and nan are no JSON
			return []byte(text), nil
		}
	case *float64:
		if v != nil {
			return marshal(*v)
		}
	case []float64:
		parts := make([]string, len(v))
		for i, f := range v {
			part, err := marshal(f)
			if err != nil {
				return nil, err
			}
			parts[i] = string(part)
		}
		return []byte("[" + strings.Join(parts, ",") + "]"), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// indented writes a value as JSON with an indent of two, as json.dumps of Python
// does: plain ASCII, so that it survives every terminal and pipe.
func indented(v any) (string, error) {
	text, err := marshal(v)
	if err != nil {
		return "", fmt.Errorf("write as JSON: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return "", fmt.Errorf("write as JSON: %w", err)
	}
	return ascii(b.String()), nil
}

// ascii replaces everything outside of ASCII by \u escapes. It is given JSON, where
// such characters stand in texts only.
func ascii(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r < 0x80 {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// sorted makes an object of a map, in the order of its keys.
func sorted[T, V any](m map[string]T, value func(T) V) object {
	o := make(object, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		o = append(o, field{key, value(m[key])})
	}
	return o
}

// showRecord is a record with its stored names; unset fields are nil.
func showRecord[T any](record T) object {
	o := object{}
	for name, value := range serving.Fields(record) {
		o = append(o, field{name, value})
	}
	return o
}

// orNull is nil for an empty text, as unset fields are printed.
func orNull[T ~string](text T) any {
	if text == "" {
		return nil
	}
	return string(text)
}

// keys lists the keys of a map in order.
func keys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// orNullList is nil for a list that was never given.
func orNullList[T any](list []T) any {
	if list == nil {
		return nil
	}
	return list
}

// plural is "1 file", "2 files".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
