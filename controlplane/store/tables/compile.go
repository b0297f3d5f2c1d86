package tables

import (
	"strings"

	"clearmlserving/controlplane/store"
)

// condition is the SQL of a filter. If it is not exact, it selects at least the documents
// that match.
type condition struct {
	Condition
	exact bool
}

func exactly(text string, args ...any) condition {
	return condition{Condition{SQL: text, Args: args}, true}
}

// unknown selects all and leaves the decision to Match.
var unknown = condition{Condition: Condition{SQL: "TRUE"}}

// compiler translates filters on documents of one kind to SQL, as far as possible.
type compiler struct {
	dialect Dialect
	kind    string
}

func (r reader) compile(kind store.Kind, e store.Expr) condition {
	return compiler{dialect: r.dialect, kind: string(kind)}.compile(e)
}

func (c compiler) compile(e store.Expr) condition {
	switch e := e.(type) {
	case nil:
		return exactly("TRUE")
	case store.And:
		return c.join(e, " AND ", "TRUE")
	case store.Or:
		return c.join(e, " OR ", "FALSE")
	case store.Not:
		inner := c.compile(e.Expr)
		if !inner.exact {
			return unknown
		}
		return exactly("("+inner.SQL+") IS NOT TRUE", inner.Args...)
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

func (c compiler) join(parts []store.Expr, with, empty string) condition {
	if len(parts) == 0 {
		return exactly(empty)
	}
	out := condition{exact: true}
	var texts []string
	for _, part := range parts {
		one := c.compile(part)
		texts = append(texts, "("+one.SQL+")")
		out.Args = append(out.Args, one.Args...)
		out.exact = out.exact && one.exact
	}
	out.SQL = strings.Join(texts, with)
	return out
}

func (c compiler) in(e store.In) condition {
	if len(e.Values) == 0 {
		return exactly("FALSE")
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
		return exactly("d.seq IN (SELECT seq FROM terms WHERE kind = ? AND field = ? AND value IN ("+marks(len(args))+"))",
			append([]any{c.kind, field}, args...)...)
	}
	return exactly("d."+col.quoted()+" IN ("+marks(len(args))+")", args...)
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
		return exactly("d."+col.quoted()+" "+string(e.Op)+" ?", v)
	}
	return unknown
}

func (c compiler) missing(e store.Missing) condition {
	if col, ok := columnOf(e.Path); ok {
		if col.holds == texts {
			return exactly("coalesce(d." + col.quoted() + ", '') = ''")
		}
		return exactly("d." + col.quoted() + " IS NULL")
	}
	if field, ok := termField(e.Path); ok {
		return exactly("d.seq NOT IN (SELECT seq FROM terms WHERE kind = ? AND field = ?)", c.kind, field)
	}
	return unknown
}

// pattern uses the index of a column for patterns that are plain texts, such as ^exact\ name$,
// and the dialect for the others.
func (c compiler) pattern(e store.Regexp) condition {
	col, ok := columnOf(e.Path)
	if !ok || col.holds != texts {
		return unknown
	}
	name := "d." + col.quoted()
	if text, start, end, ok := literal(e.Pattern.String()); ok && start && !strings.ContainsRune(text, 0) {
		if end {
			return exactly(name+" = ?", c.dialect.Text(text))
		}
		return exactly(name+" >= ? AND "+name+" < ? AND substr("+name+", 1, "+lengthOf(text)+") = ?", text, text+"\U0010ffff", text)
	}
	found, ok := c.dialect.Pattern(name, e.Pattern)
	if !ok {
		return unknown
	}
	return exactly(found.SQL, found.Args...)
}
