package tables

import (
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// literal returns the text of a pattern that is a plain text, and whether it is anchored at the
// start and the end.
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

// Substring returns the text of a pattern that is an unanchored plain text.
func Substring(pattern string) (string, bool) {
	text, start, end, ok := literal(pattern)
	return text, ok && !start && !end && !strings.ContainsRune(text, 0)
}

// Folded is a text to search in any case, for databases that know the cases of ASCII letters.
type Folded struct {
	// Like is a pattern of LIKE for the text. Loose is the same with any character in the place
	// of those with more cases, such as k, whose cases include the Kelvin sign.
	Like, Loose string
	// From are these cases, and To their replacements in Like.
	From, To string
}

// FoldedSubstring returns the text of a pattern that is a text in any case.
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
