package tables

import (
	"context"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// list is the part of a query that SQL can express.
type list struct {
	kind  string
	where condition
	// order is the order of the documents, and columns its columns.
	order   string
	columns []column
	// behind selects the documents after the place of the query.
	behind Condition
	// paged: SQL expresses the whole query, with offset and limit. Otherwise the documents must
	// be checked.
	paged         bool
	offset, limit int
}

// listOf returns the list of a query, and whether SQL can express its order. If not, the list
// has all documents that may match.
func (r reader) listOf(kind store.Kind, q store.Query) (list, bool) {
	l := list{kind: string(kind), where: r.compile(kind, q.Where), order: "d.seq", behind: Condition{SQL: "TRUE"}}
	order, columns, ok := orderBy(q.Order, q.Backwards)
	if !ok {
		return l, false
	}
	behind := l.behind
	if q.From != nil {
		if behind, ok = beyond(r.dialect, q, columns); !ok {
			return l, false
		}
	}
	l.order, l.columns, l.behind = order, columns, behind
	if l.where.exact {
		l.paged, l.offset, l.limit = true, q.Offset, q.Limit
	}
	return l, true
}

// nearest is the number of documents that are checked in the order of a list before all
// matches are collected and sorted.
const nearest = 1000

// list returns the documents of a list. A page of a condition that many documents match is
// found among the next ones in its order. For a condition with few matches, or with matches
// far behind, all matches are collected and sorted: no planner can distinguish these cases.
func (r reader) list(ctx context.Context, l list) ([]int64, error) {
	if l.limit == 0 || len(l.columns) == 0 || l.offset+l.limit > nearest {
		return r.seqs(ctx, l, `SELECT d.seq FROM documents d WHERE d.kind = ? AND (`+l.where.SQL+`) AND `+l.behind.SQL, slices.Concat([]any{l.kind}, l.where.Args, l.behind.Args))
	}
	if len(l.columns) == 1 && l.columns[0].sorted() {
		near, args := window(`SELECT * FROM documents d WHERE d.kind = ? AND `+l.behind.SQL+` ORDER BY `+l.order, slices.Concat([]any{l.kind}, l.behind.Args), 0, nearest)
		found, err := r.seqs(ctx, l, `WITH near AS MATERIALIZED (`+near+`) SELECT d.seq FROM near d WHERE `+l.where.SQL, slices.Concat(args, l.where.Args))
		if err != nil || len(found) == l.limit {
			return found, err
		}
	}
	// Separate from the order and the place in it, because planners would begin with these.
	needs := `d.seq, d."id"`
	for _, c := range l.columns {
		if name := ", d." + c.quoted(); !strings.Contains(needs+",", name[1:]+",") {
			needs += name
		}
	}
	return r.seqs(ctx, l, `WITH found AS MATERIALIZED (SELECT `+needs+` FROM documents d WHERE d.kind = ? AND (`+l.where.SQL+`)) SELECT d.seq FROM found d WHERE `+l.behind.SQL,
		slices.Concat([]any{l.kind}, l.where.Args, l.behind.Args))
}

// seqs runs a query for documents d, in the order and the window of a list.
func (r reader) seqs(ctx context.Context, l list, text string, args []any) ([]int64, error) {
	text, args = window(text+` ORDER BY `+l.order, args, l.offset, l.limit)
	return values[int64](ctx, r, text, args)
}

// orderBy returns the SQL of an order with its columns, and whether SQL can express it.
// Backwards is the exact reverse: documents without a field come first then.
func orderBy(order []store.Order, backwards bool) (string, []column, bool) {
	up, down := " ASC NULLS LAST", " DESC NULLS LAST"
	end := ""
	if backwards {
		up, down = " DESC NULLS FIRST", " ASC NULLS FIRST"
		end = " DESC"
	}
	if len(order) == 0 {
		return "d.seq" + end, nil, true
	}
	var parts []string
	var columns []column
	for _, by := range order {
		c, ok := columnOf(by.Path)
		if !ok {
			return "", nil, false
		}
		direction := up
		if by.Desc {
			direction = down
		}
		columns = append(columns, c)
		parts = append(parts, "d."+c.quoted()+direction)
	}
	return strings.Join(append(parts, "d.id"+end), ", "), columns, true
}

// beyond is the SQL for the documents after the place of a query in its order by columns. It
// is one value, so that no planner looks up its alternatives one by one and sorts them.
func beyond(d Dialect, q store.Query, columns []column) (Condition, bool) {
	out := Condition{SQL: "d.id > ?", Args: []any{d.Text(q.From.ID)}}
	if q.Backwards {
		out.SQL = "d.id < ?"
	}
	for i, c := range slices.Backward(columns) {
		key, ok := c.value(d, q.From.Keys[i])
		if !ok {
			return Condition{}, false
		}
		name := "d." + c.quoted()
		if key == nil {
			out.SQL = name + " IS NULL AND (" + out.SQL + ")"
			if q.Backwards {
				out.SQL = name + " IS NOT NULL OR (" + out.SQL + ")"
			}
			continue
		}
		behind := " > ?"
		if q.Order[i].Desc != q.Backwards {
			behind = " < ?"
		}
		out.SQL = name + behind + " OR (" + name + " = ? AND (" + out.SQL + "))"
		out.Args = append([]any{key, key}, out.Args...)
		if !q.Backwards {
			out.SQL = name + " IS NULL OR " + out.SQL
		}
	}
	out.SQL = "(" + out.SQL + ") IS TRUE"
	return out, true
}
