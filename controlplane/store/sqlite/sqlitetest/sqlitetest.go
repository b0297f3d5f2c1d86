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
func Open(tb testing.TB, path string) store.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close the database: %v", err)
		}
	})
	return s
}
