package tables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// column is a field of a document that is filtered and sorted by in SQL.
type column struct {
	name  string
	holds valueType
}

// indexed says whether there is an index of the kind and this column.
func (c column) indexed() bool {
	return slices.Contains([]string{"name", "task", "parent", "project", "framework", "ready", "status", "type"}, c.name)
}

// sorted says whether there is an index of the kind, this column, and the id.
func (c column) sorted() bool {
	return c.name == "created" || c.name == "last_update" || c.name == "name"
}

// quoted is the column's name in SQL, where some are keywords.
func (c column) quoted() string { return `"` + c.name + `"` }

// valueType is the type of a column's values. NULL means absent or null.
type valueType int

const (
	texts valueType = iota
	numbers
	booleans
)

// columns are the top-level fields with a column. Their values have that type or are absent:
// others are refused, so that SQL and Match agree.
var columns = []column{
	{"name", texts},
	{"basename", texts},
	{"comment", texts},
	{"project", texts},
	{"parent", texts},
	{"task", texts},
	{"user", texts},
	{"company", texts},
	{"type", texts},
	{"status", texts},
	{"framework", texts},
	{"uri", texts},
	{"ready", booleans},
	{"created", texts},
	{"started", texts},
	{"status_changed", texts},
	{"last_update", texts},
	{"last_change", texts},
	{"last_iteration", numbers},
}

// termFields are the lists whose elements are in the table terms.
var termFields = []store.Path{{"tags"}, {"system_tags"}, {"models", "input", "model"}, {"models", "output", "model"}}

// term is an element of a list.
type term struct{ field, value string }

// row is a document as it is stored.
type row struct {
	kind, id string
	columns  []any
	terms    []term
	body     string
}

func newRow(d Dialect, kind store.Kind, doc store.Doc) (row, error) {
	if doc.ID() == "" {
		return row{}, fmt.Errorf("%s without an id", kind)
	}
	r := row{kind: string(kind), id: d.Text(doc.ID())}
	for _, c := range columns {
		v, ok := c.value(d, doc[c.name])
		if !ok {
			return row{}, fmt.Errorf("field %q of %s %q holds %T", c.name, kind, doc.ID(), doc[c.name])
		}
		r.columns = append(r.columns, v)
	}
	for _, path := range termFields {
		for _, text := range textsAt(doc, path) {
			r.terms = append(r.terms, term{strings.Join(path, "."), d.Text(text)})
		}
	}
	slices.SortFunc(r.terms, func(a, b term) int {
		return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.value, b.value))
	})
	r.terms = slices.Compact(r.terms)
	body, err := doc.Encode()
	if err != nil {
		return row{}, err
	}
	r.body = string(body)
	return r, nil
}

// value converts the value of a field to that of the column.
func (c column) value(d Dialect, v any) (any, bool) {
	if v == nil {
		return nil, true
	}
	switch c.holds {
	case texts:
		text, ok := v.(string)
		return d.Text(text), ok
	case booleans:
		b, ok := v.(bool)
		return b, ok
	case numbers:
		return store.Number(v)
	}
	return nil, false
}

// textsAt returns the texts at a path that are not empty, also within lists.
func textsAt(doc store.Doc, path store.Path) []string {
	var out []string
	doc.Each(path, func(v any) {
		if text, ok := v.(string); ok && text != "" {
			out = append(out, text)
		}
	})
	return out
}

// columnOf finds the column of a path.
func columnOf(path store.Path) (column, bool) {
	if len(path) != 1 {
		return column{}, false
	}
	if path[0] == "id" {
		return column{name: "id", holds: texts}, true
	}
	at := slices.IndexFunc(columns, func(c column) bool { return c.name == path[0] })
	if at < 0 {
		return column{}, false
	}
	return columns[at], true
}

// termField finds the name of a list in the table terms.
func termField(path store.Path) (string, bool) {
	for _, known := range termFields {
		if slices.Equal(known, path) {
			return strings.Join(path, "."), true
		}
	}
	return "", false
}
