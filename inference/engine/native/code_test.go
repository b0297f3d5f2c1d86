package native

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
)

const around = `
import numpy as np


class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        state["k"] = body["k"]
        how, rows = body["as"], body["rows"]
        if how == "list":
            return rows
        if how == "float32":
            return np.array(rows, dtype="float32")
        if how == "columns":
            return {name: np.array(column) for name, column in zip("abcde", np.array(rows).T)}
        return np.array(rows)

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"k": state["k"], "type": type(data).__name__, "dtype": str(data.dtype), "y": data.tolist()}
`

func TestCodeRunsAroundAModelInGo(t *testing.T) {
	w := running(t)
	dir := fitted(t, "forest_words", "forest_named", "logistic3")
	code := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(code, []byte(around), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, method := range map[string]string{"forest_named": "predict_proba", "forest_words": "", "logistic3": "predict"} {
		spec := specOf(dir, name, with(method))
		spec.CodePath, spec.CodeName = code, "py_code"
		m, inPython := load(t, w, spec), load(t, w.python, spec)
		for _, how := range []string{"list", "array", "float32", "columns"} {
			if how == "columns" && name != "forest_named" || how == "float32" && name == "logistic3" {
				continue
			}
			body := `{"k":7,"as":"` + how + `","rows":[[1,50,-3,1000,0.01],[-1.5,60,-2.9,500,0.02]]}`
			want, got := ask(t, inPython, body), ask(t, m, body)
			text := strings.ReplaceAll(string(want.Body), `"dtype":"<U7"`, `"dtype":"object"`) // texts of any length
			if how == "columns" {                                                              // a dict is no input of the model in Python
				text = string(ask(t, inPython, strings.Replace(body, "columns", "array", 1)).Body)
			}
			if got.Status != 200 || string(got.Body) != text {
				t.Errorf("%s as %s: %d %s, want %s", name, how, got.Status, got.Body, text)
			}
		}
		for body, says := range map[string]string{
			`{"k":1,"as":"list","rows":[[1,2,3]]}`:             "rows of 5 numbers",
			`{"k":1,"as":"array","rows":[["a",2,3,4,5]]}`:      "rows of 5 numbers",
			`{"k":1,"as":"array","rows":[[1e39,1e300,3,4,5]]}`: "",
			`{"as":"list"}`: "KeyError",
		} {
			got := ask(t, m, body)
			if got.Status < 400 && says != "" || !strings.Contains(string(got.Body), says) {
				t.Errorf("%s: %s: %d %s", name, body, got.Status, got.Body)
			}
		}
		if n := m.Status().Native; !n.On || n.Native < 2 || len(m.Status().Workers) == 0 {
			t.Errorf("%s: %+v", name, m.Status())
		}
	}
	spec := specOf(dir, "forest_words", map[string]any{"accelerate": "auto"})
	spec.CodePath, spec.CodeName = code, "py_code"
	if n := load(t, w, spec).Status().Native; n.On || !strings.Contains(n.Reason, "preprocess code") {
		t.Errorf("auto: %+v", n)
	}
	own := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(own, []byte("class Preprocess:\n    def load(self, path):\n        import joblib\n        return joblib.load(path)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*engine.Spec){
		"a model of its own": func(s *engine.Spec) { s.CodePath = own },
		"environment=own": func(s *engine.Spec) {
			s.Endpoint.AuxiliaryCfg = map[string]any{"accelerate": true, "environment": "own"}
		},
	} {
		spec := specOf(dir, "forest_words", with(""))
		spec.CodePath, spec.CodeName = code, "py_code"
		change(&spec)
		_, err := w.Load(t.Context(), spec)
		if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !failed.Final || !strings.Contains(failed.Text, says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
