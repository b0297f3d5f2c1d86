package tables

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// Get implements store.Reader.
func (r reader) Get(ctx context.Context, kind store.Kind, id string) (store.Doc, error) {
	var body string
	err := r.queryRow(ctx, `SELECT b.body FROM documents d JOIN bodies b ON b.seq = d.seq WHERE d.kind = ? AND d.id = ?`, string(kind), r.dialect.Text(id)).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%s %q: %w", kind, id, store.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", kind, id, r.dialect.Explain(err))
	}
	return decode(kind, []byte(body))
}

func decode(kind store.Kind, body []byte) (store.Doc, error) {
	doc, err := store.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("decode a stored %s: %w", kind, err)
	}
	return doc, nil
}

// The bounds of a document on writes, each of which writes the whole document and the index
// entries of its texts while others wait. They do not apply to reads and imports.
const (
	maxDocument = 64 << 20
	// maxText bounds a column or a term: searches read them all.
	maxText = 64 << 10
)

func boundedRow(d Dialect, kind store.Kind, doc store.Doc) (row, error) {
	r, err := newRow(d, kind, doc)
	if err == nil && len(r.body) > maxDocument {
		err = fmt.Errorf("%s %q of %d MiB: %w", kind, doc.ID(), len(r.body)>>20, store.ErrTooLarge)
	}
	for i, v := range r.columns {
		if text, ok := v.(string); ok && len(text) > maxText {
			err = fmt.Errorf("%s of %s %q of %d KiB: %w", columns[i].name, kind, doc.ID(), len(text)>>10, store.ErrTooLong)
		}
	}
	for _, t := range r.terms {
		if len(t.value) > maxText {
			err = fmt.Errorf("an element of %s of %s %q of %d KiB: %w", t.field, kind, doc.ID(), len(t.value)>>10, store.ErrTooLong)
		}
	}
	return r, err
}

// Insert implements store.Tx.
func (w writer) Insert(ctx context.Context, kind store.Kind, doc store.Doc) error {
	row, err := boundedRow(w.dialect, kind, doc)
	if err != nil {
		return err
	}
	n, err := w.insertRows(ctx, row)
	if err == nil && n == 0 {
		err = store.ErrExists
	}
	if err != nil {
		return fmt.Errorf("insert %s %q: %w", kind, doc.ID(), w.dialect.Explain(err))
	}
	return nil
}

// insertRows stores new documents and returns how many it stored: those of an existing kind
// and id are left out.
func (w writer) insertRows(ctx context.Context, rows ...row) (int, error) {
	var args, bodies, terms []any
	byID := map[[2]string]row{}
	for _, r := range rows {
		args = append(append(args, r.kind, r.id), r.columns...)
		byID[[2]string{r.kind, r.id}] = r
	}
	// ON CONFLICT: after a failed statement some databases do not go on with a transaction.
	insert := `INSERT INTO documents (` + documentColumns() + `) VALUES ` + tuples(len(rows), len(args)/len(rows)) + ` ON CONFLICT (kind, id) DO NOTHING RETURNING kind, id, seq`
	err := w.each(ctx, insert, args, func(scan scanner) error {
		var name [2]string
		var seq int64
		err := scan(&name[0], &name[1], &seq)
		bodies = append(bodies, seq, byID[name].body)
		terms = append(terms, termArgs(seq, byID[name])...)
		return err
	})
	if err != nil || len(bodies) == 0 {
		return 0, err
	}
	n := len(bodies) / 2
	if _, err := w.exec(ctx, `INSERT INTO bodies (seq, body) VALUES `+tuples(n, 2), bodies...); err != nil {
		return 0, err
	}
	return n, w.insertTerms(ctx, terms)
}

// documentColumns lists the columns of a document in the order of its values.
func documentColumns() string {
	names := []string{"kind", "id"}
	for _, c := range columns {
		names = append(names, c.quoted())
	}
	return strings.Join(names, ", ")
}

