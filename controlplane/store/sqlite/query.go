package sqlite

import (
	"context"
	"fmt"
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
	text := `SELECT d.id, b.body FROM documents d JOIN bodies b ON b.seq = d.seq WHERE d.kind = ? AND ` + where.sql + ` ORDER BY ` + order
	args := append([]any{kind}, where.args...)
	paged := where.exact && ordered
	if paged && (q.Limit > 0 || q.Offset > 0) {
		limit := q.Limit
		if limit <= 0 {
			limit = -1
		}
		text += ` LIMIT ? OFFSET ?`
		args = append(args, limit, q.Offset)
	}
	rows, err := r.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	docs := []store.Doc{}
	skip := 0
	if ordered && !paged {
		skip = q.Offset
	}
	for rows.Next() {
		var id, body string
		if err := rows.Scan(&id, &body); err != nil {
			return nil, err
		}
		doc, err := decode(kind, id, body)
		if err != nil {
			return nil, err
		}
		if !where.exact && !q.Where.Match(doc) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		docs = append(docs, doc)
		if ordered && q.Limit > 0 && len(docs) == q.Limit {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if !ordered {
		store.Sort(docs, q.Order)
		docs = page(docs, q.Offset, q.Limit)
	}
	return docs, nil
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
