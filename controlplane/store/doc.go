package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Doc is a document: a JSON object as clients get it. Its values are those of Decode: string,
// json.Number, bool, nil, map[string]any, []any. So numbers keep their digits.
type Doc map[string]any

// Path leads to a field: one element per level, so that keys may contain dots. A list on the
// path means each of its elements.
type Path []string

// ID returns the document's id.
func (d Doc) ID() string { return d.Text("id") }

// Text returns the string at a path, "" if there is none.
func (d Doc) Text(path ...string) string {
	s, _ := d.At(path...).(string)
	return s
}

// At returns the value at a path of objects, nil if there is none.
func (d Doc) At(path ...string) any {
	var at any = map[string]any(d)
	for _, key := range path {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[key]
	}
	return at
}

// Object returns the object under a key, for reading or writing; a missing one is created.
func (d Doc) Object(key string) map[string]any {
	if object, ok := d[key].(map[string]any); ok {
		return object
	}
	object := map[string]any{}
	d[key] = object
	return object
}

// Strings returns the strings of the list at a path.
func (d Doc) Strings(path ...string) []string {
	list, _ := d.At(path...).([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Objects returns the objects of the list at a path.
func (d Doc) Objects(path ...string) []Doc {
	list, _ := d.At(path...).([]any)
	var out []Doc
	for _, v := range list {
		if object, ok := v.(map[string]any); ok {
			out = append(out, object)
		}
	}
	return out
}

// Int returns the whole number at a path, 0 if there is none.
func (d Doc) Int(path ...string) int64 {
	n, _ := Number(d.At(path...))
	return int64(n)
}

// Encode returns the document as JSON, with strings in plain UTF-8.
func (d Doc) Encode() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]any(d)); err != nil {
		return nil, fmt.Errorf("encode document %q: %w", d.ID(), err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Decode reads one JSON object; numbers keep their digits.
func Decode(text []byte) (Doc, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var doc Doc
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return doc, nil
}

// timeLayout has a fixed width and UTC, so that times sort as texts.
const timeLayout = "2006-01-02T15:04:05.000000+00:00"

// FormatTime returns a time in the form of documents: ISO 8601 in UTC with an offset and
// microseconds. These texts sort like the times.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime reads a time written by FormatTime.
func ParseTime(text string) (time.Time, error) {
	t, err := time.Parse(timeLayout, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("read time %q: %w", text, err)
	}
	return t, nil
}
