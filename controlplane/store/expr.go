package store

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Expr is a condition on a document. Match defines its meaning; an adapter may evaluate it in
// any way that finds the same documents. It is one of And, Or, Not, In, Compare,
// Regexp, and Missing.
type Expr interface {
	// Match says whether the document meets the condition.
	Match(Doc) bool
}

// And holds if all of its conditions do; an empty one holds.
type And []Expr

// Or holds if one of its conditions does; an empty one never holds.
type Or []Expr

// Not holds if its condition does not.
type Not struct{ Expr Expr }

// In holds if a value of the field is one of Values: strings, numbers, or booleans as from
// Decode. Each element of a list is a value of the field.
type In struct {
	Path   Path
	Values []any
}

// Op is a comparison.
type Op string

// The comparisons.
const (
	Less         Op = "<"
	LessEqual    Op = "<="
	Greater      Op = ">"
	GreaterEqual Op = ">="
)

// Compare holds if the comparison of a value of the field with Value does: numbers with
// numbers, texts with texts (times are texts, see FormatTime). Nothing else is ordered.
type Compare struct {
	Path  Path
	Op    Op
	Value any
}

// Regexp holds if the pattern is found in a text of the field.
type Regexp struct {
	Path    Path
	Pattern *regexp.Regexp
}

// Missing holds if the field is absent, null, "", or an empty list or object.
type Missing struct{ Path Path }

// Match implements Expr.
func (e And) Match(d Doc) bool {
	return !slices.ContainsFunc(e, func(part Expr) bool { return !part.Match(d) })
}

// Match implements Expr.
func (e Or) Match(d Doc) bool {
	return slices.ContainsFunc(e, func(part Expr) bool { return part.Match(d) })
}

// Match implements Expr.
func (e Not) Match(d Doc) bool { return !e.Expr.Match(d) }

// Match implements Expr.
func (e In) Match(d Doc) bool {
	return anyValue(map[string]any(d), e.Path, func(v any) bool {
		return slices.ContainsFunc(e.Values, func(want any) bool { return Equal(v, want) })
	})
}

// Match implements Expr.
func (e Compare) Match(d Doc) bool {
	return anyValue(map[string]any(d), e.Path, func(v any) bool {
		c, ok := compare(v, e.Value)
		switch e.Op {
		case Less:
			return ok && c < 0
		case LessEqual:
			return ok && c <= 0
		case Greater:
			return ok && c > 0
		case GreaterEqual:
			return ok && c >= 0
		}
		return false
	})
}

// Match implements Expr.
func (e Regexp) Match(d Doc) bool {
	return anyValue(map[string]any(d), e.Path, func(v any) bool {
		text, ok := v.(string)
		return ok && e.Pattern.MatchString(text)
	})
}

// Match implements Expr.
func (e Missing) Match(d Doc) bool {
	return !anyValue(map[string]any(d), e.Path, func(v any) bool {
		switch v := v.(type) {
		case nil:
			return false
		case string:
			return v != ""
		case map[string]any:
			return len(v) > 0
		}
		return true
	})
}

// Each calls f with each value at a path, also within lists on the path and at its end.
func (d Doc) Each(path Path, f func(any)) {
	anyValue(map[string]any(d), path, func(v any) bool {
		f(v)
		return false
	})
}

// anyValue says whether f holds for a value at the path, also within lists on the path and
// at its end.
func anyValue(at any, path Path, f func(any) bool) bool {
	if list, ok := at.([]any); ok {
		return slices.ContainsFunc(list, func(v any) bool { return anyValue(v, path, f) })
	}
	if len(path) == 0 {
		return f(at)
	}
	object, ok := at.(map[string]any)
	if !ok {
		return false
	}
	v, ok := object[path[0]]
	return ok && anyValue(v, path[1:], f)
}

// Equal says whether two plain values are equal: numbers by value, independent of their
// digits, everything else only within its JSON type.
func Equal(a, b any) bool {
	if x, ok := a.(bool); ok {
		y, ok := b.(bool)
		return ok && x == y
	}
	c, ok := compare(a, b)
	return ok && c == 0
}

// compare orders two numbers or two texts.
func compare(a, b any) (int, bool) {
	if x, ok := Number(a); ok {
		y, ok := Number(b)
		return cmp.Compare(x, y), ok
	}
	x, ok := a.(string)
	y, too := b.(string)
	return strings.Compare(x, y), ok && too
}

// Number converts a number of a document, or of Go.
func Number(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := strconv.ParseFloat(v.String(), 64)
		return n, err == nil
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
