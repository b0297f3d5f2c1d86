package tables

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"

	"clearmlserving/controlplane/store"
)

// Query implements store.Reader. SQL selects the documents and, if it can express the whole
// filter and the order, the page; otherwise Match and Sort do the rest.
func (r reader) Query(ctx context.Context, kind store.Kind, q store.Query) ([]store.Doc, error) {
	return limited(ctx, r, "query "+string(kind)+" documents", func(ctx context.Context) ([]store.Doc, error) { return r.find(ctx, kind, q) })
}

// limited runs a query for at most maxHold: there are few connections for reading, and
// every request needs one.
func limited[T any](ctx context.Context, r reader, what string, read func(context.Context) (T, error)) (out T, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxHold, store.ErrTooMuch)
	defer cancel()
	if out, err = read(ctx); err == nil {
		return out, nil
	}
	err = r.dialect.Explain(err)
	if errors.Is(context.Cause(ctx), store.ErrTooMuch) {
		err = fmt.Errorf("%w (%w)", store.ErrTooMuch, err)
	}
	return out, fmt.Errorf("%s: %w", what, err)
}

func (r reader) find(ctx context.Context, kind store.Kind, q store.Query) ([]store.Doc, error) {
	if q.From != nil && (len(q.Order) == 0 || len(q.From.Keys) != len(q.Order)) {
		return nil, fmt.Errorf("a place of %d keys in an order by %d fields", len(q.From.Keys), len(q.Order))
	}
	l, ordered := r.listOf(kind, q)
	docs := []store.Doc{}
	// The bodies are read in a second query, so that they are not sorted, and not read for
	// skipped documents. Both queries see the same state of the database.
	err := r.inSnapshot(ctx, func(r reader) error {
		seqs, err := r.list(ctx, l)
		if err != nil {
			return err
		}
		skip := 0
		if ordered && !l.paged {
			skip = q.Offset
		}
		for chunk := range slices.Chunk(seqs, 200) {
			read, err := r.bodies(ctx, kind, chunk)
			if err != nil {
				return err
			}
			for _, doc := range read {
				switch {
				case !l.where.exact && !q.Where.Match(doc):
				case skip > 0:
					skip--
				default:
					docs = append(docs, doc)
				}
				if ordered && q.Limit > 0 && len(docs) == q.Limit {
					return nil
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !ordered {
		return inOrder(docs, q), nil
	}
	if q.Backwards {
		slices.Reverse(docs)
	}
	return docs, nil
}

// inOrder applies the order and the page of a query to all matching documents, if SQL cannot
// express the order.
func inOrder(docs []store.Doc, q store.Query) []store.Doc {
	if q.From != nil {
		docs = slices.DeleteFunc(docs, func(doc store.Doc) bool { return !q.From.Beyond(doc, q.Order, q.Backwards) })
	}
	store.Sort(docs, q.Order)
	if !q.Backwards {
		return page(docs, q.Offset, q.Limit)
	}
	slices.Reverse(docs)
	docs = page(docs, q.Offset, q.Limit)
	slices.Reverse(docs)
	return docs
}

// window adds the page to a query.
func window(text string, args []any, offset, limit int) (string, []any) {
	if limit > 0 {
		text, args = text+" LIMIT ?", append(args, limit)
	}
	if offset > 0 {
		if limit <= 0 {
			text, args = text+" LIMIT ?", append(args, int64(math.MaxInt64))
		}
		text, args = text+" OFFSET ?", append(args, offset)
	}
	return text, args
}

// inSnapshot runs several queries on one state of the database: in the present transaction, or
// else in a new one.
func (r reader) inSnapshot(ctx context.Context, read func(reader) error) error {
	pool, ok := r.db.(*sql.DB)
	if !ok {
		return read(r)
	}
	tx, err := pool.BeginTx(ctx, r.snapshot)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return read(reader{db: tx, dialect: r.dialect})
}

// bodies reads documents in the order of the numbers given.
func (r reader) bodies(ctx context.Context, kind store.Kind, seqs []int64) ([]store.Doc, error) {
	args := make([]any, len(seqs))
	at := make(map[int64]int, len(seqs))
	for i, seq := range seqs {
		args[i] = seq
		at[seq] = i
	}
	docs := make([]store.Doc, len(seqs))
	err := r.each(ctx, `SELECT seq, body FROM bodies WHERE seq IN (`+marks(len(seqs))+`)`, args, func(scan scanner) (err error) {
		var seq int64
		var body sql.RawBytes
		if err := scan(&seq, &body); err != nil {
			return err
		}
		docs[at[seq]], err = decode(kind, body)
		return err
	})
	return docs, err
}

// scanner reads the columns of a row.
type scanner = func(into ...any) error

// each runs a query and calls read for each of its rows.
func (r reader) each(ctx context.Context, text string, args []any, read func(scanner) error) error {
	rows, err := r.query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err has its error
	for rows.Next() {
		if err := read(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// values runs a query for one column.
func values[T any](ctx context.Context, r reader, text string, args []any) ([]T, error) {
	var out []T
	err := r.each(ctx, text, args, func(scan scanner) error {
		var v T
		err := scan(&v)
		out = append(out, v)
		return err
	})
	return out, err
}

// Count implements store.Reader.
func (r reader) Count(ctx context.Context, kind store.Kind, where store.Expr) (int, error) {
	return limited(ctx, r, "count "+string(kind)+" documents", func(ctx context.Context) (n int, err error) {
		c := r.compile(kind, where)
		if !c.exact {
			docs, err := r.find(ctx, kind, store.Query{Where: where})
			return len(docs), err
		}
		args := append([]any{string(kind)}, c.Args...)
		err = r.queryRow(ctx, `SELECT count(*) FROM documents d WHERE d.kind = ? AND (`+c.SQL+`)`, args...).Scan(&n)
		return n, err
	})
}

// Distinct implements store.Reader.
func (r reader) Distinct(ctx context.Context, kind store.Kind, field store.Path, where store.Expr) ([]string, error) {
	out, err := limited(ctx, r, "read the values of "+string(kind)+" documents", func(ctx context.Context) ([]string, error) {
		return r.distinct(ctx, kind, field, where)
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

func (r reader) distinct(ctx context.Context, kind store.Kind, field store.Path, where store.Expr) ([]string, error) {
	c := r.compile(kind, where)
	col, isColumn := columnOf(field)
	if !c.exact || !isColumn || col.holds != texts {
		docs, err := r.find(ctx, kind, store.Query{Where: where})
		var out []string
		for _, doc := range docs {
			out = append(out, textsAt(doc, field)...)
		}
		return out, err
	}
	text := `SELECT DISTINCT d.` + col.quoted() + ` FROM documents d WHERE d.kind = ? AND (` + c.SQL + `) AND d.` + col.quoted() + ` <> ''`
	args := []any{string(kind)}
	if where == nil && col.indexed() {
		text, args = allValues(col), []any{string(kind), string(kind)}
	}
	return values[string](ctx, r, text, append(args, c.Args...))
}

// allValues goes from each value of an indexed column to the next in the index, and so skips the
// documents with the same value.
func allValues(col column) string {
	name := col.quoted()
	return `WITH RECURSIVE v (value) AS (
	SELECT min(` + name + `) FROM documents WHERE kind = ?
	UNION ALL
	SELECT (SELECT min(d.` + name + `) FROM documents d WHERE d.kind = ? AND d.` + name + ` > v.value) FROM v WHERE v.value IS NOT NULL
) SELECT value FROM v WHERE value IS NOT NULL AND value <> ''`
}

// page cuts a page out of what was found.
func page[T any](found []T, offset, limit int) []T {
	found = found[min(offset, len(found)):]
	if limit > 0 {
		found = found[:min(limit, len(found))]
	}
	return found
}
