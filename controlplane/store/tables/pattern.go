package tables

import (
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
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

// Folded is a text that is looked for in any case, by databases that know the cases of
// ASCII letters.
type Folded struct {
	// Like is a pattern of LIKE for the text, Loose one with any character in the place of
	// those that have further cases, such as k, which the sign of Kelvin is too.
	Like, Loose string
	// From are those cases, and To what each stands for in Like.
	From, To string
}

// FoldedSubstring takes a pattern that is a text in any case.
func FoldedSubstring(pattern string) (Folded, bool) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || parsed.Op != syntax.OpLiteral || parsed.Flags&syntax.FoldCase == 0 {
		return Folded{}, false
	}
	var f Folded
	for _, r := range parsed.Rune {
		if r == 0 || r == utf8.RuneError {
			return Folded{}, false
		}
		forms := []rune{r}
		for form := unicode.SimpleFold(r); form != r; form = unicode.SimpleFold(form) {
			forms = append(forms, form)
		}
		to := slices.Min(forms)
		f.Like += escapeLike(to)
		known := len(f.From)
		for _, form := range forms {
			if form >= utf8.RuneSelf && form != to {
				f.From, f.To = f.From+string(form), f.To+string(to)
			}
		}
		if len(f.From) > known {
			f.Loose += "_"
		} else {
			f.Loose += escapeLike(to)
		}
	}
	f.Like, f.Loose = "%"+f.Like+"%", "%"+f.Loose+"%"
	return f, true
}

func escapeLike(r rune) string {
	if r == '%' || r == '_' || r == '\\' {
		return `\` + string(r)
	}
	return string(r)
}

// lengthOf is the number of characters of a text, as SQL.
func lengthOf(text string) string { return strconv.Itoa(utf8.RuneCountInString(text)) }
