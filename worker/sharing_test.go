package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

const (
	loadWorkers  = 3
	loadClients  = 6
	loadRequests = 240
)

// loadStates are the codes of testdata/load by name. Each leaves something else behind
// when it has loaded; its first line says whether its workers may share the loaded process.
func loadStates(tb testing.TB) map[string]bool {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "load", "*.py"))
	if err != nil || len(files) < 40 {
		tb.Fatalf("%d codes (%v)", len(files), err)
	}
	states := make(map[string]bool)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		first, _, _ := bytes.Cut(source, []byte("\n"))
		if kind := string(first); kind != "# shared" && kind != "# separate" {
			tb.Fatalf("%s begins with %q", file, kind)
		}
		states[strings.TrimSuffix(filepath.Base(file), ".py")] = string(first) == "# shared"
	}
	return states
}

// numberedLines is the model of the codes: line n holds 7n+3.
func numberedLines(tb testing.TB) string {
	tb.Helper()
	var lines bytes.Buffer
	for n := range 1000 {
		fmt.Fprintf(&lines, "%07d\n", 7*n+3)
	}
	file := filepath.Join(tb.TempDir(), "lines")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

// owned asks every worker, each request for another part, and returns what the workers
// say is their own. Every answer must be right.
func owned(t *testing.T, g *worker.Group) map[string]bool {
	t.Helper()
	eventually(t, "all workers are there", func() bool {
		s := g.Status()
		return s.State == serving.StateReady && len(s.Workers) == loadWorkers
	})
	var mu sync.Mutex
	own := make(map[string]bool)
	questions := make(chan int)
	var clients sync.WaitGroup
	for range loadClients {
		clients.Go(func() {
			for n := range questions {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				r, err := g.Do(ctx, &worker.Request{Body: fmt.Appendf(nil, `{"n": %d}`, n), ContentType: "application/json"})
				cancel()
				if err != nil {
					t.Errorf("n=%d: %v", n, err)
					continue
				}
				var got struct {
					Y   *int
					Own json.RawMessage
				}
				if r.Status != 200 || json.Unmarshal(r.Body, &got) != nil || got.Y == nil || *got.Y != 7*n+3 {
					t.Errorf("n=%d: want %d, got %d %.300s", n, 7*n+3, r.Status, r.Body)
				}
				if got.Own != nil {
					mu.Lock()
					own[string(got.Own)] = true
					mu.Unlock()
				}
			}
		})
	}
	for n := range loadRequests {
		questions <- n * 37 % 1000
	}
	close(questions)
	clients.Wait()
	return own
}

func TestWorkersAnswerRightWhateverTheirLoadLeaves(t *testing.T) {
	lines := numberedLines(t)
	w := newWorld(t, func(o *worker.Options) { o.Preload = []string{"numpy"} })
	installed(t, "numpy")
	for name, shared := range loadStates(t) {
		t.Run(name, func(t *testing.T) {
			folder, err := os.MkdirTemp("", "") //nolint:usetesting // whose folder is too long for the name of a socket
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(folder) }()
			g := w.start(t, name, filepath.Join("..", "load", name+".py"), func(s *worker.Spec) {
				s.Workers, s.ModelPath = loadWorkers, lines
				s.Env = append(s.Env, "TMPDIR="+folder)
			})
			defer func() { _ = g.Close(context.Background()) }()
			own := owned(t, g)
			s := g.Status()
			if s.Shared != shared || s.SharedReason == "" {
				t.Errorf("shared: %t (%s), want %t", s.Shared, s.SharedReason, shared)
			}
			if s.Restarts > 0 {
				t.Errorf("%d workers died: %s", s.Restarts, s.LastDeath)
			}
			if len(own) == 0 || t.Failed() {
				return
			}
			asked := 0
			for _, one := range s.Workers {
				if one.Requests > 0 {
					asked++
				}
			}
			if len(own) != asked {
				t.Errorf("%d workers say that %d things are their own: %v", asked, len(own), own)
			}
			for _, one := range s.Workers {
				_ = syscall.Kill(one.PID, syscall.SIGKILL)
			}
			eventually(t, "all workers are replaced", func() bool { return g.Status().Restarts == loadWorkers })
			for again := range owned(t, g) {
				if own[again] {
					t.Errorf("after a restart a worker says again that %s is its own", again)
				}
			}
		})
	}
}

