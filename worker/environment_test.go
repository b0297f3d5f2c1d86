package worker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/worker"
)

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheFirstInterpreterThatIsThereIsTaken(t *testing.T) {
	env, err := worker.FindEnvironment(t.Context(), worker.Search{Candidates: []string{"", "/nonexistent/python", "python3"}, Env: os.Environ()})
	if err != nil {
		t.Skipf("no python: %v", err)
	}
	if env.Python != "python3" || !strings.HasPrefix(env.Version, "3.") || env.Executable == "" {
		t.Errorf("environment = %+v", env)
	}
}

func TestFilesOfTheCurrentFolderReplaceNoModuleOfTheProbe(t *testing.T) {
	if _, err := worker.FindEnvironment(t.Context(), worker.Search{Candidates: []string{"python3"}, Env: os.Environ()}); err != nil {
		t.Skipf("no python: %v", err)
	}
	t.Chdir(t.TempDir())
	for _, module := range []string{"json.py", "os.py", "importlib.py", "numpy.py"} {
		if err := os.WriteFile(module, []byte("raise SystemExit('of the folder')\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := worker.FindEnvironment(t.Context(), worker.Search{Candidates: []string{"python3"}, Env: os.Environ()}); err != nil {
		t.Error(err)
	}
}

func TestUnusableInterpretersSayWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		python  string
		problem worker.PythonProblem
		want    []string
	}{
		"not there":  {"/nonexistent/python", worker.PythonNotFound, []string{"/nonexistent/python", "--python"}},
		"too old":    {script(t, `echo '{"version":[3,8,1],"executable":"x","packages":{}}'`), worker.PythonTooOld, []string{"3.8.1", "3.9"}},
		"python 2":   {script(t, `echo '{"version":[2,7,18],"executable":"x","packages":{}}'`), worker.PythonTooOld, []string{"2.7.18"}},
		"no python":  {script(t, `echo hello`), worker.PythonBroken, []string{"no usable python"}},
		"fails":      {script(t, `echo "library missing" >&2; exit 127`), worker.PythonBroken, []string{"code 127", "library missing"}},
		"hangs":      {script(t, `exec sleep 1000`), worker.PythonBroken, []string{"did not tell"}},
		"no program": {filepath.Dir(script(t, "")), worker.PythonBroken, []string{"permission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			search := worker.Search{Candidates: []string{tc.python}, Env: os.Environ(), Timeout: patience}
			if name == "hangs" {
				search.Timeout = 50 * time.Millisecond
			}
			_, err := worker.FindEnvironment(t.Context(), search)
			var unusable *worker.PythonError
			if !errors.As(err, &unusable) || unusable.Problem != tc.problem {
				t.Fatalf("err = %v (%+v), want problem %d", err, unusable, tc.problem)
			}
			for _, text := range tc.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("err = %v, lacks %q", err, text)
				}
			}
		})
	}
}

func TestAWrongInterpreterIsNotPassedOver(t *testing.T) {
	old := script(t, `echo '{"version":[3,6,0]}'`)
	_, err := worker.FindEnvironment(t.Context(), worker.Search{Candidates: []string{old, "python3"}, Env: os.Environ()})
	var unusable *worker.PythonError
	if !errors.As(err, &unusable) || unusable.Problem != worker.PythonTooOld {
		t.Errorf("err = %v", err)
	}
}

func TestMissingPackagesComeWithTheCommand(t *testing.T) {
	env := &worker.Environment{Python: "python3", Executable: "/opt/py/bin/python3", Packages: map[string]string{"numpy": "2.0"}}
	if err := env.Require("numpy"); err != nil {
		t.Errorf("err = %v", err)
	}
	err := env.Require("numpy", "sklearn", "joblib")
	var lacks *worker.PythonError
	if !errors.As(err, &lacks) || lacks.Problem != worker.PythonLacksPackage ||
		!strings.Contains(err.Error(), "/opt/py/bin/python3 -m pip install scikit-learn joblib") {
		t.Errorf("err = %v", err)
	}
}

func TestAnInterpreterThatVanishesEndsTheRun(t *testing.T) {
	pool := worker.New(worker.Options{
		Environment: &worker.Environment{Python: "/nonexistent/python3"}, RuntimeDir: t.TempDir(), Preload: []string{},
	})
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(context.Background()) }()
	if _, err := pool.Start(t.Context(), worker.Spec{Endpoint: "e", Engine: "custom"}); err == nil {
		t.Error("started without an interpreter")
	}
	if err := <-ended; !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/python3") {
		t.Errorf("Run = %v", err)
	}
}

func TestADamagedRuntimeIsReplaced(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, func(o *worker.Options) { o.RuntimeDir = dir })
	w.start(t, "echo", "echo.py", nil)
	found, err := filepath.Glob(filepath.Join(dir, "*", "zygote.py"))
	if err != nil || len(found) != 1 {
		t.Fatalf("runtime: %v, %v", found, err)
	}
	if err := os.WriteFile(found[0], []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	again := newWorld(t, func(o *worker.Options) { o.RuntimeDir = dir })
	if got := ask(t, again.start(t, "echo", "echo.py", nil), `1`); got != "1" {
		t.Errorf("got %s", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".runtime-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
