package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"

	"clearmlserving/controlplane/store"
)

// parseEvents reads the events of a batch: one JSON object per line, as the SDK sends
// them, or one object, a list, or {"events": […]}. Blank lines are skipped.
// Bare NaN and Infinity, which Python writes although JSON lacks them, become null.
func parseEvents(body []byte) ([]store.Doc, error) {
	body = bytes.TrimSpace(withoutNaN(body))
	if len(body) == 0 {
		return nil, nil
	}
	if whole, err := decodeAny(body); err == nil {
		return eventsOf(whole, 1)
	}
	var events []store.Doc
	number := 0
	for line := range bytes.Lines(body) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		v, err := decodeAny(line)
		if err != nil {
			return nil, badRequest("Malformed JSON in line %d: %v", number, err)
		}
		event, ok := v.(map[string]any)
		if !ok {
			return nil, badRequest("Line %d is not a JSON object", number)
		}
		events = append(events, event)
	}
	return events, nil
}

// eventsOf returns the events of a body that is one JSON value.
func eventsOf(v any, depth int) ([]store.Doc, error) {
	switch v := v.(type) {
	case map[string]any:
		if list, ok := v["events"].([]any); ok && depth > 0 {
			return eventsOf(list, depth-1)
		}
		return []store.Doc{v}, nil
	case []any:
		events := make([]store.Doc, 0, len(v))
		for i, item := range v {
			event, ok := item.(map[string]any)
			if !ok {
				return nil, badRequest("Item %d of the batch is not a JSON object", i)
			}
			events = append(events, event)
		}
		return events, nil
	}
	return nil, badRequest("A batch is JSON objects, one a line")
}

// decodeAny reads exactly one JSON value; numbers keep their digits.
func decodeAny(text []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

// withoutNaN replaces the bare words NaN, Infinity, and -Infinity by null, outside of
// strings. It may return its input.
func withoutNaN(text []byte) []byte {
	if !bytes.Contains(text, []byte("NaN")) && !bytes.Contains(text, []byte("Infinity")) {
		return text
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		n := bytes.IndexByte(text, '"')
		if n < 0 {
			n = len(text)
		}
		end := textEnd(text, n)
		out = append(append(out, bareWords.ReplaceAll(text[:n], []byte("null"))...), text[n:end]...)
		text = text[end:]
	}
	return out
}

var bareWords = regexp.MustCompile(`NaN|-?Infinity`)

// textEnd returns the index after the JSON string that begins at i.
func textEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		case '\n': // not allowed in a string: it was never closed
			return i
		}
	}
	return len(text)
}
