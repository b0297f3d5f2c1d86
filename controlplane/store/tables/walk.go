package tables

import (
	"context"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// walk is a way through the documents in an order.
type walk struct {
	order string
	// stretches lie behind each other on the way; together they are all of it.
	stretches     []Condition
	offset, limit int
	// paged says that offset and limit hold for what is found; otherwise the documents
	// have still to be looked at.
	paged bool
}

// walkOf returns the way that a query goes, and whether SQL can say its order. If not,
// it leads past all documents.
func (r reader) walkOf(q store.Query) (walk, bool) {
	whole := walk{order: "d.seq", stretches: []Condition{{SQL: "TRUE"}}, offset: q.Offset, limit: q.Limit}
	order, ok := orderBy(q.Order, q.Backwards)
	if !ok {
		return whole, false
	}
	w := whole
	w.order = order
	if q.From == nil {
		return w, true
	}
	if w.stretches, ok = beyond(r.dialect, q); !ok {
		return whole, false
	}
	if w.limit > 0 {
		w.limit += w.offset // the caller skips: the place of the first is in no single stretch
	}
	w.offset = 0
	return w, true
}

// walk returns the documents on the way that fulfil a condition.
func (r reader) walk(ctx context.Context, kind store.Kind, where Condition, w walk) ([]int64, error) {
	var found []int64
	for _, stretch := range w.stretches {
		text := `SELECT d.seq FROM documents d WHERE d.kind = ? AND ` + where.SQL + ` AND ` + stretch.SQL + ` ORDER BY ` + w.order
		args := slices.Concat([]any{string(kind)}, where.Args, stretch.Args)
		if w.paged {
			limit := w.limit
			if limit > 0 {
				limit -= len(found)
			}
			text, args = window(text, args, w.offset, limit)
		}
		seqs, err := r.seqs(ctx, text, args)
		if err != nil {
			return nil, err
		}
		found = append(found, seqs...)
		if w.paged && w.limit > 0 && len(found) >= w.limit {
			break
		}
	}
	return found, nil
}

// orderBy returns the SQL of an order, and whether it is all of it. Backwards is the exact
// reverse: what lacks a field comes first then.
func orderBy(order []store.Order, backwards bool) (string, bool) {
	up, down := " ASC NULLS LAST", " DESC NULLS LAST"
	end := ""
	if backwards {
		up, down = " DESC NULLS FIRST", " ASC NULLS FIRST"
		end = " DESC"
	}
	if len(order) == 0 {
		return "d.seq" + end, true
	}
	var parts []string
	for _, by := range order {
		c, ok := columnOf(by.Path)
		if !ok {
			return "d.seq", false
		}
		direction := up
		if by.Desc {
			direction = down
		}
		parts = append(parts, "d."+c.quoted()+direction)
	}
	return strings.Join(append(parts, "d.id"+end), ", "), true
}

// beyond says in SQL what lies behind a place, in stretches that each are one range of an
// index: first what shares all but the last key with the place, then what shares all but
// the last two, and so on, and each time what lacks the key where that comes after.
func beyond(d Dialect, q store.Query) ([]Condition, bool) {
	columns := make([]string, len(q.Order))
	keys := make([]any, len(q.Order))
	for i, by := range q.Order {
		c, ok := columnOf(by.Path)
		if !ok {
			return nil, false
		}
		if keys[i], ok = c.value(d, q.From.Keys[i]); !ok {
			return nil, false
		}
		columns[i] = "d." + c.quoted()
	}
	var out []Condition
	add := func(shared int, text string, args ...any) {
		var all []string
		var values []any
		for i := range shared {
			if keys[i] == nil {
				all = append(all, columns[i]+" IS NULL")
				continue
			}
			all = append(all, columns[i]+" = ?")
			values = append(values, keys[i])
		}
		out = append(out, Condition{SQL: strings.Join(append(all, text), " AND "), Args: append(values, args...)})
	}
	behindID, notBehind := "d.id > ?", "d.id <= ?"
	if q.Backwards {
		behindID, notBehind = "d.id < ?", "d.id >= ?"
	}
	id := d.Text(q.From.ID)
	for i, column := range slices.Backward(columns) {
		key, last := keys[i], i == len(columns)-1
		behind := " > ?"
		if q.Order[i].Desc != q.Backwards {
			behind = " < ?"
		}
		switch {
		case key == nil && last:
			add(len(columns), behindID, id)
		case key == nil:
		case last:
			// Not as alternatives, which planners look up one by one and sort then.
			orEqual := strings.Replace(behind, " ?", "= ?", 1)
			add(i, column+orEqual+" AND NOT ("+column+" = ? AND "+notBehind+")", key, key, id)
		default:
			add(i, column+behind, key)
		}
		switch {
		case key != nil && !q.Backwards:
			add(i, column+" IS NULL")
		case key == nil && q.Backwards:
			add(i, column+" IS NOT NULL")
		}
	}
	return out, true
}
