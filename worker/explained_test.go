package worker_test

import (
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/worker"
)

// otherRelease writes models whose pickles say that scikit-learn 1.0.1 has made them:
// one that loads, and one of a class that this release does not know.
const otherRelease = `
import sys, os, pickle, sklearn
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
text = pickle.dumps(model, protocol=2).replace(b"X" + len(sklearn.__version__).to_bytes(4, "little") + sklearn.__version__.encode(), b"X\x05\x00\x00\x001.0.1")
assert b"1.0.1" in text
for name, text in (("old.pkl", text), ("gone.pkl", text.replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model._was_here"))):
    with open(os.path.join(sys.argv[1], name), "wb") as file:
        file.write(text)
`

func TestAModelOfAnotherReleaseIsNamedWithBothVersions(t *testing.T) {
	installed(t, "sklearn")
	dir := t.TempDir()
	runPython(t, otherRelease, dir)
	w := newWorld(t, nil)
	sklearn := func(name string, workers int) func(*worker.Spec) {
		return func(s *worker.Spec) {
			s.Engine, s.CodePath, s.ModelPath, s.Workers = "sklearn", "", filepath.Join(dir, name), workers
		}
	}
	for _, workers := range []int{1, 2} { // two are forked from one that has loaded
		g := w.start(t, "old", "", sklearn("old.pkl", workers))
		told := strings.Join(g.Status().Warnings, "\n")
		if !strings.Contains(told, "made by scikit-learn 1.0.1 and runs with ") || !strings.Contains(told, "(LogisticRegression)") {
			t.Errorf("warnings: %q", told)
		}
		if r := do(t, g, `[["a",1]]`); r.Status == 500 && !strings.Contains(string(r.Body), "scikit-learn 1.0.1, and ") {
			t.Errorf("%d %s", r.Status, r.Body)
		}
	}
	_, err := w.tryStart("gone", "", sklearn("gone.pkl", 1))
	if err == nil || !strings.Contains(err.Error(), "the model was made by scikit-learn 1.0.1, and ") {
		t.Errorf("err = %v", err)
	}
}

func TestAnExitAtTheImportIsToldWithItsReason(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.tryStart("arguments", "arguments.py", nil)
	if err == nil || !strings.Contains(err.Error(), "sys.exit(2)") || !strings.Contains(err.Error(), "the following arguments are required: --folder") {
		t.Errorf("err = %v", err)
	}
}

func TestAVariableThatIsNotAllowedIsNamedWithTheSetting(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.tryStart("token", "needs_token.py", nil)
	if err == nil || !strings.Contains(err.Error(), "CLEARML_SERVING_WORKER_ENV=MY_TOKEN") {
		t.Errorf("err = %v", err)
	}
	g := w.start(t, "other token", "needs_token.py", func(s *worker.Spec) { s.Env = append(s.Env, "MY_TOKEN=x") })
	if r := do(t, g, `{}`); r.Status != 500 || !strings.Contains(string(r.Body), "CLEARML_SERVING_WORKER_ENV=OTHER_TOKEN") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}
