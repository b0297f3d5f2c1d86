//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// sdks are the interpreters with the two major versions of the ClearML SDK.
func sdks() map[string]string { return map[string]string{"SDK 1": pythonSDK1, "SDK 2": pythonSDK2} }

func TestTheExampleIsTrainedDeployedAndAnswersAsScikitLearnDoes(t *testing.T) {
	t.Parallel() // the SDK mostly waits
	for name, python := range sdks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := up(t)
			s.python(t, python, filepath.Join(root, "examples/sklearn/train_model.py"))
			var state struct {
				Model, URL, Framework, Task, Status string
				ByName                              string   `json:"by_name"`
				OutputModels                        []string `json:"output_models"`
				Folds                               int
				Accuracy                            float64
				Parameters                          map[string]string
				Printed                             bool `json:"console_has_the_last_print"`
			}
			decode(t, s.python(t, python, "state.py"), &state)
			if !strings.HasPrefix(state.URL, s.urls["files"]) {
				t.Errorf("the model is at %s, want the file server %s", state.URL, s.urls["files"])
			}
			if state.Framework != "ScikitLearn" || state.Status != "completed" || state.ByName != state.Task {
				t.Errorf("framework %q, status %q, task %s, found by name %s", state.Framework, state.Status, state.Task, state.ByName)
			}
			if len(state.OutputModels) != 1 || state.OutputModels[0] != state.Model {
				t.Errorf("output models %v, want the model %s", state.OutputModels, state.Model)
			}
			if state.Folds != 5 || state.Accuracy < 0.9 || !state.Printed || state.Parameters["General/C"] != "0.5" {
				t.Errorf("reported: %d scalars, accuracy %v, console %v, parameters %v", state.Folds, state.Accuracy, state.Printed, state.Parameters)
			}

			s.must(t, "create", "--name", "serving example")
			s.must(t, "model", "add", "--engine", "sklearn", "--endpoint", "test_model_sklearn",
				"--preprocess", filepath.Join(root, "examples/sklearn/preprocess.py"),
				"--name", "train sklearn model - sklearn-model", "--project", "serving examples")
			row := s.python(t, python, filepath.Join(root, "scripts/demo_model.py"), "row")
			var answer string
			s.eventually(t, patience, "the new endpoint answers", func() error {
				status, got := s.ask(t, "test_model_sklearn", row)
				answer = got
				return statusError(status, got)
			})
			s.python(t, python, filepath.Join(root, "scripts/demo_model.py"), "check", s.urls["serve"]+"/serve/test_model_sklearn", row, answer)
			if status, got := s.ask(t, "test_model_sklearn", `{"alcohol": 1}`); status != http.StatusUnprocessableEntity || !strings.Contains(got, "the request lacks malic_acid") {
				t.Errorf("a request that lacks fields was answered %d %s, want 422 that names them", status, got)
			}
		})
	}
}

func TestWhatTheSDKStoresItReadsBackUnchanged(t *testing.T) {
	t.Parallel() // the SDK mostly waits
	for name, python := range sdks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := up(t)
			wantsOK(t, s.python(t, python, "round_trip.py"))
			wantsOK(t, s.python(t, python, "names.py"))
		})
	}
}

func TestARunWithinTheReuseWindowTakesTheSameTask(t *testing.T) {
	t.Parallel() // the SDK mostly waits
	for name, python := range sdks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := up(t)
			first := idIn(t, s.python(t, python, "reuse.py"))
			if again := idIn(t, s.python(t, python, "reuse.py")); again != first {
				t.Errorf("the second run made task %s, want %s reused", again, first)
			}
			kept := idIn(t, s.python(t, python, "reuse.py", "artifact"))
			if after := idIn(t, s.python(t, python, "reuse.py")); after == kept {
				t.Errorf("task %s has an artifact but was reused", kept)
			}
		})
	}
}

func TestEveryNewModelIsDeployedByAutoUpdate(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	s.python(t, pythonSDK2, "train_tiny.py", "+")
	s.must(t, "model", "auto-update", "--engine", "sklearn", "--endpoint", "tiny", "--max-versions", "2",
		"--name", "train tiny - tiny", "--project", "tiny", "--preprocess", code("tiny.py"))
	s.eventually(t, patience, "the first version answers", func() error {
		status, got := s.ask(t, "tiny/1", `{"x": 3}`)
		if err := answerError(status, got, `{"y":1}`); err != nil {
			_, state := s.get(t, s.urls["serve"]+"/status")
			return fmt.Errorf("%w; status: %s", err, state)
		}
		return nil
	})
	s.python(t, pythonSDK2, "train_tiny.py", "-")
	s.eventually(t, patience, "the second version answers", func() error {
		status, got := s.ask(t, "tiny/2", `{"x": 3}`)
		return answerError(status, got, `{"y":-1}`)
	})
	s.wants(t, "tiny/1", `{"x": 3}`, `{"y":1}`)
	s.must(t, "model", "canary", "--endpoint", "tiny", "--weights", "1.0", "0.0", "--input-endpoint-prefix", "tiny")
	s.eventually(t, patience, "the canary sends everything to the newest", func() error {
		status, got := s.ask(t, "tiny", `{"x": 3}`)
		return answerError(status, got, `{"y":-1}`)
	})
}

func wantsOK(t *testing.T, out string) {
	t.Helper()
	if !strings.HasSuffix(strings.TrimSpace(out), "ok") {
		t.Errorf("the script did not reach its end:\n%s", out)
	}
}

func idIn(t *testing.T, out string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(line, "id="); ok {
			return strings.TrimSpace(id)
		}
	}
	t.Fatalf("no id in %q", out)
	return ""
}
