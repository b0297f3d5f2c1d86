package listen_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"clearmlserving/listen"
)

func TestRegistryTellsWhereListenersAre(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "endpoints.json")
	r := listen.NewRegistry(file)
	if _, err := listen.ReadRegistry(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first address: %v", err)
	}
	want := map[string]string{"api": "http://127.0.0.1:8008", "files": "http://127.0.0.1:8081", "serve": "http://127.0.0.1:8080"}
	if err := r.SetAll(map[string]string{"api": want["api"], "files": "http://old"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"files", "serve"} {
		if err := r.Set(name, want[name]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := listen.ReadRegistry(file)
	if err != nil || !maps.Equal(got.URLs, want) || got.PID != os.Getpid() || !maps.Equal(r.All(), want) {
		t.Errorf("read %+v, %v", got, err)
	}
	// Programs that use only a few names parse it as an object of strings.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(data, &texts); err != nil || texts["api"] != want["api"] {
		t.Errorf("%s: %v", data, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	if err := r.Remove(); err != nil {
		t.Error(err)
	}
	if err := r.Remove(); err != nil {
		t.Errorf("second time: %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestRegistryOfAnotherProcessStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endpoints.json")
	r := listen.NewRegistry(file)
	if err := r.Set("api", "http://127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	other := fmt.Sprintf(`{"api": "http://127.0.0.1:2", "pid": "%d"}`, os.Getpid()+1)
	writeFile(t, file, []byte(other))
	if err := r.Remove(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != other {
		t.Errorf("the file contains %q, %v", data, err)
	}
}

func TestRegistryThatCanNotBeReadOrWrittenIsNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "endpoints.json")
	for _, text := range []string{"", "{", "[]", `{"api": 1}`} {
		writeFile(t, file, []byte(text))
		if _, err := listen.ReadRegistry(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v", text, err)
		}
		if err := listen.NewRegistry(file).Remove(); err == nil {
			t.Errorf("%q was removed although its owner is unknown", text)
		}
	}
	if err := listen.NewRegistry(filepath.Join(file, "x")).Set("api", "http://h"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("write below a file: %v", err)
	}
	for _, name := range []string{"", "pid"} {
		if err := listen.NewRegistry(filepath.Join(dir, "new.json")).Set(name, "http://h"); err == nil {
			t.Errorf("a listener was named %q", name)
		}
	}
}

func TestRegistryIsWholeAtEveryMoment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endpoints.json")
	r := listen.NewRegistry(file)
	if err := r.Set("api", "http://h"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 25 {
				if err := r.Set(fmt.Sprintf("n%d", i), "http://h"); err != nil {
					t.Error(err)
				}
				if got, err := listen.ReadRegistry(file); err != nil || got.URLs["api"] != "http://h" {
					t.Errorf("read %+v, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}
