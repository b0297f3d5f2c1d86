package sqlite

import (
	"strings"

	"clearmlserving/controlplane/store"
)

// condition is the SQL of a filter. When it isn't exact, it lets pass at least the
// documents that match.
type condition struct {
	sql   string
	args  []any
	exact bool
}

var everything = condition{sql: "TRUE", exact: true}

// unknown lets all pass and leaves the decision to Match.
var unknown = condition{sql: "TRUE"}

// compile says in SQL as much of a filter as it can.
func compile(kind store.Kind, e store.Expr) condition {
	switch e := e.(type) {
	case nil:
		return everything
	case store.And:
		return join(kind, e, " AND ", everything)
	case store.Or:
		return join(kind, e, " OR ", condition{sql: "FALSE", exact: true})
	case store.Not:
		c := compile(kind, e.Expr)
		if !c.exact {
			return unknown
		}
		c.sql = "(" + c.sql + ") IS NOT TRUE"
		return c
	case store.In:
		return compileIn(kind, e)
	case store.Compare:
		return compileCompare(e)
	case store.Regexp:
		if c, ok := columnOf(e.Path); ok && c.holds == texts {
			return compileRegexp(kind, c.name, e.Pattern)
		}
	case store.Missing:
		if c, ok := columnOf(e.Path); ok {
			if c.holds == texts {
				return condition{sql: "coalesce(d." + c.name + ", '') = ''", exact: true}
			}
			return condition{sql: "d." + c.name + " IS NULL", exact: true}
		}
		if field, ok := termField(e.Path); ok {
			return condition{sql: "d.seq NOT IN (SELECT seq FROM terms WHERE kind = ? AND field = ?)", args: []any{kind, field}, exact: true}
		}
	}
	return unknown
}

func join(kind store.Kind, parts []store.Expr, with string, empty condition) condition {
	if len(parts) == 0 {
		return empty
	}
	out := condition{exact: true}
	var texts []string
	for _, part := range parts {
		c := compile(kind, part)
		texts = append(texts, "("+c.sql+")")
		out.args = append(out.args, c.args...)
		out.exact = out.exact && c.exact
	}
	out.sql = strings.Join(texts, with)
	return out
}

func compileIn(kind store.Kind, e store.In) condition {
	if len(e.Values) == 0 {
		return condition{sql: "FALSE", exact: true}
	}
	if len(e.Values) > 10_000 {
		return unknown // near SQLite's limit of parameters
	}
	field, listed := termField(e.Path)
	c, known := columnOf(e.Path)
	if !known && !listed {
		return unknown
	}
	args := make([]any, 0, len(e.Values))
	for _, want := range e.Values {
		v, ok := c.value(want)
		if !ok || v == nil || (listed && v == "") {
			return unknown
		}
		args = append(args, v)
	}
	if listed {
		return condition{
			sql:   "d.seq IN (SELECT seq FROM terms WHERE kind = ? AND field = ? AND value IN (" + marks(len(args)) + "))",
			args:  append([]any{kind, field}, args...),
			exact: true,
		}
	}
	return condition{sql: "d." + c.name + " IN (" + marks(len(args)) + ")", args: args, exact: true}
}

func compileCompare(e store.Compare) condition {
	c, ok := columnOf(e.Path)
	if !ok || c.holds == booleans {
		return unknown
	}
	v, ok := c.value(e.Value)
	if !ok || v == nil {
		return unknown
	}
	switch e.Op {
	case store.Less, store.LessEqual, store.Greater, store.GreaterEqual:
		return condition{sql: "d." + c.name + " " + string(e.Op) + " ?", args: []any{v}, exact: true}
	}
	return unknown
}
