package tables

import (
	"context"
	"errors"
	"fmt"
	"io"

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
	return s.Tx(ctx, func(tx store.Tx) error {
		w := tx.(writer) // made by Tx above
		var n int
		if err := w.queryRow(ctx, `SELECT count(*) FROM (SELECT seq FROM documents LIMIT 1) AS found`).Scan(&n); err != nil {
			return fmt.Errorf("import: %w", s.dialect.Explain(err))
		}
		if n > 0 {
			return fmt.Errorf("import: the database holds documents: %w", store.ErrExists)
		}
		before, after := s.dialect.Import()
		if err := w.all(ctx, before); err != nil {
			return err
		}
		if err := w.importAll(ctx, next); err != nil {
			return err
		}
		return w.all(ctx, after)
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
	for {
		record, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return w.AppendEvents(ctx, events)
		case err != nil:
			return err
		case record.Setting != nil:
			err = w.SetSetting(ctx, record.Setting.Key, record.Setting.Value)
		case record.Document != nil:
			err = w.Insert(ctx, record.Document.Kind, record.Document.Doc)
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
