//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// trainAll saves one small model in each format that run recognises.
const trainAll = `
import json, os, pickle
import joblib, lightgbm, numpy, xgboost
from sklearn.linear_model import LinearRegression
rng = numpy.random.default_rng(1)
x = rng.random((200, 3))
y = x @ [1.0, 2.0, 3.0]
model = LinearRegression().fit(x, y)
pickle.dump(model, open("plain.pkl", "wb"))
joblib.dump(model, "packed.joblib", compress=3)
booster = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(x, y, feature_names=["a", "b", "c"]), 3)
booster.save_model("trees.json")
booster.save_model("trees.ubj")
lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 3).save_model("leaves.txt")
os.mkdir("folder")
joblib.dump(model, "folder/model.bin")
open("folder/helper.py", "w").write("def rows(body):\n    return [[body['a'], body['b'], body['c']]]\n")
open("folder/preprocess.py", "w").write("""
from helper import rows

class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        body["a"], body["b"], body["c"]
        return rows(body)

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": round(float(data[0]), 3)}
""")
`

func TestRunServesAModelFileAndLeavesNothingBehind(t *testing.T) {
	s := install(t)
	work := filepath.Join(s.dir, "work")
	train := exec.Command(pythonSDK2, "-c", trainAll)
	train.Dir = work
	if out, err := train.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tc := range []struct{ model, what, request string }{
		{"plain.pkl", "sklearn.linear_model._base.LinearRegression (pickle), engine sklearn", "[[0,0,0]]"},
		{"packed.joblib", "(joblib, compressed by zlib), engine sklearn", "[[0,0,0]]"},
		{"trees.json", "XGBoost json, engine xgboost", "[[0,0,0]]"},
		{"trees.ubj", "XGBoost ubj, engine xgboost", "[[0,0,0]]"},
		{"leaves.txt", "LightGBM text, engine lightgbm", "[[0,0,0]]"},
		{"folder", "with code, engine sklearn", `{"a":0,"b":0,"c":0}`},
	} {
		t.Run(tc.model, func(t *testing.T) {
			if err := os.RemoveAll(s.log); err != nil {
				t.Fatal(err)
			}
			args := []string{"run", tc.model}
			for _, name := range []string{"serve", "grpc", "api", "files", "admin"} {
				args = append(args, "--"+name+"-addr", "127.0.0.1:0")
			}
			s.launch(t, role{args: args})
			curl := regexp.MustCompile(`(?s)curl -X POST (\S+) .* -d '([^']*)'\nIt answers:\n  ([^\n]*)\n.*Ctrl-C ends it`)
			var found []string
			s.eventually(t, patience, "run prints a request that works", func() error {
				log, err := os.ReadFile(s.log)
				if err != nil {
					return err
				}
				if found = curl.FindStringSubmatch(string(log)); found == nil {
					return fmt.Errorf("printed: %s", log)
				}
				if !strings.Contains(string(log), tc.what) {
					t.Fatalf("the output lacks %q:\n%s", tc.what, log)
				}
				return nil
			})
			if found[2] != tc.request {
				t.Errorf("request %s, want %s", found[2], tc.request)
			}
			if status, body := roundTrip(http.MethodPost, found[1], "application/json", strings.NewReader(found[2])); status != http.StatusOK || strings.TrimSpace(body) != found[3] {
				t.Errorf("%d %s, want the answer that was printed: %s", status, body, found[3])
			}
			if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := s.end(t, patience); code != 0 {
				t.Errorf("exit code %d", code)
			}
			s.noProcessLeft(t)
			s.nothingIn(t, filepath.Join(s.dir, "tmp"))
			if _, err := os.Stat(s.data); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left over (%v)", s.data, err)
			}
		})
	}
}

func TestRunUsesARunningServiceAndRemovesWhatItAdded(t *testing.T) {
	s := up(t)
	s.runMine(t) // creates a service, which the instance keeps serving
	before := s.must(t, "--json", "model", "list")
	s.runMine(t)
	if after := s.must(t, "--json", "model", "list"); after != before || strings.Contains(after, "mine") {
		t.Errorf("the service after run is\n%s\nbefore\n%s", after, before)
	}
	if out := s.must(t, "--json", "models"); strings.Contains(out, `"id"`) {
		t.Errorf("a model is left over: %s", out)
	}
}

// runMine serves a file of code with the running service until it answers, and then ends run.
func (s *system) runMine(t *testing.T) {
	t.Helper()
	work := filepath.Join(s.dir, "work")
	code := "class Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        return {'y': 1}\n"
	if err := os.WriteFile(filepath.Join(work, "mine.py"), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	run := *s
	run.log = filepath.Join(t.TempDir(), "run.log")
	run.launch(t, role{args: []string{"run", "mine.py"}})
	s.eventually(t, patience, "run deploys", func() error {
		if status, body := s.ask(t, "mine", `{}`); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		log, err := os.ReadFile(run.log)
		if err == nil && !strings.Contains(string(log), "Ctrl-C removes it again") {
			err = fmt.Errorf("printed: %s", log)
		}
		return err
	})
	if err := run.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := run.end(t, patience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// nothingIn fails for every entry of a folder.
func (s *system) nothingIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("%s is left over in %s", entry.Name(), dir)
	}
}
