package tables

import (
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// condition is the SQL of a filter. When it isn't exact, it lets pass at least the
// documents that match.
type condition struct {
	sql   string
	args  []any
	exact bool
	// search is a query of the text index that every document passes that matches; ""
	// knows nothing.
	search string
	// finders select the seq of documents by an index; each finds every document that
	// matches, and some perhaps few others.
	finders []Condition
	// terms are those of the finders that look for elements of lists, such as tags.
	terms []Condition
}

var everything = condition{sql: "TRUE", exact: true}

// unknown lets all pass and leaves the decision to Match.
var unknown = condition{sql: "TRUE"}

// compiler says in SQL as much of a filter on documents of one kind as it can.
type compiler struct {
	dialect Dialect
	kind    string
	// walk says that documents are looked at in an order until a page is full: conditions
	// are then to be asked of each, not to be gathered before.
	walk bool
	// apart says that what terms find is looked up by the caller, and left out of the
	// conditions that always hold together with it.
	apart bool
}

func (r reader) compile(kind store.Kind, e store.Expr, walk bool) condition {
	return compiler{dialect: r.dialect, kind: string(kind), walk: walk}.compile(e)
}

func (c compiler) compile(e store.Expr) condition {
	switch e := e.(type) {
	case nil:
		return everything
	case store.And:
		return c.and(e)
	case store.Or:
		c.apart = false
		return c.or(e)
	case store.Not:
		c.apart = false
		c.walk = false // what is left out is gathered once: it is asked of every document
		inner := c.compile(e.Expr)
		if !inner.exact {
			return unknown
		}
		return condition{sql: "(" + inner.sql + ") IS NOT TRUE", args: inner.args, exact: true}
	case store.In:
		return c.in(e)
	case store.Compare:
		return c.compare(e)
	case store.Regexp:
		return c.pattern(e)
	case store.Missing:
		return c.missing(e)
	}
	return unknown
}

func (c compiler) and(parts store.And) condition {
	out := c.join(parts, " AND ", everything)
	var searches []string
	for _, part := range out.searches {
		if part != "" {
			searches = append(searches, part)
		}
	}
	out.search = together(searches, " AND ")
	out.finders, out.terms = out.found, out.foundTerms
	return out.condition
}

func (c compiler) or(parts store.Or) condition {
	out := c.join(parts, " OR ", condition{sql: "FALSE", exact: true})
	if slices.Contains(out.searches, "") {
		return out.condition // one of them finds what the index can't
	}
	out.search = together(out.searches, " OR ")
	return out.condition
}

// joined is a condition and the searches of its parts.
type joined struct {
	condition
	searches          []string
	found, foundTerms []Condition
}

func (c compiler) join(parts []store.Expr, with string, empty condition) joined {
	if len(parts) == 0 {
		return joined{condition: empty}
	}
	out := joined{condition: condition{exact: true}}
	var texts []string
	for _, part := range parts {
		one := c.compile(part)
		texts = append(texts, "("+one.sql+")")
		out.args = append(out.args, one.args...)
		out.exact = out.exact && one.exact
		out.searches = append(out.searches, one.search)
		out.found = append(out.found, one.finders...)
		out.foundTerms = append(out.foundTerms, one.terms...)
	}
	out.sql = strings.Join(texts, with)
	return out
}

func together(parts []string, with string) string {
	if len(parts) == 0 {
		return ""
	}
	return "(" + strings.Join(parts, with) + ")"
}

func (c compiler) in(e store.In) condition {
	if len(e.Values) == 0 {
		return condition{sql: "FALSE", exact: true}
	}
	if len(e.Values) > 10_000 {
		return unknown // near the databases' limits of parameters
	}
	field, listed := termField(e.Path)
	col, known := columnOf(e.Path)
	if !known && !listed {
		return unknown
	}
	args := make([]any, 0, len(e.Values))
	for _, want := range e.Values {
		v, ok := col.value(c.dialect, want)
		if !ok || v == nil || (listed && v == "") {
			return unknown
		}
		args = append(args, v)
	}
	if listed {
		finder := Condition{
			SQL:  "SELECT seq FROM terms WHERE kind = ? AND field = ? AND value IN (" + marks(len(args)) + ")",
			Args: append([]any{c.kind, field}, args...),
		}
		out := condition{sql: "d.seq IN (" + finder.SQL + ")", args: finder.Args, exact: true, finders: []Condition{finder}, terms: []Condition{finder}}
		if c.apart {
			out.sql, out.args = "TRUE", nil
		}
		if c.walk {
			// A value, so that no planner turns it round into a join, with the terms first.
			out.sql = "(" + finder.SQL + " AND seq = d.seq LIMIT 1) IS NOT NULL"
		}
		return out
	}
	return condition{sql: "d." + col.quoted() + " IN (" + marks(len(args)) + ")", args: args, exact: true, finders: c.byColumn(col, args)}
}

// byColumn finds documents by the columns that have an index: some values of those few
// documents share, or none at all, and a walk would look at each of the others.
func (c compiler) byColumn(col column, args []any) []Condition {
	if !col.indexed() && col.name != "uri" {
		return nil
	}
	return []Condition{{
		SQL:  "SELECT d.seq FROM documents d WHERE d.kind = ? AND d." + col.quoted() + " IN (" + marks(len(args)) + ")",
		Args: append([]any{c.kind}, args...),
	}}
}

func (c compiler) compare(e store.Compare) condition {
	col, ok := columnOf(e.Path)
	if !ok || col.holds == booleans {
		return unknown
	}
	v, ok := col.value(c.dialect, e.Value)
	if !ok || v == nil {
		return unknown
	}
	switch e.Op {
	case store.Less, store.LessEqual, store.Greater, store.GreaterEqual:
		return condition{sql: "d." + col.quoted() + " " + string(e.Op) + " ?", args: []any{v}, exact: true}
	}
	return unknown
}

func (c compiler) missing(e store.Missing) condition {
	if col, ok := columnOf(e.Path); ok {
		if col.holds == texts {
			return condition{sql: "coalesce(d." + col.quoted() + ", '') = ''", exact: true}
		}
		return condition{sql: "d." + col.quoted() + " IS NULL", exact: true}
	}
	if field, ok := termField(e.Path); ok {
		return condition{sql: "d.seq NOT IN (SELECT seq FROM terms WHERE kind = ? AND field = ?)", args: []any{c.kind, field}, exact: true}
	}
	return unknown
}

// pattern uses what an index can do for patterns that are a text, such as ^exact\ name$,
// and the database's own search for the others.
func (c compiler) pattern(e store.Regexp) condition {
	col, ok := columnOf(e.Path)
	if !ok || col.holds != texts {
		return unknown
	}
	if text, start, end, ok := literal(e.Pattern.String()); ok && start && !strings.ContainsRune(text, 0) {
		name := "d." + col.quoted()
		if end {
			args := []any{c.dialect.Text(text)}
			return condition{sql: name + " = ?", args: args, exact: true, finders: c.byColumn(col, args)}
		}
		return condition{
			sql:   name + " >= ? AND " + name + " < ? AND substr(" + name + ", 1, " + lengthOf(text) + ") = ?",
			args:  []any{text, text + "\U0010ffff", text},
			exact: true,
		}
	}
	search := c.dialect.Search(col.name, e.Pattern)
	found, ok := c.dialect.Pattern(c.kind, col.name, e.Pattern)
	if !ok {
		return condition{sql: "TRUE", search: search}
	}
	return condition{sql: found.SQL, args: found.Args, exact: true, search: search}
}
