package clearml

import (
	"encoding/json"
	"log/slog"
	"strings"
)

// Setting is a value and its source, for doctor and for errors.
type Setting struct {
	Value string
	From  string // such as "environment variable CLEARML_API_HOST"
}

// Secret is a Setting that prints, logs and JSON do not show.
type Secret struct {
	From  string
	value string
}

// NewSecret wraps a secret value.
func NewSecret(value, from string) Secret { return Secret{From: from, value: value} }

// Reveal returns the value.
func (s Secret) Reveal() string { return s.value }

// IsSet reports whether there is a value.
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
