package worker_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/worker"
)

// confinedCode tells what its process may do.
const confinedCode = `
import ctypes, os, resource

FILE = __file__

class Preprocess:
    def load(self, path):
        self.text = open(path).read()

    def process(self, data, state, collect=None):
        if isinstance(data, dict) and "read" in data:
            try:
                open(data["read"]).close()
                return "read"
            except OSError as error:
                return type(error).__name__
        privileges = {k: v for k, v in (line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)}
        return {
            "uids": sorted(set(os.getresuid())), "gids": sorted(set(os.getresgid())), "groups": os.getgroups(),
            "core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "model": self.text, "sure": privileges["NoNewPrivs"], "may": privileges["CapEff"].strip("0"), "ppid": os.getppid(),
        }
`

// confinement is what confinedCode answers.
type confinement struct {
	UIDs, GIDs, Groups []int
	Core, Files        [2]int
	Model, Sure, May   string
}

// confinedWorld puts code and model below a data folder as the service's cache
// has them: closed to everybody else.
func confinedWorld(t *testing.T, workers int, change func(o *worker.Options, dir string)) (g *worker.Group, dir string) {
	t.Helper()
	dir = filepath.Dir(t.TempDir())
	closed := filepath.Join(dir, "cache", "x")
	if err := os.MkdirAll(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cache/x/preprocess.py": confinedCode, "cache/x/model": "weights", "credentials.json": "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, func(o *worker.Options) { change(o, dir) })
	g = w.start(t, "confined", "", func(s *worker.Spec) {
		s.CodePath, s.ModelPath, s.Workers = filepath.Join(closed, "preprocess.py"), filepath.Join(closed, "model"), workers
	})
	return g, dir
}

func TestAWorkerLeavesNoCoreAndOpensAsManyFilesAsAllowed(t *testing.T) {
	g, _ := confinedWorld(t, 1, func(o *worker.Options, _ string) { o.OpenFiles = 200 })
	var c confinement
	if err := json.Unmarshal([]byte(ask(t, g, `0`)), &c); err != nil {
		t.Fatal(err)
	}
	if c.Core != [2]int{} || c.Files != [2]int{200, 200} {
		t.Errorf("%+v", c)
	}
}

func TestUserCodeRunsAsTheAccountAndCannotReadOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may start processes of other accounts")
	}
	const nobody = 65534
	for _, workers := range []int{1, 2} { // two are forked from a template that has changed over already
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			g, dir := confinedWorld(t, workers, func(o *worker.Options, dir string) {
				o.Account = &worker.Account{UID: nobody, GID: nobody, DataDir: dir}
			})
			var c confinement
			if err := json.Unmarshal([]byte(ask(t, g, `0`)), &c); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(c.UIDs, c.GIDs, c.Groups) != "[65534] [65534] []" || c.Model != "weights" || c.Sure != "1" || c.May != "" {
				t.Errorf("%+v", c)
			}
			for _, name := range []string{"credentials.json", "", "cache"} {
				if got := ask(t, g, fmt.Sprintf(`{"read":%q}`, filepath.Join(dir, name))); !strings.Contains(got, "Error") {
					t.Errorf("%q was %s", name, got)
				}
			}
			if info, err := os.Stat(filepath.Join(dir, "credentials.json")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the credentials: %v, %v", info.Mode(), err)
			}
		})
	}
}
