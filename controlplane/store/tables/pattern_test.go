package tables

import (
	"regexp"
	"testing"
)

func TestLiteralPatternsAreRecognised(t *testing.T) {
	for _, c := range []struct {
		pattern, text  string
		start, end, ok bool
	}{
		{`^serving\ examples$`, "serving examples", true, true, true},
		{`abc`, "abc", false, false, true},
		{`^a\.b`, "a.b", true, false, true},
		{`a/b\-c$`, "a/b-c", false, true, true},
		{`^a.b$`, "", false, false, false},
		{`(?i)abc`, "", false, false, false},
		{`(?m)^abc$`, "", false, false, false},
		{`^(abc)$`, "", false, false, false},
		{`a|b`, "", false, false, false},
		{``, "", false, false, false},
		{`^$`, "", false, false, false},
	} {
		text, start, end, ok := literal(regexp.MustCompile(c.pattern).String())
		if ok != c.ok || (ok && (text != c.text || start != c.start || end != c.end)) {
			t.Errorf("%s: got %q %v %v %v", c.pattern, text, start, end, ok)
		}
	}
}
