package clearml

import (
	"encoding/json"
	"log/slog"
	"strings"
)

// Setting is a value and where it came from, for doctor and for errors.
type Setting struct {
	Value string
	From  string // like "environment variable CLEARML_API_HOST"
}

// Secret is a Setting that no print, log or JSON shows.
type Secret struct {
	From  string
	value string
}

// NewSecret wraps a secret value.
func NewSecret(value, from string) Secret { return Secret{From: from, value: value} }

// Reveal gives the value itself.
func (s Secret) Reveal() string { return s.value }

// IsSet tells whether there is a value.
func (s Secret) IsSet() bool { return s.value != "" }

func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return "[redacted]"
}

// GoString keeps the value out of %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the value out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON keeps the value out of JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

func secret(s Setting) Secret {
	if s.Value == "" {
		return Secret{}
	}
	return Secret{From: s.From, value: s.Value}
}

func trimSlash(s Setting) Setting {
	s.Value = strings.TrimRight(s.Value, "/")
	if s.Value == "" {
		s.From = ""
	}
	return s
}
