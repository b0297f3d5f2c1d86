package controlplane_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/controlplane"
	"clearmlserving/storage"
	"clearmlserving/storage/storagetest"
)

// shelf is a place in memory, of which "named" is configured by its name.
type shelf struct {
	mu    sync.Mutex // guards files and fails
	files map[string]bool
	fails []error // what the next removals end with
}

func (s *shelf) Named(url string) bool { return strings.HasPrefix(url, "s3://named/") }

func (s *shelf) Stat(context.Context, string) (storage.Object, error) { return storage.Object{}, nil }

func (s *shelf) Open(context.Context, string, storage.Part) (io.ReadCloser, storage.Object, error) {
	return nil, storage.Object{}, storage.ErrNotExist
}

func (s *shelf) Put(context.Context, string, io.Reader, int64, storage.Progress) error { return nil }

func (s *shelf) Delete(_ context.Context, url string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fails) > 0 {
		err := s.fails[0]
		s.fails = s.fails[1:]
		return err
	}
	if !s.files[url] {
		return storage.ErrNotExist
	}
	delete(s.files, url)
	return nil
}

func (s *shelf) holds(url string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[url]
}

// removed is what an answer says of the files.
type removed struct {
	Files struct {
		Deleted int
		Failed  []struct{ URL, Error string }
	}
}

