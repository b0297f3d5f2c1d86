package sqlite

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"

	"modernc.org/sqlite"

	"clearmlserving/controlplane/store"
)

// registerRegexp gives SQLite the function re_match(pattern, text) for patterns that are
// more than a piece of text. The driver knows functions per program, not per database.
var registerRegexp = sync.OnceValue(func() error {
	patterns := &compiled{byText: map[string]*regexp.Regexp{}}
	return sqlite.RegisterDeterministicScalarFunction("re_match", 2, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		pattern, ok := args[0].(string)
		if !ok {
			return nil, fmt.Errorf("pattern is %T", args[0])
		}
		text, ok := args[1].(string)
		if !ok {
			return nil, nil
		}
		re, err := patterns.get(pattern)
		if err != nil {
			return nil, err
		}
		return re.MatchString(text), nil
	})
})

// compiled keeps the patterns of running queries, so that each row doesn't compile anew.
type compiled struct {
	mu     sync.Mutex // guards byText
	byText map[string]*regexp.Regexp
}

func (c *compiled) get(pattern string) (*regexp.Regexp, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if re, ok := c.byText[pattern]; ok {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	if len(c.byText) >= 64 {
		clear(c.byText)
	}
	c.byText[pattern] = re
	return re, nil
}

// compileRegexp uses what an index or a plain search can do for patterns that are text,
// such as ^exact\ name$, and the function for the others.
func compileRegexp(kind store.Kind, col string, re *regexp.Regexp) condition {
	if text, ok := foldedLiteral(re.String()); ok {
		// LIKE knows the cases of ASCII letters. Only k and s have further forms, the signs
		// of Kelvin and of the long s.
		like := col + ` LIKE ? ESCAPE '\'`
		pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
		if !strings.ContainsAny(text, "ks") {
			return searched(kind, col, like, pattern)
		}
		return searched(kind, col, "("+like+" OR (octet_length("+col+") <> length("+col+") AND re_match(?, "+col+")))", pattern, re.String())
	}
	text, start, end, ok := literal(re.String())
	switch {
	case !ok || strings.ContainsRune(text, 0) || (end && !start):
		return searched(kind, col, "re_match(?, "+col+")", re.String())
	case start && end:
		return condition{sql: "d." + col + " = ?", args: []any{text}, exact: true}
	case start:
		return condition{
			sql:   "d." + col + " >= ? AND d." + col + " < ? AND substr(d." + col + ", 1, length(?)) = ?",
			args:  []any{text, text + "\U0010ffff", text, text},
			exact: true,
		}
	}
	return searched(kind, col, "instr("+col+", ?) > 0", text)
}

// searched is a condition that must look at each value of a column. Names are searched
// in their index, which holds nothing else, before the documents are looked at.
func searched(kind store.Kind, col, sql string, args ...any) condition {
	if col != "name" {
		return condition{sql: sql, args: args, exact: true}
	}
	return condition{
		sql:   "d.seq IN (SELECT seq FROM documents WHERE kind = ? AND " + sql + ")",
		args:  append([]any{kind}, args...),
		exact: true,
	}
}

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

// foldedLiteral takes a pattern that is an ASCII text in any case, and returns that text
// in small letters.
func foldedLiteral(pattern string) (string, bool) {
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
