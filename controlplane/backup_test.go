package controlplane_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/store"
)

// everything is what a database holds, without what a start of the server writes.
func everything(t *testing.T, dir, url string) []string {
	t.Helper()
	db, err := controlplane.OpenStore(t.Context(), dir, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	err = db.Export(t.Context(), func(r store.Record) error {
		switch {
		case r.Setting != nil:
			out = append(out, "setting "+r.Setting.Key+" "+r.Setting.Value)
		case r.Document != nil:
			text, err := r.Document.Doc.Encode()
			if err != nil {
				return err
			}
			out = append(out, string(r.Document.Kind)+" "+string(text))
		case r.Event != nil:
			text, err := r.Event.Body.Encode()
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprintf("event %s %s %s %d %d %s", r.Event.ID, r.Event.Task, r.Event.Type, r.Event.Iter, r.Event.Timestamp, text))
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

// furnish writes tasks, events, and files through a running server.
func furnish(t *testing.T, r *running) {
	t.Helper()
	bearer := "Bearer " + r.token(t)
	call := func(name, body string) string {
		status, _, text := r.send(t, "POST", r.api+"/"+name, body, "Authorization", bearer)
		if status != 200 {
			t.Fatalf("%s: %d %s", name, status, text)
		}
		_, data, _ := strings.Cut(text, `"data":`)
		_, after, _ := strings.Cut(data, `"id":"`)
		id, _, _ := strings.Cut(after, `"`)
		return id
	}
	for i := range 20 {
		id := call("tasks.create", fmt.Sprintf(`{"name":"task %d é","type":"training","tags":["x"],"hyperparams":{"Args":{"lr":{"value":"0.10"}}}}`, i))
		call("events.add", fmt.Sprintf(`{"type":"log","task":%q,"timestamp":%d,"msg":"line"}`, id, 1000+i))
		call("events.add", fmt.Sprintf(`{"type":"training_stats_scalar","task":%q,"timestamp":%d,"metric":"m","variant":"v","iter":%d,"value":1.50}`, id, 1000+i, i))
	}
	if status, _, answer := r.send(t, "PUT", r.files+"/p/model.bin", strings.Repeat("weights", 1000)); status != 200 {
		t.Fatalf("PUT: %d %s", status, answer)
	}
}

func TestABackupOfARunningServerIsRestoredWithTokensFilesAndCredentials(t *testing.T) {
	dir, backup, again := t.TempDir(), filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "again")
	first := start(t, controlplane.Options{DataDir: dir})
	furnish(t, first)
	bearer := "Bearer " + first.token(t)
	done, err := controlplane.Backup(t.Context(), backup, controlplane.BackupOptions{DataDir: dir})
	if err != nil || done.Files != 1 || done.Events != 40 || done.Documents < 20 {
		t.Fatalf("backup: %+v, %v", done, err)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup holds secrets and has mode %v, %v", info.Mode(), err)
	}
	if _, err := controlplane.Backup(t.Context(), backup, controlplane.BackupOptions{DataDir: dir}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second backup to the same file: %v, want a refusal", err)
	}
	restored, err := controlplane.Restore(t.Context(), backup, controlplane.BackupOptions{DataDir: again})
	if err != nil || restored != done {
		t.Fatalf("restore: %+v, %v, want %+v", restored, err, done)
	}
	if _, err := controlplane.Restore(t.Context(), backup, controlplane.BackupOptions{DataDir: again}); !errors.Is(err, controlplane.ErrNotEmpty) {
		t.Errorf("a second restore into the same folder: %v, want a refusal", err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everything(t, dir, ""), everything(t, again, "")); diff != "" {
		t.Errorf("the restored database differs (-backed up +restored):\n%s", diff)
	}
	second := start(t, controlplane.Options{DataDir: again})
	if second.access != first.access || second.secret != first.secret {
		t.Error("the credentials differ")
	}
	if status, _, text := second.send(t, "GET", second.files+"/p/model.bin", "", "Authorization", bearer); status != 200 || len(text) != 7000 {
		t.Errorf("with a token of before, the file: %d, %d bytes", status, len(text))
	}
}

func TestABackupMovesAnInstallationToPostgreSQLAndBack(t *testing.T) {
	url := postgresServer.URL(t)
	dir, moved, back := t.TempDir(), filepath.Join(t.TempDir(), "moved"), filepath.Join(t.TempDir(), "back")
	first := start(t, controlplane.Options{DataDir: dir})
	furnish(t, first)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	file := func(n string) string { return filepath.Join(filepath.Dir(moved), n) }
	for _, step := range []struct{ what, from, fromURL, to, toURL string }{
		{"there", dir, "", moved, url},
		{"and back", moved, url, back, ""},
	} {
		if _, err := controlplane.Backup(t.Context(), file(step.what), controlplane.BackupOptions{DataDir: step.from, DatabaseURL: step.fromURL}); err != nil {
			t.Fatal(err)
		}
		if _, err := controlplane.Restore(t.Context(), file(step.what), controlplane.BackupOptions{DataDir: step.to, DatabaseURL: step.toURL}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(everything(t, dir, ""), everything(t, back, "")); diff != "" {
		t.Errorf("it came back otherwise (-before +after):\n%s", diff)
	}
	if _, err := controlplane.Restore(t.Context(), file("there"), controlplane.BackupOptions{DataDir: t.TempDir(), DatabaseURL: url}); !errors.Is(err, controlplane.ErrNotEmpty) {
		t.Errorf("restore into a database in use: %v, want a refusal", err)
	}
	start(t, controlplane.Options{DataDir: moved, DatabaseURL: url})
}

func TestADamagedBackupRestoresNothing(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	r := start(t, controlplane.Options{DataDir: dir})
	furnish(t, r)
	if _, err := controlplane.Backup(t.Context(), backup, controlplane.BackupOptions{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(string(whole))
	flipped[len(flipped)/2] ^= 0x10
	for name, content := range map[string][]byte{
		"empty": nil, "another kind of file": []byte("not a backup"), "cut in the middle": whole[:len(whole)/2],
		"cut by a byte": whole[:len(whole)-1], "a bit flipped": flipped,
	} {
		to, damaged := t.TempDir(), filepath.Join(t.TempDir(), "damaged")
		if err := os.WriteFile(damaged, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := controlplane.Restore(t.Context(), damaged, controlplane.BackupOptions{DataDir: to}); err == nil || !strings.Contains(err.Error(), damaged) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
		if left, err := os.ReadDir(to); err != nil || len(left) != 0 {
			t.Errorf("%s: %v is left, %v", name, left, err)
		}
	}
}

func TestServersOnOneDatabaseShareTokensAndRingEachOther(t *testing.T) {
	url := postgresServer.URL(t)
	first, second := start(t, controlplane.Options{DatabaseURL: url}), start(t, controlplane.Options{DatabaseURL: url})
	bearer := "Bearer " + first.token(t)
	rung := second.Feed().Subscribe(string(store.Task))
	woken := make(chan error, 1) // one result, so that the goroutine never waits
	go func() { woken <- rung.Next(t.Context()) }()
	for listening := true; listening; {
		status, _, text := first.send(t, "POST", first.api+"/tasks.create", `{"name":"made here","type":"service"}`, "Authorization", bearer)
		if status != 200 {
			t.Fatalf("create: %d %s", status, text)
		}
		select {
		case err := <-woken:
			if err != nil {
				t.Fatal(err)
			}
			listening = false
		default: // the other may not listen yet
		}
	}
	if status, _, text := second.send(t, "POST", second.api+"/tasks.get_all", `{}`, "Authorization", bearer); status != 200 || !strings.Contains(text, "made here") {
		t.Errorf("the other server, with a token of the first: %d %s", status, text)
	}
}