// What was loaded once is unloaded once, by the process that has loaded it, after the
// last of the workers.
func TestCodeMaySayWhetherItIsShared(t *testing.T) {
	w := newWorld(t, nil)
	events := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(events, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g := w.start(t, "shares", "shares.py", func(s *worker.Spec) { s.Workers, s.ModelPath = loadWorkers, events })
	answersOf(t, g, loadWorkers)
	s := g.Status()
	if !s.Shared || !strings.Contains(s.SharedReason, "share_loaded = True") {
		t.Errorf("status = %+v", s)
	}
	_ = syscall.Kill(s.Workers[0].PID, syscall.SIGKILL)
	eventually(t, "the worker is replaced", func() bool { return g.Status().Restarts == 1 })
	answersOf(t, g, loadWorkers)
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(events)
	if string(got) != "load\nunload\n" {
		t.Errorf("events: %q (%v)", got, err)
	}
	g = w.start(t, "shares not", "shares_not.py", func(s *worker.Spec) { s.Workers = 2 })
	if s := g.Status(); s.Shared || !strings.Contains(s.SharedReason, "share_loaded = False") {
		t.Errorf("status = %+v", s)
	}
}

func TestALoadThatAsksAnotherEndpointIsNotShared(t *testing.T) {
	w := newWorld(t, nil)
	w.start(t, "echo", "echo.py", nil)
	file := filepath.Join(t.TempDir(), "preprocess.py")
	source := "class Preprocess:\n def load(self, path):\n  self.y = self.send_request('echo', data=7)\n def process(self, data, state, collect): return self.y\n"
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	g := w.start(t, "asks", "", func(s *worker.Spec) { s.Workers, s.CodePath = 2, file })
	if s := g.Status(); s.Shared || !strings.Contains(s.SharedReason, "asked another endpoint") {
		t.Errorf("status = %+v", s)
	}
	if got := ask(t, g, `1`); got != "7" {
		t.Error(got)
	}
}

// A worker that ends because nobody asks unloads what it has loaded, not what others have.
func TestAWorkerThatEndsLeavesTheOthersTheirFolder(t *testing.T) {
	w := newWorld(t, nil)
	folder := t.TempDir()
	g := w.start(t, "folder", filepath.Join("..", "load", "temporary_folder.py"), func(s *worker.Spec) {
		s.Workers, s.Elastic, s.ModelPath = loadWorkers, loadWorkers-1, numberedLines(t)
		s.Limits.IdleTimeout = 0.1
		s.Env = append(s.Env, "TMPDIR="+folder)
	})
	eventually(t, "all workers are needed", func() bool {
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() { ask(t, g, `{"n": 5}`) })
		}
		clients.Wait()
		return len(g.Status().Workers) == loadWorkers
	})
	eventually(t, "all but one have ended", func() bool {
		left, err := os.ReadDir(folder)
		return err == nil && len(left) == 1 && len(g.Status().Workers) == 1
	})
	for range 5 {
		if got := ask(t, g, `{"n": 5}`); got != `{"y":38}` {
			t.Error(got)
		}
	}
}

