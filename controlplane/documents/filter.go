package documents

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"clearmlserving/controlplane/store"
)

// The operators among the items of a list filter.
const (
	OpPrefix = "__$"
	opAll    = "__$all"
	opAnd    = "__$and"
	opAny    = "__$any"
	opOr     = "__$or"
	opNot    = "__$not"
	opNop    = "__$nop"
)

// buckets are the values of a list filter by their operators. A nil value matches a field
// that is missing or empty.
type buckets struct {
	in, all, notIn []any
	// or: one of the buckets must hold; otherwise all must.
	or bool
}

// ListFilter reads a value or a list of values with operators among them:
//
//	["a", "b"]                 has a or b
//	["a", "-b"]                has a, and not b (honoured until an operator is seen)
//	["__$all", "a", "b"]       has a and b
//	["__$or", "a", "__$not", "b"]   has a, or has not b
func ListFilter(key string, value any) (store.Expr, error) {
	values := ListOf(value)
	if len(values) == 0 {
		return nil, nil
	}
	var b buckets
	var seen, all, not bool
	for _, v := range values {
		text, isText := v.(string)
		if isText && strings.HasPrefix(text, OpPrefix) {
			first := !seen
			seen = text != opNop // after it, the old form of excluding is valid again
			switch text {
			case opAll, opAnd:
				all, not = true, false
			case opAny, opOr:
				all, not, b.or = false, false, b.or || first
			case opNot: // does not decide how the buckets are joined
				not = true
			case opNop:
				all, not = false, false
			default:
				return nil, Refuse(SubFieldsValue, "Invalid field values: %s holds the unknown operator %s", key, text)
			}
			continue
		}
		switch {
		case v != nil && !plain(v):
			return nil, Invalid("%s must be a value or a list of values", key)
		case !seen && isText && len(text) > 1 && text[0] == '-':
			b.notIn = append(b.notIn, text[1:])
		case not:
			b.notIn = append(b.notIn, v)
			not = false
		case all:
			b.all = append(b.all, v)
		default:
			b.in = append(b.in, v)
		}
	}
	return b.expr(fieldPath(key)), nil
}

func plain(v any) bool {
	switch v.(type) {
	case string, json.Number, bool:
		return true
	}
	return false
}

func (b buckets) expr(path store.Path) store.Expr {
	var parts []store.Expr
	if len(b.in) > 0 {
		parts = append(parts, oneOf(path, b.in))
	}
	if len(b.all) > 0 {
		parts = append(parts, eachOf(path, b.all))
	}
	if len(b.notIn) > 0 {
		parts = append(parts, store.Not{Expr: oneOf(path, b.notIn)})
	}
	switch {
	case len(parts) == 0:
		return nil
	case len(parts) == 1:
		return parts[0]
	case b.or:
		return store.Or(parts)
	}
	return store.And(parts)
}

// oneOf holds when the field has one of the values.
func oneOf(path store.Path, values []any) store.Expr {
	known := slices.DeleteFunc(slices.Clone(values), func(v any) bool { return v == nil })
	has := store.In{Path: path, Values: known}
	switch {
	case len(known) == len(values):
		return has
	case len(known) == 0:
		return store.Missing{Path: path}
	}
	return store.Or{has, store.Missing{Path: path}}
}

// eachOf holds when the field has all of the values.
func eachOf(path store.Path, values []any) store.Expr {
	var parts store.And
	for _, v := range values {
		parts = append(parts, oneOf(path, []any{v}))
	}
	return parts
}

// patternFilter reads a regular expression of Python, which may match anywhere in the text.
func patternFilter(key string, value any) (store.Expr, error) {
	pattern, ok := value.(string)
	if !ok {
		return nil, Invalid("%s must be a text", key)
	}
	if pattern == "" {
		return nil, nil
	}
	re, err := compilePattern(pattern, false)
	if err != nil {
		return nil, err
	}
	return store.Regexp{Path: fieldPath(key), Pattern: re}, nil
}

// pythonEnd is the only escape of Python's expressions that is different in Go.
var pythonEnd = regexp.MustCompile(`((?:^|[^\\])(?:\\\\)*)\\Z`)

// compilePattern compiles Python's regular expressions, except look-around and
// back-references, whose search time is unbounded.
func compilePattern(pattern string, ignoreCase bool) (*regexp.Regexp, error) {
	if len(pattern) > 10_000 {
		return nil, Refuse(subInvalidRegex, "Invalid regular expression: longer than 10000 characters")
	}
	text := pythonEnd.ReplaceAllString(pattern, `$1\z`)
	if ignoreCase {
		text = "(?i)" + text
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, Refuse(subInvalidRegex, "Invalid regular expression: %q: %v", pattern, err)
	}
	return re, nil
}

