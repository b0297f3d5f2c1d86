package controlplane_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/controlplane"
)

// A data folder whose database was lost doesn't become a new installation without a word.
func TestALostDatabaseIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		left  string // path of what is beside the database
		spoil func(path string) error
		fails string
		warns string
	}{
		"empty, files are left":       {"files/a", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is empty, but", ""},
		"empty, credentials are left": {"credentials.json", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "is empty, but", ""},
		"missing, files are left":     {"files/a", func(string) error { return nil }, "", "database file is missing"},
		"empty, nothing is left":      {"", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "", ""},
		"empty, an unfinished upload": {"files/.incoming/x", func(path string) error { return os.WriteFile(path, nil, 0o600) }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.left != "" {
				path := filepath.Join(dir, c.left)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.spoil(filepath.Join(dir, "clearml.db")); err != nil {
				t.Fatal(err)
			}
			api := socket(t)
			defer func() { _ = api.Close() }()
			var log bytes.Buffer
			s, err := controlplane.New(controlplane.Options{DataDir: dir, API: api, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err == nil {
				err = s.Close()
				if c.fails != "" {
					t.Fatal("it starts")
				}
			}
			if c.fails == "" && err != nil {
				t.Fatal(err)
			}
			if c.fails != "" && (!strings.Contains(err.Error(), c.fails) || !strings.Contains(err.Error(), "restore a backup")) {
				t.Errorf("%v; want what to do", err)
			}
			if !strings.Contains(log.String(), c.warns) || (c.warns == "" && strings.Contains(log.String(), "WARN")) {
				t.Errorf("the log says:\n%s", log.String())
			}
		})
	}
}

// A restart finds its database in whatever state the process left it.
func TestARestartIsNoLoss(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		r := start(t, controlplane.Options{DataDir: dir})
		if status, _, text := r.send(t, "PUT", r.files+"/p/a", "kept"); status != 200 {
			t.Fatalf("PUT: %d %s", status, text)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}
