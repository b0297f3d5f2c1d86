package clearml

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Time is a time in any of the formats that servers write. An unreadable time is the zero time: it
// does not fail the whole document.
type Time struct{ time.Time }

// UnmarshalJSON never fails.
func (t *Time) UnmarshalJSON(text []byte) error {
	*t = Time{}
	var s string
	if err := json.Unmarshal(text, &s); err == nil {
		t.Time = parseTime(s)
		return nil
	}
	if n, err := strconv.ParseFloat(string(text), 64); err == nil && math.Abs(n) < 1e15 {
		if math.Abs(n) > 1e11 { // milliseconds
			n /= 1000
		}
		whole, fraction := math.Modf(n)
		t.Time = time.Unix(int64(whole), int64(fraction*1e9)).UTC()
	}
	return nil
}

// MarshalJSON writes the time in UTC, null for the zero time.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(t.UTC().Format("2006-01-02T15:04:05.999999-07:00"))
}

var timeForms = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05Z0700", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02",
}

func parseTime(s string) time.Time {
	s = strings.Replace(strings.TrimSpace(s), " ", "T", 1)
	for _, form := range timeForms {
		if at, err := time.Parse(form, s); err == nil {
			return at.UTC()
		}
	}
	return time.Time{}
}

// Text is a text that some writers send as a number or a boolean.
type Text string

// UnmarshalJSON never fails; anything but a single value is "".
func (t *Text) UnmarshalJSON(text []byte) error {
	*t = ""
	var s string
	switch {
	case json.Unmarshal(text, &s) == nil:
		*t = Text(s)
	case len(text) > 0 && text[0] != '{' && text[0] != '[' && string(text) != "null":
		*t = Text(text)
	}
	return nil
}

// unmarshal decodes tolerantly: unknown keys are ignored, a value of an unexpected type leaves only
// its field empty, and NaN and Infinity, which Python's json module writes, are read as null.
func unmarshal(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = json.Unmarshal(pythonNumbers.ReplaceAllFunc(text, func(found []byte) []byte {
			if found[0] == '"' {
				return found
			}
			return []byte("null")
		}), into)
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil // encoding/json has decoded everything else
	}
	return err
}

// pythonNumbers matches numbers that are no JSON, and texts, which stay as they are.
var pythonNumbers = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"|NaN|-?Infinity`)
