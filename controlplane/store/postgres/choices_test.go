package postgres

import (
	"strings"
	"testing"
)

// PostgreSQL takes a minute to read some patterns; Go looks for those itself.
func TestPatternsThatPostgreSQLIsSlowToReadAreNotHandedToIt(t *testing.T) {
	for _, c := range []struct {
		pattern string
		handed  bool
	}{
		{"^abc.*def$", true},
		{"(a+)+$", true},
		{"(?i)some words? or (one|the other)", true},
		{strings.Repeat("[a-z]", 1000), true},
		{"[0-9a-f]{32}", true},
		{strings.Repeat("a?", 40), true},
		{"^" + strings.Repeat("a?", 500) + strings.Repeat("a", 500) + "$", false},
		{strings.Repeat("(.*)", 200), false},
		{"(a?){200}", false},
		{"a{0,200}", false},
		{"(a{1,10}b{1,10}){30}", false},
		{strings.Repeat("(a|bc)", 100), false},
	} {
		if _, ok := translate(c.pattern); ok != c.handed {
			t.Errorf("%.40s: handed to PostgreSQL %v, want %v", c.pattern, ok, c.handed)
		}
	}
}
