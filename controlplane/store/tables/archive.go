package tables

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"clearmlserving/controlplane/store"
)

// export reads all tables, one after the other.
func (r reader) export(ctx context.Context, each func(store.Record) error) error {
	for _, table := range []struct {
		name, query string
		read        func(scanner) (store.Record, error)
	}{
		{"settings", `SELECT "key", value FROM settings ORDER BY "key"`, func(scan scanner) (store.Record, error) {
			var setting store.Setting
			err := scan(&setting.Key, &setting.Value)
			return store.Record{Setting: &setting}, err
		}},
		{"documents", `SELECT d.kind, b.body FROM documents d JOIN bodies b ON b.seq = d.seq ORDER BY d.seq`, func(scan scanner) (store.Record, error) {
			var doc store.Document
			var body string
			err := scan(&doc.Kind, &body)
			if err == nil {
				doc.Doc, err = decode(doc.Kind, []byte(body))
			}
			return store.Record{Document: &doc}, err
		}},
		{"events", `SELECT ` + eventColumns + ` FROM events ORDER BY seq`, func(scan scanner) (store.Record, error) {
			event, err := scanEvent(scan)
			event.Seq = 0 // its position in the export replaces it
			return store.Record{Event: &event}, err
		}},
	} {
		err := r.each(ctx, table.query, nil, func(scan scanner) error {
			record, err := table.read(scan)
			if err != nil {
				return err
			}
			return each(record)
		})
		if err != nil {
			return fmt.Errorf("export %s: %w", table.name, r.dialect.Explain(err))
		}
	}
	return nil
}

// Import implements store.Store.
func (s Store) Import(ctx context.Context, next func() (store.Record, error)) error {
	const long = 24 * time.Hour // there are no other users of the database
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
		if _, err := w.exec(ctx, s.dialect.Analyze()); err != nil {
			return fmt.Errorf("import: %w", s.dialect.Explain(err))
		}
		return nil
	})
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
			err = errors.New("import: an empty record")
		}
		if err != nil {
			return err
		}
	}
}

// documentsAtOnce is how many documents one statement imports.
const documentsAtOnce = 100

// insertMany stores new documents in few statements, which saves round trips to the database.
func (w writer) insertMany(ctx context.Context, docs []store.Document) error {
	if len(docs) == 0 {
		return nil
	}
	rows := make([]row, len(docs))
	for i, d := range docs {
		var err error
		if rows[i], err = newRow(w.dialect, d.Kind, d.Doc); err != nil {
			return err
		}
	}
	n, err := w.insertRows(ctx, rows...)
	if err == nil && n < len(rows) {
		err = errors.New("two documents have the same kind and id")
	}
	if err != nil {
		return fmt.Errorf("import %d documents from %s %q on: %w", len(docs), docs[0].Kind, docs[0].Doc.ID(), w.dialect.Explain(err))
	}
	return nil
}

// tuples returns n tuples of parameter marks.
func tuples(n, width int) string {
	return strings.TrimSuffix(strings.Repeat("("+marks(width)+"), ", n), ", ")
}
