package store

import (
	"encoding/json"
	"regexp"
	"strconv"
)

// Expr is a condition on a document. Its meaning is Match; an adapter may answer it in
// any way that finds the same documents. It is one of And, Or, Not, In, Compare,
// Regexp, and Missing.
type Expr interface {
	// Match says whether the document fulfils the condition.
	Match(Doc) bool
}

// And holds when all of its conditions do; an empty one holds.
type And []Expr

// Or holds when one of its conditions does; an empty one never holds.
type Or []Expr

// Not holds when its condition doesn't.
type Not struct{ Expr Expr }

// In holds when a value of the field is one of Values: strings, numbers, or booleans
// as Decode makes them. A list has a value for each element.
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

// Compare holds when a value of the field stands so to Value: numbers with numbers,
// texts with texts (times are texts, see FormatTime); nothing else is ordered.
type Compare struct {
	Path  Path
	Op    Op
	Value any
}

// Regexp holds when the pattern is found in a text of the field.
type Regexp struct {
	Path    Path
	Pattern *regexp.Regexp
}

// Missing holds when the field is absent, null, "", or an empty list or object.
type Missing struct{ Path Path }

// Match implements Expr.
func (e And) Match(d Doc) bool {
	for _, part := range e {
		if !part.Match(d) {
			return false
		}
	}
	return true
}

// Match implements Expr.
func (e Or) Match(d Doc) bool {
	for _, part := range e {
		if part.Match(d) {
			return true
		}
	}
	return false
}

// Match implements Expr.
func (e Not) Match(d Doc) bool { return !e.Expr.Match(d) }

// Match implements Expr.
func (e In) Match(d Doc) bool {
	return anyValue(map[string]any(d), e.Path, func(v any) bool {
		for _, want := range e.Values {
			if Equal(v, want) {
				return true
			}
		}
		return false
	})
}

// Match implements Expr.
func (e Compare) Match(d Doc) bool {
	return anyValue(map[string]any(d), e.Path, func(v any) bool {
		c, ok := compare(v, e.Value)
		if !ok {
			return false
		}
		switch e.Op {
		case Less:
			return c < 0
		case LessEqual:
			return c <= 0
		case Greater:
			return c > 0
		case GreaterEqual:
			return c >= 0
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

// anyValue says whether f holds for a value at the path, going into lists on the way
// and at its end.
func anyValue(at any, path Path, f func(any) bool) bool {
	if list, ok := at.([]any); ok {
		for _, v := range list {
			if anyValue(v, path, f) {
				return true
			}
		}
		return false
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

// Equal says whether two plain values are the same: numbers by their value, whatever
// their digits, everything else only within its own JSON type.
func Equal(a, b any) bool {
	if x, ok := asNumber(a); ok {
		y, ok := asNumber(b)
		return ok && x == y
	}
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && a == b
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	}
	return false
}

// compare orders two numbers or two texts.
func compare(a, b any) (int, bool) {
	if x, ok := asNumber(a); ok {
		y, ok := asNumber(b)
		switch {
		case !ok:
			return 0, false
		case x < y:
			return -1, true
		case x > y:
			return 1, true
		}
		return 0, true
	}
	x, ok := a.(string)
	y, too := b.(string)
	switch {
	case !ok || !too:
		return 0, false
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	}
	return 0, true
}

func asNumber(v any) (float64, bool) {
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