// rangeFilter reads [min, max], both inclusive and both possibly null. Without a
// minimum, documents that lack the field match too.
func rangeFilter(key string, value any) (store.Expr, error) {
	limits, ok := value.([]any)
	if !ok || len(limits) != 2 {
		return nil, Invalid("%s must be a list of two: the least and the greatest value", key)
	}
	path := fieldPath(key)
	limits = slices.Clone(limits)
	for i, v := range limits {
		switch text := v.(type) {
		case nil, json.Number:
		case string:
			t, err := parseTime(text)
			if err != nil {
				return nil, Invalid("%s: %v", key, err)
			}
			limits[i] = store.FormatTime(t)
		default:
			return nil, Invalid("%s must hold numbers or times", key)
		}
	}
	least := store.Compare{Path: path, Op: store.GreaterEqual, Value: limits[0]}
	greatest := store.Compare{Path: path, Op: store.LessEqual, Value: limits[1]}
	switch {
	case limits[0] == nil && limits[1] == nil:
		return nil, nil
	case limits[0] == nil:
		return store.Or{greatest, store.Missing{Path: path}}, nil
	case limits[1] == nil:
		return least, nil
	}
	return store.And{least, greatest}, nil
}

// datetimeFilter reads a time or a list of times, each with >=, >, <=, < or no operator
// before it. Two times without operator are the ends of a range.
func datetimeFilter(key string, value any) (store.Expr, error) {
	items := ListOf(value)
	path := fieldPath(key)
	var all store.And
	var bare []any
	for _, item := range items {
		if item == nil {
			continue
		}
		text, ok := item.(string)
		if !ok {
			return nil, Invalid("%s must be a time or a list of times", key)
		}
		op, rest := store.Op(""), strings.TrimSpace(text)
		for _, known := range []store.Op{store.GreaterEqual, store.LessEqual, store.Greater, store.Less} {
			if after, ok := strings.CutPrefix(rest, string(known)); ok {
				op, rest = known, strings.TrimSpace(after)
				break
			}
		}
		t, err := parseTime(rest)
		if err != nil {
			return nil, Invalid("%s: %v", key, err)
		}
		if op == "" {
			bare = append(bare, store.FormatTime(t))
			continue
		}
		all = append(all, store.Compare{Path: path, Op: op, Value: store.FormatTime(t)})
	}
	if len(bare) == 2 && len(items) == 2 {
		return store.And{
			store.Compare{Path: path, Op: store.GreaterEqual, Value: bare[0]},
			store.Compare{Path: path, Op: store.LessEqual, Value: bare[1]},
		}, nil
	}
	for _, at := range bare {
		all = append(all, store.In{Path: path, Values: []any{at}})
	}
	return all, nil
}

// exactFilter compares a field with one value.
func exactFilter(key string, value any) (store.Expr, error) {
	if !plain(value) {
		return nil, Invalid("%s must be a plain value", key)
	}
	return store.In{Path: fieldPath(key), Values: []any{value}}, nil
}

// multiField reads {"fields": […], "pattern": "…"} or {"fields": […], "datetime": […]}.
// The pattern ignores case.
func multiField(key string, value any, join func([]store.Expr) store.Expr) (store.Expr, error) {
	form, ok := value.(map[string]any)
	if !ok {
		return nil, Invalid("%s must be an object with fields and a pattern or datetime", key)
	}
	fields, _ := form["fields"].([]any)
	if len(fields) == 0 {
		return nil, Invalid("%s.fields must be a list of field names", key)
	}
	cond := func(field string) (store.Expr, error) { return datetimeFilter(field, form["datetime"]) }
	pattern, hasPattern := form["pattern"].(string)
	switch {
	case hasPattern && pattern == "":
		return nil, nil
	case hasPattern:
		re, err := compilePattern(pattern, true)
		if err != nil {
			return nil, err
		}
		cond = func(field string) (store.Expr, error) { return store.Regexp{Path: fieldPath(field), Pattern: re}, nil }
	case form["datetime"] == nil:
		return nil, Invalid("%s needs a pattern or datetime", key)
	}
	var parts []store.Expr
	for _, field := range fields {
		name, _ := field.(string)
		if name == "" {
			return nil, Invalid("%s.fields must be a list of field names", key)
		}
		part, err := cond(name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return join(parts), nil
}

// searchText finds a text in any of the fields, ignoring case.
func searchText(fields []string, value any) (store.Expr, error) {
	text, ok := value.(string)
	if !ok {
		return nil, Invalid("search_text must be a text")
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil, nil
	}
	re, err := compilePattern(regexp.QuoteMeta(text), true)
	if err != nil {
		return nil, err
	}
	var parts store.Or
	for _, field := range fields {
		parts = append(parts, store.Regexp{Path: fieldPath(field), Pattern: re})
	}
	return parts, nil
}

// timeLayouts are the forms of ISO 8601 that clients send; time.Parse accepts fractions of
// seconds in each. The default offset is UTC.
var timeLayouts = []string{
	time.RFC3339,
	"2006-01-02T15:04:05-0700",
	"2006-01-02T15:04:05",
	"2006-01-02T15:04",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05",
	"2006-01-02 15:04",
	"2006-01-02",
}

func parseTime(text string) (time.Time, error) {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, Invalid("%q is not a time in ISO 8601, such as 2026-11-23T13:40:14+00:00", text)
}

// AsText is a text, or "" for any other value.
func AsText(v any) string {
	s, _ := v.(string)
	return s
}
