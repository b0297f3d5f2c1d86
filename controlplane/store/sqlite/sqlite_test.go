package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/storetest"
	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func openAt(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func put(ctx context.Context, s *Store, id string) error {
	return s.Tx(ctx, func(tx store.Tx) error {
		return tx.Insert(ctx, store.Task, store.Doc{"id": id, "comment": strings.Repeat("x", 5000)})
	})
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return openAt(t, filepath.Join(t.TempDir(), "store.db"))
	})
}

func TestAnyFileNameIsTaken(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a b.db", "50%.db", "x?y=z#.db", "é&.db"} {
		s, err := Open(t.Context(), filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("the database isn't where it was asked for: %v", err)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	first, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path)
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("second open: %v, want store.ErrInUse with the process and the path", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, path)
}

func TestDatabaseIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store.db"))
	if err := put(t.Context(), s, "a"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 3 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
	}
}

// A killed process leaves the files as they are at that moment: a copy made while the
// database is open and written to is the same.
func TestKilledProcessLosesNothingCommitted(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	s := openAt(t, filepath.Join(dir, "store.db"))
	const committed = 200
	for i := range committed {
		if err := put(t.Context(), s, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	stop := errors.New("killed")
	err := s.Tx(t.Context(), func(tx store.Tx) error {
		if err := tx.Insert(t.Context(), store.Task, store.Doc{"id": "begun"}); err != nil {
			return err
		}
		for _, name := range []string{"store.db", "store.db-wal"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(copied, name), content, 0o600); err != nil {
				return err
			}
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	after := openAt(t, filepath.Join(copied, "store.db"))
	if n, err := after.Count(t.Context(), store.Task, nil); err != nil || n != committed {
		t.Errorf("after the kill there are %d documents, %v, want %d", n, err, committed)
	}
}

func TestFullDiskIsToldAndNothingStored(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	if err := put(t.Context(), s, "before"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA max_page_count = 40`); err != nil {
		t.Fatal(err)
	}
	var err error
	stored := 1
	for i := 0; i < 1000 && err == nil; i++ {
		if err = put(t.Context(), s, fmt.Sprint(i)); err == nil {
			stored++
		}
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want store.ErrFull", err)
	}
	if n, err := s.Count(t.Context(), store.Task, nil); err != nil || n != stored {
		t.Errorf("there are %d documents, %v, want %d", n, err, stored)
	}
	if _, err := s.write.ExecContext(t.Context(), `PRAGMA max_page_count = 100000`); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, "after"); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestUnwritableFolderIsTold(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "store.db")); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("got %v, want store.ErrReadOnly", err)
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	_, err := s.read.ExecContext(t.Context(), `DELETE FROM documents`)
	if !errors.Is(explain(err), store.ErrReadOnly) {
		t.Errorf("got %v, want store.ErrReadOnly", explain(err))
	}
}

func TestDamagedFileIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v, want an error that names the file and says what is wrong", err)
	}
}

func TestTablesOfANewerProgramAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.write.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("got %v, want a refusal that names the version", err)
	}
}

func TestDatabasesOfOlderProgramsAreReadAndWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	old, err := sql.Open("sqlite", dsn(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := fs.Sub(steps, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, old, folder)
	if err == nil {
		_, err = provider.UpTo(t.Context(), 4)
	}
	if err == nil {
		_, err = old.ExecContext(t.Context(), `INSERT INTO documents (kind, id, name) VALUES ('task', 'a', 'an old one'); INSERT INTO bodies VALUES (1, '{"id":"a","name":"an old one"}')`)
	}
	if err := errors.Join(err, old.Close()); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path)
	search := store.Query{Where: store.Regexp{Path: store.Path{"name"}, Pattern: regexp.MustCompile("(?i)OLD")}}
	for _, step := range []struct {
		name, text string
		want       int
	}{{"", "", 1}, {"put", "new", 0}, {"put", "older", 1}, {"delete", "", 0}} {
		err := s.Tx(t.Context(), func(tx store.Tx) error {
			switch step.name {
			case "put":
				return tx.Put(t.Context(), store.Task, store.Doc{"id": "a", "name": step.text})
			case "delete":
				return tx.Delete(t.Context(), store.Task, "a")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if docs, err := s.Query(t.Context(), store.Task, search); err != nil || len(docs) != step.want {
			t.Errorf("after %s %q: %v, %v; want %d", step.name, step.text, docs, err, step.want)
		}
	}
}

func TestContentOutlivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for i := range 3 {
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := put(t.Context(), s, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Count(t.Context(), store.Task, nil); err != nil || n != i+1 {
			t.Errorf("run %d: %d documents, %v", i, n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFieldOfAWrongTypeIsRefused(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	for _, doc := range []store.Doc{{"id": "a", "name": true}, {"id": "a", "ready": "yes"}, {"id": "a", "last_iteration": "1"}} {
		err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), store.Task, doc) })
		if err == nil {
			t.Errorf("%v was stored", doc)
		}
	}
}

// The planner's statistics follow the number of documents by doublings and halvings.
func TestThePlannerLearnsHowManyDocumentsThereAre(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store.db"))
	believed := func() (n int) {
		t.Helper()
		if err := optimize(t.Context(), s.write); err != nil {
			t.Fatal(err)
		}
		const rows = "SELECT coalesce(max(CAST(stat AS INTEGER)), 0) FROM sqlite_stat1 WHERE tbl = 'documents'"
		if err := s.write.QueryRowContext(t.Context(), rows).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	there := 0
	grow := func(to int) {
		t.Helper()
		for ; there < to; there++ {
			if err := put(t.Context(), s, fmt.Sprintf("%032x", there)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, step := range []struct{ to, want int }{{3, 3}, {6, 3}, {7, 7}, {14, 7}, {15, 15}} {
		grow(step.to)
		if got := believed(); got != step.want {
			t.Errorf("of %d documents it believes in %d, want %d", step.to, got, step.want)
		}
	}
	err := s.Tx(t.Context(), func(tx store.Tx) error {
		for i := range 8 {
			if err := tx.Delete(t.Context(), store.Task, fmt.Sprintf("%032x", i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := believed(); got != 7 {
		t.Errorf("of 7 documents it believes in %d", got)
	}
}
