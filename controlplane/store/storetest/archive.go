package storetest

import (
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

func (c contract) eventsExpire() {
	t, s := c.t, c.s
	for i := range 10 {
		appendEvents(t, s, event(fmt.Sprint(i), fmt.Sprint("t", i%2), "log", "", "", 0, int64(10-i)))
	}
	expire := func(before int64, limit int) int {
		n := 0
		if err := s.Tx(t.Context(), func(tx store.Tx) error {
			var err error
			n, err = tx.ExpireEvents(t.Context(), before, limit)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if a, b, c := expire(6, 3), expire(6, 3), expire(6, 3); a != 3 || b != 2 || c != 0 {
		t.Errorf("removed %d, %d, and %d; want 3, 2, and 0", a, b, c)
	}
	if diff := cmp.Diff([]string{"4", "3", "2", "1", "0"}, found(t, s, store.EventQuery{Tasks: []string{"t0", "t1"}})); diff != "" {
		t.Error(diff)
	}
}

func (c contract) exported() {
	t, s := c.t, c.s
	insert(t, s, store.Task, samples(t)...)
	insert(t, s, store.User, store.Doc{"id": "u", "name": "user"})
	appendEvents(t, s, event("a", "t1", "log", "", "", 0, 30), event("b", "t1", "scalar", "m", "v", -1<<31, 10))
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.SetSetting(t.Context(), "key", "value") }); err != nil {
		t.Fatal(err)
	}
	all := func() []store.Record {
		var out []store.Record
		if err := s.Export(t.Context(), func(r store.Record) error { out = append(out, r); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := all()
	replay := func(records []store.Record, end error) func() (store.Record, error) {
		return func() (store.Record, error) {
			if len(records) == 0 {
				return store.Record{}, end
			}
			next := records[0]
			records = records[1:]
			return next, nil
		}
	}
	if err := s.Import(t.Context(), replay(want, io.EOF)); !errors.Is(err, store.ErrExists) {
		t.Errorf("import into a full store: %v, want store.ErrExists", err)
	}
	if err := s.Tx(t.Context(), func(tx store.Tx) error {
		for _, r := range want {
			if r.Document != nil {
				if err := tx.Delete(t.Context(), r.Document.Kind, r.Document.Doc.ID()); err != nil {
					return err
				}
			}
		}
		_, err := tx.DeleteEvents(t.Context(), store.EventQuery{Tasks: []string{"t1"}})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := s.Import(t.Context(), replay(want, broken)); !errors.Is(err, broken) {
		t.Errorf("an import that breaks off: %v, want its error", err)
	}
	if n, err := s.Count(t.Context(), store.Task, nil); err != nil || n != 0 {
		t.Errorf("%d documents are left of an import that broke off, %v", n, err)
	}
	if err := s.Import(t.Context(), replay(want, io.EOF)); err != nil {
		t.Fatal(err)
	}
	insert(t, s, store.Task, store.Doc{"id": "later", "name": "alphabetical"})
	n, err := s.Count(t.Context(), store.Task, store.Regexp{Path: store.Path{"name"}, Pattern: regexp.MustCompile("(?i)alpha")})
	if err != nil || n != 5 {
		t.Errorf("of what was imported, and one after it, %d names are found, %v, want 5", n, err)
	}
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Delete(t.Context(), store.Task, "later") }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, all()); diff != "" {
		t.Errorf("imported (-exported +imported):\n%s", diff)
	}
}
