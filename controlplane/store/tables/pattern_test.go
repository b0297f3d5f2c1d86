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

func TestTextsInAnyCaseAreFoundByWhatDatabasesKnowOfCases(t *testing.T) {
	for pattern, want := range map[string]Folded{
		`(?i)Abc`:    {Like: "%ABC%", Loose: "%ABC%"},
		`(?i)task`:   {Like: "%TASK%", Loose: "%TA__%", From: "\u017f\u212a", To: "SK"},
		`(?i)50%_\\`: {Like: `%50\%\_\\%`, Loose: `%50\%\_\\%`},
		`(?i)é模`:     {Like: "%É模%", Loose: "%_模%", From: "é", To: "É"},
	} {
		if got, ok := FoldedSubstring(pattern); !ok || got != want {
			t.Errorf("%s: got %q %v, want %q", pattern, got, ok, want)
		}
	}
	for _, pattern := range []string{`abc`, `(?i)a.c`, `(?i)a\x00`, `(?i)^a`} {
		if got, ok := FoldedSubstring(pattern); ok {
			t.Errorf("%s: got %q", pattern, got)
		}
	}
}