// Put implements store.Tx.
func (w writer) Put(ctx context.Context, kind store.Kind, doc store.Doc) error {
	row, err := boundedRow(w.dialect, kind, doc)
	if err != nil {
		return err
	}
	seq, err := w.seq(ctx, kind, doc.ID())
	if err != nil {
		return err
	}
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = c.quoted() + " = ?"
	}
	_, err = w.exec(ctx, `UPDATE documents SET `+strings.Join(sets, ", ")+` WHERE seq = ?`, append(slices.Clone(row.columns), seq)...)
	if err == nil {
		_, err = w.exec(ctx, `UPDATE bodies SET body = ? WHERE seq = ?`, row.body, seq)
	}
	if err == nil {
		err = w.replaceTerms(ctx, seq, row)
	}
	if err != nil {
		return fmt.Errorf("write %s %q: %w", kind, doc.ID(), w.dialect.Explain(err))
	}
	return nil
}

// Delete implements store.Tx.
func (w writer) Delete(ctx context.Context, kind store.Kind, id string) error {
	seq, err := w.seq(ctx, kind, id)
	if err != nil {
		return err
	}
	for _, table := range []string{"documents", "bodies", "terms"} {
		if _, err := w.exec(ctx, `DELETE FROM `+table+` WHERE seq = ?`, seq); err != nil {
			return fmt.Errorf("delete %s %q: %w", kind, id, w.dialect.Explain(err))
		}
	}
	return nil
}

func (w writer) seq(ctx context.Context, kind store.Kind, id string) (int64, error) {
	var seq int64
	err := w.queryRow(ctx, `SELECT seq FROM documents WHERE kind = ? AND id = ?`, string(kind), w.dialect.Text(id)).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%s %q: %w", kind, id, store.ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("look up %s %q: %w", kind, id, w.dialect.Explain(err))
	}
	return seq, nil
}

// termsAtOnce is the number of terms in one statement.
const termsAtOnce = 1000

func termArgs(seq int64, r row) []any {
	args := make([]any, 0, 4*len(r.terms))
	for _, t := range r.terms {
		args = append(args, r.kind, t.field, t.value, seq)
	}
	return args
}

// insertTerms stores terms of four values each.
func (w writer) insertTerms(ctx context.Context, args []any) error {
	for some := range slices.Chunk(args, 4*termsAtOnce) {
		if _, err := w.exec(ctx, `INSERT INTO terms (kind, field, value, seq) VALUES `+tuples(len(some)/4, 4), some...); err != nil {
			return err
		}
	}
	return nil
}

// replaceTerms writes the terms only if they have changed, which is rare: most writes change
// times and numbers.
func (w writer) replaceTerms(ctx context.Context, seq int64, r row) error {
	var stored []term
	err := w.each(ctx, `SELECT field, value FROM terms WHERE seq = ? ORDER BY field, value`, []any{seq}, func(scan scanner) error {
		var t term
		err := scan(&t.field, &t.value)
		stored = append(stored, t)
		return err
	})
	if err != nil {
		return err
	}
	if slices.Equal(stored, r.terms) {
		return nil
	}
	if _, err := w.exec(ctx, `DELETE FROM terms WHERE seq = ?`, seq); err != nil {
		return err
	}
	return w.insertTerms(ctx, termArgs(seq, r))
}

// marks returns n parameter marks.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// Setting implements store.Reader.
func (r reader) Setting(ctx context.Context, key string) (string, error) {
	var value string
	err := r.queryRow(ctx, `SELECT value FROM settings WHERE "key" = ?`, key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("setting %q: %w", key, store.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("read setting %q: %w", key, r.dialect.Explain(err))
	}
	return value, nil
}

// SetSetting implements store.Tx.
func (w writer) SetSetting(ctx context.Context, key, value string) error {
	_, err := w.exec(ctx, `INSERT INTO settings ("key", value) VALUES (?, ?) ON CONFLICT ("key") DO UPDATE SET value = excluded.value`, key, value)
	if err != nil {
		return fmt.Errorf("write setting %q: %w", key, w.dialect.Explain(err))
	}
	return nil
}
