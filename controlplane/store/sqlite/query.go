package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// Query implements store.Reader. SQL narrows the documents down and, where it can say
// all of the filter and the order, pages too; the rest is done here by Match and Sort.
func (r reader) Query(ctx context.Context, kind store.Kind, q store.Query) ([]store.Doc, error) {
	docs, err := r.query(ctx, kind, q)
	if err != nil {
		return nil, fmt.Errorf("query %s documents: %w", kind, explain(err))
	}
	return docs, nil
}

func (r reader) query(ctx context.Context, kind store.Kind, q store.Query) ([]store.Doc, error) {
	where := compile(kind, q.Where)
	order, ordered := orderBy(q.Order)
	paged := where.exact && ordered // SQL does all of it
	text := `SELECT d.seq FROM documents d WHERE d.kind = ? AND ` + where.sql + ` ORDER BY ` + order
	args := append([]any{kind}, where.args...)
	if paged && (q.Limit > 0 || q.Offset > 0) {
		text += ` LIMIT ? OFFSET ?`
		args = append(args, cmp.Or(max(q.Limit, 0), -1), q.Offset)
	}
	// Found first and read then: a sort would carry the bodies along, and what is
	// skipped would be read. Both see the same state of the database.
	docs := []store.Doc{}
	err := r.snapshot(ctx, func(db conn) error {
		seqs, err := seqs(ctx, db, text, args)
		if err != nil {
			return err
		}
		skip := 0
		if ordered && !paged {
			skip = q.Offset
		}
		for chunk := range slices.Chunk(seqs, 200) {
			read, err := bodies(ctx, db, kind, chunk)
			if err != nil {
				return err
			}
			for _, doc := range read {
				switch {
				case !where.exact && !q.Where.Match(doc):
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
		store.Sort(docs, q.Order)
		docs = page(docs, q.Offset, q.Limit)
	}
	return docs, nil
}

// snapshot runs several queries on one state of the database: in a transaction on that,
// otherwise in a short one for reading.
func (r reader) snapshot(ctx context.Context, read func(conn) error) error {
	pool, ok := r.db.(*sql.DB)
	if !ok {
		return read(r.db)
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return read(tx)
}

func seqs(ctx context.Context, db conn, text string, args []any) ([]int64, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	var out []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, err
		}
		out = append(out, seq)
	}
	return out, rows.Err()
}

// bodies reads documents in the order of the numbers given.
func bodies(ctx context.Context, db conn, kind store.Kind, seqs []int64) ([]store.Doc, error) {
	args := make([]any, len(seqs))
	at := make(map[int64]int, len(seqs))
	for i, seq := range seqs {
		args[i] = seq
		at[seq] = i
	}
	rows, err := db.QueryContext(ctx, `SELECT seq, body FROM bodies WHERE seq IN (`+marks(len(seqs))+`)`, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	docs := make([]store.Doc, len(seqs))
	for rows.Next() {
		var seq int64
		var body sql.RawBytes
		if err := rows.Scan(&seq, &body); err != nil {
			return nil, err
		}
		if docs[at[seq]], err = decode(kind, body); err != nil {
			return nil, err
		}
	}
	return docs, rows.Err()
}

// Count implements store.Reader.
func (r reader) Count(ctx context.Context, kind store.Kind, where store.Expr) (int, error) {
	c := compile(kind, where)
	if !c.exact {
		docs, err := r.Query(ctx, kind, store.Query{Where: where})
		return len(docs), err
	}
	var n int
	err := r.db.QueryRowContext(ctx, `SELECT count(*) FROM documents d WHERE d.kind = ? AND `+c.sql, append([]any{kind}, c.args...)...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count %s documents: %w", kind, explain(err))
	}
	return n, nil
}

func page(docs []store.Doc, offset, limit int) []store.Doc {
	docs = docs[min(offset, len(docs)):]
	if limit > 0 {
		docs = docs[:min(limit, len(docs))]
	}
	return docs
}

// orderBy returns the SQL of an order, and whether it is all of it.
func orderBy(order []store.Order) (string, bool) {
	if len(order) == 0 {
		return "d.seq", true
	}
	var parts []string
	for _, by := range order {
		c, ok := columnOf(by.Path)
		if !ok {
			return "d.seq", false
		}
		if by.Desc {
			parts = append(parts, "d."+c.name+" DESC") // NULL is the least to SQLite: last
		} else {
			parts = append(parts, "d."+c.name+" ASC NULLS LAST")
		}
	}
	return strings.Join(append(parts, "d.id"), ", "), true
}
