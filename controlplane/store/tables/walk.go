package tables

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// walk is a way through the documents of a kind in an order.
type walk struct {
	kind  string
	query store.Query
	order string
	// stretches lie behind each other on the way; together they are all of it.
	stretches []stretch
	// paged says that the query's offset and limit hold for what is found; otherwise the
	// documents have still to be looked at.
	paged bool
	// gathered is the condition in the form for gathering all that match; nil says that it
	// is never better to do that, see near.
	gathered *condition
}

// stretch is a part of a way.
type stretch struct {
	Condition
	// wide is a range of the key, in which what matches may lie far behind.
	wide bool
	// gather says that all of it is looked up and sorted, and not walked.
	gather bool
}

// walkOf returns the way that a query goes, and whether SQL can say its order. If not,
// it leads past all documents.
func (r reader) walkOf(kind store.Kind, q store.Query) (walk, bool) {
	w := walk{kind: string(kind), query: q, order: "d.seq", stretches: []stretch{{Condition: Condition{SQL: "TRUE"}}}}
	order, ok := orderBy(q.Order, q.Backwards)
	if !ok {
		return w, false
	}
	gathered, gathers := r.gathered(kind, q)
	stretches := w.stretches
	switch {
	case q.From != nil:
		if stretches, ok = beyond(r.dialect, q, *q.From); !ok {
			return w, false
		}
	case gathers && q.Backwards:
		key := columnName(q.Order[0])
		stretches = []stretch{{Condition: Condition{SQL: key + " IS NULL"}}, {Condition: Condition{SQL: key + " IS NOT NULL"}, wide: true}}
	case gathers:
		stretches[0].wide = true
	}
	w.order, w.stretches = order, stretches
	if gathers {
		w.gathered = &gathered
	}
	return w, true
}

// gathered is the filter of a query for gathering, where that may be better than a walk:
// a page is asked for, in an order that an index has, of documents that something singles out.
func (r reader) gathered(kind store.Kind, q store.Query) (condition, bool) {
	if q.Limit <= 0 || q.Offset > fewFound || len(q.Order) != 1 || !singlesOut(q.Where) {
		return condition{}, false
	}
	if c, ok := columnOf(q.Order[0].Path); !ok || !c.sorted() {
		return condition{}, false
	}
	c := compiler{dialect: r.dialect, kind: string(kind), apart: true}.compile(q.Where)
	sets := c.terms
	if c.search != "" && !namesProject(q.Where) {
		// A text is found all over the place; what a project holds, its index finds sooner.
		sets = append(slices.Clone(sets), r.dialect.Found(c.search))
	}
	if len(sets) > 0 {
		var common Condition
		for i, set := range sets {
			if i > 0 {
				common.SQL += " INTERSECT "
			}
			common.SQL += set.SQL
			common.Args = append(common.Args, set.Args...)
		}
		among := r.dialect.AmongFound(common)
		c.sql, c.args = among.SQL+" AND ("+c.sql+")", slices.Concat(among.Args, c.args)
	}
	return c, c.exact
}

// namesProject says whether all that a filter finds lies in projects that it names.
func namesProject(e store.Expr) bool {
	switch e := e.(type) {
	case store.And:
		return slices.ContainsFunc(e, namesProject)
	case store.In:
		return slices.Equal(e.Path, store.Path{"project"})
	}
	return false
}

// singlesOut says whether a filter asks for something, and not only for its absence, which
// most documents fulfil.
func singlesOut(e store.Expr) bool {
	switch e := e.(type) {
	case nil, store.Not:
		return false
	case store.And:
		return slices.ContainsFunc(e, singlesOut)
	case store.Or:
		return len(e) > 0 && !slices.ContainsFunc(e, func(part store.Expr) bool { return !singlesOut(part) })
	}
	return true
}

// walk returns the documents on the way that fulfil a condition; few says that it leaves few.
func (r reader) walk(ctx context.Context, w walk, where Condition, few bool) ([]int64, error) {
	offset, limit := 0, 0
	if w.paged {
		offset, limit = w.query.Offset, w.query.Limit
	}
	if len(w.stretches) == 1 && w.gathered == nil {
		if prepare := r.dialect.Walk(); prepare != "" && offset > fewFound {
			if err := r.run(ctx, prepare); err != nil {
				return nil, err
			}
		}
		text, args := w.sql(w.stretches[0], where)
		text, args = window(text, args, offset, limit)
		return r.seqs(ctx, text, args)
	}
	// The page may begin in one stretch and end in another, so it is cut at the end.
	var found []int64
	for way := w.stretches; len(way) > 0 && (limit == 0 || len(found) < offset+limit); {
		next := way[0]
		way = way[1:]
		if next.wide && w.gathered != nil && !few {
			near, far, err := r.near(ctx, w, next)
			if err != nil {
				return nil, err
			}
			if far != nil {
				next, way = near, far // what was left of the way lies in far too
			}
		}
		text, args := w.sql(next, where)
		if limit > 0 {
			text, args = window(text, args, 0, offset+limit-len(found))
		}
		seqs, err := r.seqs(ctx, text, args)
		if err != nil {
			return nil, err
		}
		found = append(found, seqs...)
	}
	return page(found, offset, limit), nil
}