func TestFilesGoWithTheirModelsWhereTheServerMayRemoveThem(t *testing.T) {
	const transient = "s3://named/flaky/m.pkl"
	place := &shelf{files: map[string]bool{
		"s3://named/m.pkl": true, transient: true, "s3://named/refused.pkl": true, "s3://other/m.pkl": true, "s3://named/../other/m.pkl": true, "s3://named/shared.pkl": true,
	}}
	r := start(t, controlplane.Options{Places: storage.Adapters{"s3": place}})
	own := r.files + "/folder/my%20model.pkl"
	if status, _, text := r.send(t, "PUT", own, "content"); status != 200 {
		t.Fatal(text)
	}
	local := filepath.Join(t.TempDir(), "m.pkl")
	if err := os.WriteFile(local, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	heals := &storage.Error{Op: "delete", URL: transient, Transient: true, Err: errors.New("busy")}
	for _, tc := range []struct {
		uri   string
		fails []error
		says  string // "": the file is removed
	}{
		{uri: own},
		{uri: r.files + "/folder/gone.pkl"},
		{uri: r.files + "/../credentials.json", says: "no such file"},
		{uri: "s3://named/m.pkl"},
		{uri: "s3://named/gone.pkl"},
		{uri: transient, fails: []error{heals, heals}},
		{uri: "s3://named/refused.pkl", fails: []error{storage.ErrDenied}, says: "access is denied"},
		{uri: "s3://other/m.pkl", says: "configured by name"},
		{uri: "s3://named/../other/m.pkl", says: "configured by name"},
		{uri: "gs://named/m.pkl", says: "configured by name"},
		{uri: "file://" + local, says: "configured by name"},
		{uri: local, says: "configured by name"},
		{uri: "http://elsewhere.example/m.pkl", says: "configured by name"},
	} {
		place.mu.Lock()
		place.fails = tc.fails
		place.mu.Unlock()
		var model struct{ ID string }
		r.call(t, "models.create", map[string]any{"name": "model", "uri": tc.uri}, &model)
		var answer removed
		r.call(t, "models.delete", map[string]any{"model": model.ID, "delete_external_artifacts": true}, &answer)
		failed := answer.Files.Failed
		switch {
		case tc.says == "" && (answer.Files.Deleted != 1 || len(failed) > 0 || place.holds(tc.uri)):
			t.Errorf("%s: %+v", tc.uri, answer)
		case tc.says != "" && (len(failed) != 1 || failed[0].URL != tc.uri || !strings.Contains(failed[0].Error, tc.says)):
			t.Errorf("%s: %+v; want %q", tc.uri, answer, tc.says)
		}
	}
	if status, _, _ := r.send(t, "GET", own, ""); status != 404 {
		t.Errorf("the file server's file is still there: %d", status)
	}
	for _, url := range []string{"s3://other/m.pkl", "s3://named/refused.pkl", "s3://named/../other/m.pkl"} {
		if !place.holds(url) {
			t.Errorf("%s is gone", url)
		}
	}
	if _, err := os.Stat(local); err != nil {
		t.Errorf("a file of this machine: %v", err)
	}
	r.sharedFile(t, place)
}

// sharedFile is removed with the last of its models, and only when that is asked for.
func (r *running) sharedFile(t *testing.T, place *shelf) {
	t.Helper()
	const shared = "s3://named/shared.pkl"
	var ids []string
	for range 3 {
		var model struct{ ID string }
		r.call(t, "models.create", map[string]any{"name": "model", "uri": shared}, &model)
		ids = append(ids, model.ID)
	}
	var answer removed
	r.call(t, "models.delete", map[string]any{"model": ids[0], "delete_external_artifacts": true}, &answer)
	if len(answer.Files.Failed) != 1 || !strings.Contains(answer.Files.Failed[0].Error, "2 other models") || !place.holds(shared) {
		t.Errorf("the first of three: %+v", answer)
	}
	r.call(t, "models.delete", map[string]any{"model": ids[1]}, nil)
	if !place.holds(shared) {
		t.Error("removed though nobody asked for it")
	}
	r.call(t, "models.delete", map[string]any{"model": ids[2], "delete_external_artifacts": true}, nil)
	if place.holds(shared) {
		t.Error("the last model's file stays")
	}
}

func TestFilesGoWithTheirTask(t *testing.T) {
	place := &shelf{files: map[string]bool{"s3://named/model.pkl": true, "s3://named/data.csv": true, "s3://named/given.csv": true, "s3://named/published.pkl": true}}
	r := start(t, controlplane.Options{Places: storage.Adapters{"s3": place}})
	var task struct{ ID string }
	r.call(t, "tasks.create", map[string]any{"name": "train", "type": "training"}, &task)
	r.call(t, "tasks.add_or_update_artifacts", map[string]any{"task": task.ID, "artifacts": []any{
		map[string]any{"key": "data", "type": "custom", "uri": "s3://named/data.csv"},
		map[string]any{"key": "more", "type": "custom", "uri": "s3://elsewhere/data.csv"},
		map[string]any{"key": "given", "type": "custom", "mode": "input", "uri": "s3://named/given.csv"},
	}}, nil)
	r.call(t, "models.create", map[string]any{"name": "draft", "uri": "s3://named/model.pkl", "task": task.ID, "ready": false}, nil)
	r.call(t, "models.create", map[string]any{"name": "published", "uri": "s3://named/published.pkl", "task": task.ID, "ready": true}, nil)
	var answer removed
	r.call(t, "tasks.delete", map[string]any{"task": task.ID, "force": true, "delete_external_artifacts": true}, &answer)
	if answer.Files.Deleted != 2 || len(answer.Files.Failed) != 1 || answer.Files.Failed[0].URL != "s3://elsewhere/data.csv" {
		t.Errorf("%+v", answer)
	}
	left := []string{}
	for url := range place.files {
		left = append(left, url)
	}
	slices.Sort(left)
	if strings.Join(left, " ") != "s3://named/given.csv s3://named/published.pkl" {
		t.Errorf("left: %v", left)
	}
}

// A place that is no storage.Named, such as a folder, is never reached.
func TestOnlyPlacesWithNamesLoseFiles(t *testing.T) {
	r := start(t, controlplane.Options{Places: storage.Adapters{"s3": storagetest.NewFaulty(&shelf{files: map[string]bool{"s3://named/m": true}})}})
	var model struct{ ID string }
	r.call(t, "models.create", map[string]any{"name": "model", "uri": "s3://named/m"}, &model)
	var answer removed
	r.call(t, "models.delete", map[string]any{"model": model.ID, "delete_external_artifacts": true}, &answer)
	if len(answer.Files.Failed) != 1 {
		t.Errorf("%+v", answer)
	}
}
