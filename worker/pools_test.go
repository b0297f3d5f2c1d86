package worker_test

import (
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/worker"
)

// TestUserCodeMaySendItsFunctionsToOtherProcesses asks code, as a file and as a folder,
// for work that it gives to processes of its own.
func TestUserCodeMaySendItsFunctionsToOtherProcesses(t *testing.T) {
	w := newWorld(t, nil)
	text, err := os.ReadFile(code("pools.py"))
	if err != nil {
		t.Fatal(err)
	}
	for form, files := range map[string]map[string]string{
		"file":                   {"preprocess.py": string(text)},
		"package":                {"__init__.py": string(text)},
		"folder":                 {"preprocess.py": string(text), "helper.py": ""},
		"package of two modules": {"__init__.py": "from .inner import Preprocess\n", "inner.py": string(text)},
		"helper beside it":       {"__init__.py": "from helper import Preprocess\n", "helper.py": string(text)},
	} {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		path := dir
		if form == "file" {
			path = filepath.Join(dir, "preprocess.py")
		}
		g := w.start(t, form, path, func(s *worker.Spec) { s.CodePath, s.CodeName = path, "py_code_pools" })
		for _, by := range []string{"joblib", "pool fork", "pool spawn", "pool forkserver", "executor fork", "executor spawn", "executor forkserver"} {
			if _, ok := installed(t).Packages["joblib"]; by == "joblib" && !ok {
				continue
			}
			t.Run(form+", "+by, func(t *testing.T) {
				if got := ask(t, g, `{"by":"`+by+`","x":[4,6]}`); got != `{"found":[8,12,4,6],"halves":[2,3]}` {
					t.Error(got)
				}
			})
		}
	}
}