const trainKnown = `
import sys, os, joblib, numpy, xgboost, lightgbm
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
folder = sys.argv[1]
x, y = load_iris(return_X_y=True)
joblib.dump(RandomForestClassifier(20).fit(x, y), os.path.join(folder, "forest"))
joblib.dump(MLPClassifier(max_iter=5).fit(x, y), os.path.join(folder, "network"))
joblib.dump(HistGradientBoostingClassifier(max_iter=3).fit(x, y), os.path.join(folder, "boosted"))
words = [" ".join(f"w{i * 7 % 5000}" for i in range(n, n + 5000)) for n in range(4)]
joblib.dump(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, [0, 1, 0, 1]), os.path.join(folder, "text"))
xgboost.XGBClassifier(n_estimators=3).fit(x, y).save_model(os.path.join(folder, "xgboost.json"))
lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(x, y).booster_.save_model(os.path.join(folder, "lightgbm.txt"))
`

const joblibCode = `
import joblib
class Preprocess:
    def load(self, path):
        self._model = joblib.load(path)
        return self._model
    def process(self, data, state, collect):
        return self._model.predict([[5.1, 3.5, 1.4, 0.2]])
`

const plainCode = `
class Preprocess:
    def __init__(self):
        self.classes = ["a", "b", "c"]
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        return [[5.1, 3.5, 1.4, 0.2]]
    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"y": self.classes[int(data[0])]}
`

const elaborateCode = `
import json, logging, os, re, sys, time, datetime, pickle
from pathlib import Path
from typing import Any
import joblib
import numpy as np
from scipy.special import expit
from sklearn.metrics import pairwise_distances
logging.basicConfig(level=logging.INFO)
log = logging.getLogger(__name__)
class Preprocess:
    def __init__(self):
        self.started = time.time()
        self.at = datetime.datetime.now()
        self.home = os.environ.get("HOME", str(Path(__file__).parent))
    def load(self, path: str) -> Any:
        with open(path, "rb") as file:
            self._model = joblib.load(file)
        self._scaler = np.diag([1.0, 1.0, 1.0, expit(0.0) * 2])
        log.info("loaded %s", type(self._model))
        self._model.predict(np.zeros((1, 4)))
        return self._model
    def process(self, data, state, collect):
        return self._model.predict([[5.1, 3.5, 1.4, 0.2]] @ self._scaler)
`

// A model that is loaded with a library that is known must stay shared: its memory
// would otherwise be taken once for each worker.
func TestModelsOfKnownLibrariesStayShared(t *testing.T) {
	env := installed(t, "sklearn", "numpy", "joblib", "xgboost", "lightgbm")
	folder := t.TempDir()
	child, err := process.Start(t.Context(), process.Spec{Path: env.Executable, Args: []string{"-c", trainKnown, folder}, Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatal(d.Detail())
	}
	for name, preload := range map[string][]string{"imported before": nil, "imported by the load": {}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *worker.Options) { o.Preload = preload })
			for _, c := range []struct{ name, engine, model, code string }{
				{"forest", "sklearn", "forest", ""},
				{"network", "sklearn", "network", ""},
				{"boosted", "sklearn", "boosted", ""},
				{"text", "sklearn", "text", ""},
				{"xgboost", "xgboost", "xgboost.json", ""},
				{"lightgbm", "lightgbm", "lightgbm.txt", ""},
				{"forest with plain code", "sklearn", "forest", plainCode},
				{"xgboost with plain code", "xgboost", "xgboost.json", plainCode},
				{"forest loaded by code", "custom", "forest", joblibCode},
				{"forest with load", "sklearn", "forest", joblibCode},
				{"forest in elaborate code", "custom", "forest", elaborateCode},
			} {
				if preload != nil && c.code != elaborateCode && c.code != plainCode {
					continue // each takes seconds to import
				}
				g := w.start(t, c.name, "", func(s *worker.Spec) {
					s.Workers, s.Engine, s.ModelPath, s.CodePath = 2, c.engine, filepath.Join(folder, c.model), ""
					if c.code != "" {
						s.CodePath = filepath.Join(t.TempDir(), "preprocess.py")
						if err := os.WriteFile(s.CodePath, []byte(c.code), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				})
				if s := g.Status(); !s.Shared {
					t.Errorf("%s: not shared: %s", c.name, s.SharedReason)
				}
			}
		})
	}
}
