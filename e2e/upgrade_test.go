//go:build linux

package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// tablesVersion reads the version of a database's tables.
func tablesVersion(t *testing.T, s *system) int {
	t.Helper()
	return s.sqlite(t, "SELECT max(version_id) FROM goose_db_version")
}

// sqlite executes a statement on the database of a system that is stopped, and returns the number that it answers, if any.
func (s *system) sqlite(t *testing.T, statement string) int {
	t.Helper()
	const script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); row = db.execute(sys.argv[2]).fetchone(); db.commit(); db.close(); print(row[0] if row else 0)"
	r := s.command(t, nil, pythonSDK2, "-c", script, filepath.Join(s.data, "clearml.db"), statement)
	n, err := strconv.Atoi(strings.TrimSpace(r.out))
	if r.code != 0 || err != nil {
		t.Fatalf("%s: %v %v", statement, err, r)
	}
	return n
}

// TestDataFoldersOfOtherReleases opens the data folders that programs of earlier commits and releases left
// (scripts/data-folder.sh), and one that a newer program left.
func TestDataFoldersOfOtherReleases(t *testing.T) {
	migrations, err := filepath.Glob(filepath.Join(root, "controlplane/store/sqlite/migrations/*.sql"))
	if err != nil {
		t.Fatal(err)
	}
	newest := len(migrations)
	folders, err := filepath.Glob(filepath.Join(root, "e2e/testdata/folders/*.tar.gz"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no folder is kept: make data-folder: %v", err)
	}
	for _, folder := range folders {
		name := strings.TrimSuffix(filepath.Base(folder), ".tar.gz")
		t.Run(name, func(t *testing.T) {
			s := install(t)
			if r := s.command(t, nil, "tar", "-C", s.dir, "-xzf", folder); r.code != 0 {
				t.Fatal(r)
			}
			before := tablesVersion(t, s)
			if before < 1 || before > newest {
				t.Fatalf("its tables are of version %d, the newest are of %d", before, newest)
			}
			s.start(t, role{})
			stopped := false
			t.Cleanup(func() {
				if !stopped {
					s.stop(t)
				}
			})
			answers := func(endpoint, want string) {
				t.Helper()
				s.eventually(t, patience, endpoint+" answers", func() error {
					status, got := s.ask(t, endpoint, `{"x": 4}`)
					return answerError(status, got, want)
				})
			}
			answers("line/1", `{"y":9}`)
			answers("line_canary", `{"y":9}`)
			wantWords(t, "model list", s.must(t, "model", "list", "-v"), "line/1", "line_canary")
			wantWords(t, "models", s.must(t, "models"), "line")
			wantWords(t, "metrics list", s.must(t, "metrics", "list"), "line")

			// It is written to as well: a second version of the endpoint, and a backup.
			model := filepath.Join(s.dir, "work", "steep.json")
			if err := os.WriteFile(model, []byte(`{"slope": 3, "offset": 1}`), 0o644); err != nil {
				t.Fatal(err)
			}
			s.must(t, "model", "upload", "--name", "steep", "--project", "lines", "--path", model, "--framework", "custom")
			s.must(t, "model", "add", "--engine", "custom", "--endpoint", "line", "--version", "2", "--name", "steep", "--project", "lines", "--preprocess", code("line.py"), "--wait")
			answers("line/2", `{"y":13}`)
			answers("line/1", `{"y":9}`)
			s.must(t, "server", "backup", filepath.Join(s.dir, "work", "all.backup"))
			s.stop(t)

			// Without what the instance had fetched, all of it comes from the server.
			for _, name := range []string{"cache", "inference"} {
				if err := os.RemoveAll(filepath.Join(s.data, name)); err != nil {
					t.Fatal(err)
				}
			}
			s.start(t, role{})
			answers("line/1", `{"y":9}`)
			answers("line/2", `{"y":13}`)
			stopped = true
			s.stop(t)
			if after := tablesVersion(t, s); after != newest {
				t.Errorf("its tables were of version %d and are of version %d, want %d", before, after, newest)
			}
			t.Logf("tables of version %d were brought to %d", before, newest)

			// The same folder, as if a newer program had written it.
			s.sqlite(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
			file := filepath.Join(s.data, "clearml.db")
			written, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			said := s.fails(t, role{})
			wantWords(t, "the program", said, file, "tables are of version 99", fmt.Sprintf("knows up to %d", newest), "use the newer program")
			wantNoTrace(t, "the program", said)
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, written) {
				t.Errorf("the refused database was changed (%v)", err)
			}
		})
	}
}
