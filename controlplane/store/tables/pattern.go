package tables

import (
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

// literal takes apart a pattern that is a text, perhaps bound to the start or the end.
func literal(pattern string) (text string, start, end, ok bool) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", false, false, false
	}
	parts := []*syntax.Regexp{parsed}
	if parsed.Op == syntax.OpConcat {
		parts = parsed.Sub
	}
	if len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
		start, parts = true, parts[1:]
	}
	if n := len(parts); n > 0 && parts[n-1].Op == syntax.OpEndText {
		end, parts = true, parts[:n-1]
	}
	if len(parts) != 1 || parts[0].Op != syntax.OpLiteral || parts[0].Flags&syntax.FoldCase != 0 {
		return "", false, false, false
	}
	return string(parts[0].Rune), start, end, true
}

// Substring returns the text that a pattern without bounds looks for, if it is one.
func Substring(pattern string) (string, bool) {
	text, start, end, ok := literal(pattern)
	return text, ok && !start && !end && !strings.ContainsRune(text, 0)
}

// FoldedSubstring takes a pattern that is an ASCII text in any case, and returns that
// text in small letters.
func FoldedSubstring(pattern string) (string, bool) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || parsed.Op != syntax.OpLiteral || parsed.Flags&syntax.FoldCase == 0 {
		return "", false
	}
	for _, r := range parsed.Rune {
		if r == 0 || r >= utf8.RuneSelf {
			return "", false
		}
	}
	return strings.ToLower(string(parsed.Rune)), true
}

// lengthOf is the number of characters of a text, as SQL.
func lengthOf(text string) string { return strconv.Itoa(utf8.RuneCountInString(text)) }
