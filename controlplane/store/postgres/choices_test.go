package postgres

import (
	"strings"
	"testing"
)

// PostgreSQL takes a minute to read some patterns, and others mean something else there: Go
// looks for those itself.
func TestPatternsThatPostgreSQLIsSlowToReadAreNotHandedToIt(t *testing.T) {
	for _, c := range []struct {
		pattern string
		handed  bool
	}{
		{"^abc.*def$", true},
		{`(?i)IRIS .* \d*77 of`, true},
		{`^a\.b\z`, true},
		{"(a+)+$", false},
		{"(?i)some words? or (one|the other)", false},
		{strings.Repeat("[a-z]", 1000), false},
		{"[0-9a-f]{32}", false},
		{`a\b`, false},
		{`(?im)^a`, false},
		{`a\s`, false},
		{`\x41`, false},
		{`\pL`, false},
		{`^*`, false},
		{"é", false},
		{"a\nb", false},
		{strings.Repeat("a?", 40), true},
		{"^" + strings.Repeat("a?", 500) + strings.Repeat("a", 500) + "$", false},
		{strings.Repeat("(.*)", 200), false},
		{"(a?){200}", false},
		{"a{0,200}", false},
		{"(a{1,10}b{1,10}){30}", false},
		{strings.Repeat("(a|bc)", 100), false},
	} {
		if _, ok := samePattern("name", c.pattern); ok != c.handed {
			t.Errorf("%.40s: handed to PostgreSQL %v, want %v", c.pattern, ok, c.handed)
		}
	}
}
