package tables_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/sqlite/sqlitetest"
	"clearmlserving/controlplane/store/tables"
)

// A transaction that takes too long is undone, and the next one goes on.
func TestATransactionHoldsTheOthersUpForAWhileOnly(t *testing.T) {
	s := sqlitetest.Open(t, filepath.Join(t.TempDir(), "clearml.db"))
	undo := tables.SetMaxHold(50 * time.Millisecond)
	began := 0
	err := s.Tx(t.Context(), func(tx store.Tx) error {
		began++
		if err := tx.Insert(t.Context(), store.Task, store.Doc{"id": "a"}); err != nil {
			return err
		}
		for {
			if _, err := tx.Count(t.Context(), store.Task, nil); err != nil {
				return err
			}
		}
	})
	undo()
	if !errors.Is(err, store.ErrTooMuch) || began != 1 {
		t.Errorf("%v after %d attempts, want ErrTooMuch", err, began)
	}
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), store.Task, store.Doc{"id": "b"}) }); err != nil {
		t.Errorf("the next transaction: %v", err)
	}
	if n, err := s.Count(t.Context(), store.Task, nil); err != nil || n != 1 {
		t.Errorf("%d tasks are stored, %v; want the second one", n, err)
	}
}

// A query that takes too long gives its connection back.
func TestAQueryHoldsAConnectionForAWhileOnly(t *testing.T) {
	s := sqlitetest.Open(t, filepath.Join(t.TempDir(), "clearml.db"))
	undo := tables.SetMaxHold(time.Nanosecond)
	for name, read := range map[string]func() error{
		"query":    func() error { _, err := s.Query(t.Context(), store.Task, store.Query{}); return err },
		"count":    func() error { _, err := s.Count(t.Context(), store.Task, nil); return err },
		"distinct": func() error { _, err := s.Distinct(t.Context(), store.Task, store.Path{"tags"}, nil); return err },
		"events":   func() error { _, err := s.Events(t.Context(), store.EventQuery{Tasks: []string{"a"}}); return err },
		"counted":  func() error { _, err := s.CountEvents(t.Context(), store.EventQuery{Tasks: []string{"a"}}); return err },
	} {
		if err := read(); !errors.Is(err, store.ErrTooMuch) {
			t.Errorf("%s: %v, want ErrTooMuch", name, err)
		}
	}
	undo()
	if _, err := s.Query(t.Context(), store.Task, store.Query{}); err != nil {
		t.Error(err)
	}
}

func TestADocumentHasABound(t *testing.T) {
	s := sqlitetest.Open(t, filepath.Join(t.TempDir(), "clearml.db"))
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), store.Task, store.Doc{"id": "a"}) }); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 64<<10)
	for name, c := range map[string]struct {
		doc  store.Doc
		want error
	}{
		"64 MiB":                {store.Doc{"text": string(make([]byte, 11<<20))}, store.ErrTooLarge}, // each byte is six in JSON
		"a long comment":        {store.Doc{"comment": long + "x"}, store.ErrTooLong},
		"a long tag":            {store.Doc{"tags": []any{"a", long + "x"}}, store.ErrTooLong},
		"all as long as can be": {store.Doc{"comment": long, "text": long + long, "tags": []any{"a", long}}, nil},
	} {
		c.doc["id"] = "a"
		if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Put(t.Context(), store.Task, c.doc) }); !errors.Is(err, c.want) {
			t.Errorf("put %s: %.200v, want %v", name, err, c.want)
		}
		c.doc["id"] = name
		if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), store.Task, c.doc) }); !errors.Is(err, c.want) {
			t.Errorf("insert %s: %.200v, want %v", name, err, c.want)
		}
	}
}
