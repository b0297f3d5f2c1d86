//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trainForests saves two forests, and a model that cannot be computed in Go.
const trainForests = `
import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
x, y = load_iris(return_X_y=True)
for depth in (1, 5):
    joblib.dump(RandomForestClassifier(20, max_depth=depth, random_state=0).fit(x, y), f"forest{depth}.pkl")
joblib.dump(GaussianNB().fit(x, y), "bayes.pkl")
`

// forkers is the number of processes that wait for endpoints: the one that forks workers, and its standby.
const forkers = 2

type nativeStatus struct {
	Endpoints []struct {
		URL      string `json:"endpoint"`
		State    string `json:"state"`
		Requests int    `json:"requests"`
		Model    struct {
			Workers []any `json:"workers"`
			Native  *struct {
				On     bool   `json:"on"`
				Reason string `json:"reason"`
				Native int    `json:"native_requests"`
				Checks []any  `json:"checks"`
			} `json:"native"`
		} `json:"model"`
	} `json:"endpoints"`
}

// TestAnAcceleratedModelIsServedWithoutPython from model add to the change of its model, beside the same model in Python.
func TestAnAcceleratedModelIsServedWithoutPython(t *testing.T) {
	s := up(t)
	s.must(t, "create", "--name", "native")
	s.python(t, pythonSDK2, writeCode(t, s, "train.py", trainForests))
	for _, name := range []string{"forest1", "forest5", "bayes"} {
		s.must(t, "model", "upload", "--name", name, "--project", "native", "--path", name+".pkl")
	}
	add := func(endpoint, version, model string, more ...string) result {
		return s.cli(t, append([]string{"model", "add", "--engine", "sklearn", "--endpoint", endpoint, "--version", version, "--name", model, "--project", "native", "--wait"}, more...)...)
	}
	proba := []string{"--aux-config", "method=predict_proba", "accelerate=true"}
	if r := add("iris", "1", "forest1", proba...); r.code != 0 {
		t.Fatal(r)
	}
	status := func(url string) (found nativeStatus) {
		t.Helper()
		_, text := s.get(t, s.urls["admin"]+"/status")
		decode(t, text, &found)
		for _, e := range found.Endpoints {
			if e.URL == url {
				found.Endpoints[0] = e
				return found
			}
		}
		t.Fatalf("no endpoint %s in %s", url, text)
		return found
	}
	body := `[[5.1,3.5,1.4,0.2],[6.7,3.1,5.6,2.4]]`
	if code, got := s.ask(t, "iris/1", body); code != http.StatusOK {
		t.Fatalf("%d %s", code, got)
	}
	e := status("iris/1").Endpoints[0]
	if n := e.Model.Native; e.State != "ready" || n == nil || !n.On || n.Native != 1 || len(n.Checks) < 5 || len(e.Model.Workers) > 0 {
		t.Errorf("%+v", e)
	}
	s.eventually(t, patience, "no process is left of the extraction", func() error {
		if left := s.pythons(); len(left) > forkers {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	if out := s.must(t, "model", "list", "-v"); !strings.Contains(out, "RandomForestClassifier") {
		t.Errorf("model list -v:\n%s", out)
	}

	// The same model in Python gives the same bytes, also through a canary of both, and for what is wrong.
	if r := add("iris", "2", "forest1", "--aux-config", "method=predict_proba"); r.code != 0 {
		t.Fatal(r)
	}
	if found := s.pythons(); len(found) <= forkers {
		t.Errorf("no worker of the model in Python is found: %v", found)
	}
	s.must(t, "model", "canary", "--endpoint", "split", "--weights", "0.5", "0.5", "--input-endpoints", "iris/1", "iris/2", "--wait")
	for _, body := range []string{body, `[[5,3,1,1e39]]`, `[[1,2,3]]`, `{"x":1}`, `[[1,2,3,4]`, `[["a",2,3,4]]`, `[[null,2,3,4]]`} {
		code, want := s.ask(t, "iris/2", body)
		for range 8 {
			if got, text := s.ask(t, "split", body); got != code || text != want {
				t.Errorf("%s: %d %s, want %d %s", body, got, text, code, want)
			}
		}
	}
	if one, two := status("iris/1").Endpoints[0], status("iris/2").Endpoints[0]; one.Requests < 5 || two.Requests < 10 || two.Model.Native != nil {
		t.Errorf("%+v %+v", one, two)
	}

	// A new model replaces it without a gap; one that cannot be computed in Go is refused, and auto leaves it in Python.
	stop := s.clients(2, "iris/1", body, func(string) error { return nil })
	if r := add("iris", "1", "forest5", proba...); r.code != 0 {
		t.Error(r)
	}
	if r := add("iris", "2", "forest5", "--aux-config", "method=predict_proba"); r.code != 0 {
		t.Error(r)
	}
	stop.end(t)
	_, want := s.ask(t, "iris/2", body)
	s.wants(t, "iris/1", body, want)
	if r := add("iris", "1", "bayes", proba...); r.code == 0 || !strings.Contains(r.out+r.err, "GaussianNB") {
		t.Errorf("%v", r)
	}
	s.wants(t, "iris/1", body, want)
	if r := add("bayes", "", "bayes", "--aux-config", "accelerate=auto"); r.code != 0 {
		t.Error(r)
	}
	if e := status("bayes").Endpoints[0]; e.Model.Native == nil || e.Model.Native.On || !strings.Contains(e.Model.Native.Reason, "GaussianNB") {
		t.Errorf("%+v", e)
	}

	// After a restart the kept extracts are used.
	kept := func() (names []string) {
		entries, err := os.ReadDir(filepath.Join(s.data, "native"))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprint(entry.Name(), info.Size()))
		}
		return names
	}
	before := kept()
	s.stop(t)
	s.start(t, role{})
	s.eventually(t, patience, "the endpoints are served again", func() error {
		if code, got := s.ask(t, "iris/1", body); code != http.StatusOK || got != want {
			return fmt.Errorf("%d %s", code, got)
		}
		return nil
	})
	if after := kept(); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("extracts before and after a restart:\n%v\n%v", before, after)
	}
}
