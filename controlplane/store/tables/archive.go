package tables

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"clearmlserving/controlplane/store"
)

// export reads all tables, one after the other.
func (r reader) export(ctx context.Context, each func(store.Record) error) error {
	err := r.exportRows(ctx, `SELECT "key", value FROM settings ORDER BY "key"`, each, func(scan func(...any) error) (store.Record, error) {
		var setting store.Setting
		err := scan(&setting.Key, &setting.Value)
		return store.Record{Setting: &setting}, err
	})
	if err != nil {
		return fmt.Errorf("export settings: %w", r.dialect.Explain(err))
	}
	err = r.exportRows(ctx, `SELECT d.kind, b.body FROM documents d JOIN bodies b ON b.seq = d.seq ORDER BY d.seq`, each, func(scan func(...any) error) (store.Record, error) {
		var kind, body string
		if err := scan(&kind, &body); err != nil {
			return store.Record{}, err
		}
		doc, err := decode(store.Kind(kind), []byte(body))
		return store.Record{Document: &store.Document{Kind: store.Kind(kind), Doc: doc}}, err
	})
	if err != nil {
		return fmt.Errorf("export documents: %w", r.dialect.Explain(err))
	}
	err = r.exportRows(ctx, `SELECT `+eventColumns+` FROM events ORDER BY seq`, each, func(scan func(...any) error) (store.Record, error) {
		event, err := scanEvent(scan)
		event.Seq = 0 // the place is that in the export
		return store.Record{Event: &event}, err
	})
	if err != nil {
		return fmt.Errorf("export events: %w", r.dialect.Explain(err))
	}
	return nil
}

func (r reader) exportRows(ctx context.Context, text string, each func(store.Record) error, read func(scan func(...any) error) (store.Record, error)) error {
	rows, err := r.query(ctx, text)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	for rows.Next() {
		record, err := read(rows.Scan)
		if err != nil {
			return err
		}
		if err := each(record); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Import implements store.Store.
func (s Store) Import(ctx context.Context, next func() (store.Record, error)) error {
	const long = 24 * time.Hour // nothing else uses the database meanwhile
	return s.within(ctx, long, func(tx store.Tx) error {
		w := tx.(writer) // made by within
		var n int
		if err := w.queryRow(ctx, `SELECT count(*) FROM (SELECT seq FROM documents LIMIT 1) AS found`).Scan(&n); err != nil {
			return fmt.Errorf("import: %w", s.dialect.Explain(err))
		}
		if n > 0 {
			return fmt.Errorf("import: the database holds documents: %w", store.ErrExists)
		}
		if err := w.importAll(ctx, next); err != nil {
			return err
		}
		return w.all(ctx, s.dialect.Analyze())
	})
}

// all runs statements one after the other.
func (w writer) all(ctx context.Context, statements []string) error {
	for _, text := range statements {
		if _, err := w.exec(ctx, text); err != nil {
			return fmt.Errorf("import: %w", w.dialect.Explain(err))
		}
	}
	return nil
}

func (w writer) importAll(ctx context.Context, next func() (store.Record, error)) error {
	var events []store.Event
	var docs []store.Document
	for {
		record, err := next()
		switch {
		case errors.Is(err, io.EOF):
			if err := w.insertMany(ctx, docs); err != nil {
				return err
			}
			return w.AppendEvents(ctx, events)
		case err != nil:
			return err
		case record.Setting != nil:
			err = w.SetSetting(ctx, record.Setting.Key, record.Setting.Value)
		case record.Document != nil:
			docs = append(docs, *record.Document)
			if len(docs) == documentsAtOnce {
				err = w.insertMany(ctx, docs)
				docs = docs[:0]
			}
		case record.Event != nil:
			events = append(events, *record.Event)
			if len(events) == eventsAtOnce {
				err = w.AppendEvents(ctx, events)
				events = events[:0]
			}
		default:
			err = errors.New("import: a record holds nothing")
		}
		if err != nil {
			return err
		}
	}
}

// documentsAtOnce is how many documents one statement imports.
const documentsAtOnce = 100

// insertMany stores new documents in few statements: one by one, most of the time would
// go into the way to the database.
func (w writer) insertMany(ctx context.Context, docs []store.Document) error {
	if len(docs) == 0 {
		return nil
	}
	var args []any
	rows := map[[2]string]row{}
	for _, d := range docs {
		one, err := newRow(w.dialect, d.Kind, d.Doc)
		if err != nil {
			return err
		}
		id := w.dialect.Text(d.Doc.ID())
		rows[[2]string{string(d.Kind), id}] = one
		args = append(append(args, string(d.Kind), id), one.columns...)
	}
	if len(rows) != len(docs) {
		return errors.New("import: two documents have the same kind and id")
	}
	if err := w.insertRows(ctx, rows, args); err != nil {
		return fmt.Errorf("import %d documents from %s %q on: %w", len(docs), docs[0].Kind, docs[0].Doc.ID(), w.dialect.Explain(err))
	}
	return nil
}

func (w writer) insertRows(ctx context.Context, rows map[[2]string]row, args []any) error {
	added, err := w.query(ctx, `INSERT INTO documents (`+documentColumns()+`) VALUES `+tuples(len(rows), len(args)/len(rows))+` RETURNING kind, id, seq`, args...)
	if err != nil {
		return err
	}
	defer func() { _ = added.Close() }() // Err tells
	var bodies, terms []any
	for added.Next() {
		var kind, id string
		var seq int64
		if err := added.Scan(&kind, &id, &seq); err != nil {
			return err
		}
		one := rows[[2]string{kind, id}]
		bodies = append(bodies, seq, one.body)
		for _, t := range one.terms {
			terms = append(terms, kind, t.field, t.value, seq)
		}
	}
	if err := added.Err(); err != nil {
		return err
	}
	if _, err := w.exec(ctx, `INSERT INTO bodies (seq, body) VALUES `+tuples(len(bodies)/2, 2), bodies...); err != nil {
		return err
	}
	for chunk := range slices.Chunk(terms, 4*termsAtOnce) {
		if _, err := w.exec(ctx, `INSERT INTO terms (kind, field, value, seq) VALUES `+tuples(len(chunk)/4, 4), chunk...); err != nil {
			return err
		}
	}
	return nil
}

// tuples returns n tuples of parameter marks.
func tuples(n, width int) string {
	return strings.TrimSuffix(strings.Repeat("("+marks(width)+"), ", n), ", ")
}