// run runs what has no result.
func (r reader) run(ctx context.Context, text string) error {
	rows, err := r.query(ctx, text)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	for rows.Next() {                   //nolint:revive // there is none, which only the end tells
	}
	return rows.Err()
}

// sql finds the documents of a stretch, in order.
func (w walk) sql(s stretch, where Condition) (string, []any) {
	if !s.gather {
		return `SELECT d.seq FROM documents d WHERE d.kind = ? AND ` + where.SQL + ` AND ` + s.SQL + ` ORDER BY ` + w.order,
			slices.Concat([]any{w.kind}, where.Args, s.Args)
	}
	// Apart from the order and the place in it, which planners would begin with.
	return `WITH found AS MATERIALIZED (SELECT d.seq, d.id, ` + columnName(w.query.Order[0]) + ` FROM documents d WHERE d.kind = ? AND (` +
			w.gathered.sql + `)) SELECT d.seq FROM found d WHERE ` + s.SQL + ` ORDER BY ` + w.order,
		slices.Concat([]any{w.kind}, w.gathered.args, s.Args)
}

// near splits a wide stretch behind its first documents. Mostly those fill the page; where
// they don't, because what matches lies together far behind, as what belongs to an old
// project does, looking it all up takes less time than walking there. far is nil where
// the stretch is short.
func (r reader) near(ctx context.Context, w walk, s stretch) (near stretch, far []stretch, err error) {
	q := w.query
	key := columnName(q.Order[0])
	text := `SELECT ` + key + `, d.id FROM documents d WHERE d.kind = ? AND ` + s.SQL + ` ORDER BY ` + w.order
	text, args := window(text, slices.Concat([]any{w.kind}, s.Args), fewFound, 1)
	var value sql.NullString
	var id string
	err = r.queryRow(ctx, text, args...).Scan(&value, &id)
	if errors.Is(err, sql.ErrNoRows) || (err == nil && !value.Valid) {
		return s, nil, nil
	}
	if err != nil {
		return s, nil, err
	}
	far, ok := beyond(r.dialect, q, store.Place{Keys: []any{value.String}, ID: id})
	if !ok {
		return s, nil, nil
	}
	for i := range far {
		far[i].wide, far[i].gather = false, true
	}
	upTo, behindID := " <= ?", "d.id > ?"
	if q.Order[0].Desc != q.Backwards {
		upTo = " >= ?"
	}
	if q.Backwards {
		behindID = "d.id < ?"
	}
	near = stretch{Condition: Condition{
		SQL:  s.SQL + " AND " + key + upTo + " AND NOT (" + key + " = ? AND " + behindID + ")",
		Args: slices.Concat(s.Args, []any{value.String, value.String, id}),
	}, wide: true}
	return near, far, nil
}

func columnName(by store.Order) string {
	c, _ := columnOf(by.Path)
	return "d." + c.quoted()
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
func beyond(d Dialect, q store.Query, from store.Place) ([]stretch, bool) {
	columns := make([]string, len(q.Order))
	keys := make([]any, len(q.Order))
	for i, by := range q.Order {
		c, ok := columnOf(by.Path)
		if !ok {
			return nil, false
		}
		if keys[i], ok = c.value(d, from.Keys[i]); !ok {
			return nil, false
		}
		columns[i] = "d." + c.quoted()
	}
	var out []stretch
	add := func(shared int, wide bool, text string, args ...any) {
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
		out = append(out, stretch{Condition: Condition{SQL: strings.Join(append(all, text), " AND "), Args: append(values, args...)}, wide: wide})
	}
	behindID, notBehind := "d.id > ?", "d.id <= ?"
	if q.Backwards {
		behindID, notBehind = "d.id < ?", "d.id >= ?"
	}
	id := d.Text(from.ID)
	for i, column := range slices.Backward(columns) {
		key, last := keys[i], i == len(columns)-1
		behind, orEqual := " > ?", " >= ?"
		if q.Order[i].Desc != q.Backwards {
			behind, orEqual = " < ?", " <= ?"
		}
		switch {
		case key == nil && last:
			add(len(columns), false, behindID, id)
		case key == nil:
		case last:
			// Not as alternatives, which planners look up one by one and sort then.
			add(i, true, column+orEqual+" AND NOT ("+column+" = ? AND "+notBehind+")", key, key, id)
		default:
			add(i, false, column+behind, key)
		}
		switch {
		case key != nil && !q.Backwards:
			add(i, false, column+" IS NULL")
		case key == nil && q.Backwards:
			add(i, last, column+" IS NOT NULL")
		}
	}
	return out, true
}
