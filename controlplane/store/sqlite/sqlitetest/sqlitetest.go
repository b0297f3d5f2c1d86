// Package sqlitetest gives tests a database of their own, so that what is tested against
// a store needn't know which one it is. It owns nothing beyond the test that asks.
package sqlitetest

import (
	"path/filepath"
	"testing"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/sqlite"
)

// New opens an empty database in a folder of the test and closes it at the test's end.
func New(t *testing.T) store.Store {
	t.Helper()
	return Open(t, filepath.Join(t.TempDir(), "store.db"))
}

// Open opens the database file at path and closes it at the test's end.
func Open(t testing.TB, path string) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return s
}
