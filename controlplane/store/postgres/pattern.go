package postgres

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxRepeat is how often PostgreSQL lets a piece of a pattern repeat.
const maxRepeat = 255

// maxChoices bounds the choices that a pattern leaves open when PostgreSQL reads it: the
// time that takes grows steeply with them, a minute for 500 letters that are optional.
const maxChoices = 50

// translate writes one of Go's patterns in PostgreSQL's language, so that it is found in
// the same texts. What finds first or longest makes no difference to that. It refuses
// what has no exact counterpart, such as word boundaries, and what PostgreSQL is slow
// to read.
func translate(pattern string) (string, bool) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil || choices(parsed) > maxChoices {
		return "", false
	}
	var out strings.Builder
	if !write(&out, parsed) {
		return "", false
	}
	return out.String(), true
}

// choices counts what is optional, repeats, or has alternatives, as often as it repeats
// itself. Go bounds how often that is, so it doesn't overflow.
func choices(re *syntax.Regexp) int {
	n := 0
	for _, part := range re.Sub {
		n += choices(part)
	}
	switch re.Op {
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		n++
	case syntax.OpRepeat:
		times := max(re.Min, re.Max)
		n = n*max(times, 1) + times - re.Min + 1
	case syntax.OpAlternate:
		n += len(re.Sub) - 1
	}
	return n
}

func write(out *strings.Builder, re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch:
		out.WriteString("(?:)")
		return true
	case syntax.OpLiteral:
		return writeLiteral(out, re)
	case syntax.OpCharClass:
		return writeClass(out, re.Rune)
	case syntax.OpAnyCharNotNL:
		out.WriteString(`[^\n]`)
		return true
	case syntax.OpAnyChar:
		out.WriteString(".")
		return true
	case syntax.OpBeginText:
		out.WriteString(`\A`)
		return true
	case syntax.OpEndText:
		out.WriteString(`\Z`)
		return true
	case syntax.OpStar:
		return writeRepeat(out, re.Sub[0], "*")
	case syntax.OpPlus:
		return writeRepeat(out, re.Sub[0], "+")
	case syntax.OpQuest:
		return writeRepeat(out, re.Sub[0], "?")
	case syntax.OpRepeat:
		switch {
		case re.Min > maxRepeat || re.Max > maxRepeat:
			return false
		case re.Max < 0:
			return writeRepeat(out, re.Sub[0], fmt.Sprintf("{%d,}", re.Min))
		}
		return writeRepeat(out, re.Sub[0], fmt.Sprintf("{%d,%d}", re.Min, re.Max))
	case syntax.OpCapture:
		return writeGroup(out, re.Sub, "")
	case syntax.OpConcat:
		return writeGroup(out, re.Sub, "")
	case syntax.OpAlternate:
		return writeGroup(out, re.Sub, "|")
	}
	return false // a bound of lines or words, or what never matches
}

func writeGroup(out *strings.Builder, parts []*syntax.Regexp, between string) bool {
	out.WriteString("(?:")
	for i, part := range parts {
		if i > 0 {
			out.WriteString(between)
		}
		if !write(out, part) {
			return false
		}
	}
	out.WriteString(")")
	return true
}

// writeRepeat writes a piece that repeats. A bound of the text can't there.
func writeRepeat(out *strings.Builder, part *syntax.Regexp, times string) bool {
	if bounded(part) || !writeGroup(out, []*syntax.Regexp{part}, "") {
		return false
	}
	out.WriteString(times)
	return true
}

func bounded(re *syntax.Regexp) bool {
	if re.Op == syntax.OpBeginText || re.Op == syntax.OpEndText || re.Op == syntax.OpEmptyMatch {
		return true
	}
	return slices.ContainsFunc(re.Sub, bounded)
}

func writeLiteral(out *strings.Builder, re *syntax.Regexp) bool {
	for _, r := range re.Rune {
		if r == 0 || r == utf8.RuneError {
			return false // neither can be told from the other in a column
		}
		forms := []rune{r, r}
		if re.Flags&syntax.FoldCase != 0 {
			for form := unicode.SimpleFold(r); form != r; form = unicode.SimpleFold(form) {
				forms = append(forms, form, form)
			}
		}
		if len(forms) == 2 {
			out.WriteString(escape(r))
		} else if !writeClass(out, forms) {
			return false
		}
	}
	return true
}

// writeClass writes pairs of a first and a last character.
func writeClass(out *strings.Builder, pairs []rune) bool {
	if len(pairs) == 0 {
		return false
	}
	out.WriteString("[")
	for i := 0; i < len(pairs); i += 2 {
		lo, hi := max(pairs[i], 1), pairs[i+1]
		if hi < lo {
			continue // the one character that a column doesn't hold
		}
		out.WriteString(escape(lo))
		if hi > lo {
			out.WriteString("-" + escape(hi))
		}
	}
	out.WriteString("]")
	return true
}

// escape names a character so that it has no other meaning.
func escape(r rune) string {
	if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == ' ') {
		return string(r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}
