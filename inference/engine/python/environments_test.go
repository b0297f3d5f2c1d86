package python

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/venv"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// running is an Engine with the interpreter of the machine.
func running(t *testing.T, extra ...string) *Engine {
	t.Helper()
	python := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PIP_NO_INDEX=1", "UV_OFFLINE=1"}
	base, err := worker.FindEnvironment(t.Context(), worker.Search{Candidates: []string{python}, Env: env})
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	uv, err := filepath.Abs("../../../bin/tools/uv/bin/uv") // faster, where it is
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	e := New(Options{
		Find:   func(context.Context) (*worker.Environment, error) { return base, nil },
		Worker: worker.Options{RuntimeDir: t.TempDir(), ZygoteEnv: env, Preload: []string{}, Logger: log},
		Env:    env, Extra: extra, Environments: venv.New(venv.Options{Dir: t.TempDir(), Env: env, UV: uv, Logger: log}),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := e.Run(ctx, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return e
}

// tinyWheel writes a package of one module, "tiny".
func tinyWheel(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "tiny-1.0-py3-none-any.whl"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, text := range map[string]string{
		"tiny.py":                     "VALUE = 41\n",
		"tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
		"tiny-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"tiny-1.0.dist-info/RECORD":   "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n",
	} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

const usesTiny = `
import os
import tiny


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"tiny": tiny.VALUE, "venv": os.environ.get("VIRTUAL_ENV", "")}
`

func codeFolder(t *testing.T, requirements string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"__init__.py": usesTiny, "requirements.txt": requirements} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tinyWheel(t, dir)
	return dir
}

func specOf(url, code string, aux any) engine.Spec {
	return engine.Spec{
		URL: serving.EndpointURL(url), CodePath: code, CodeName: "py_code_" + url,
		Endpoint: serving.Endpoint{EngineType: serving.EngineCustom, ServingURL: url, AuxiliaryCfg: aux},
	}
}

func own() any { return map[string]any{"environment": "own"} }

func answer(t *testing.T, m engine.Model) string {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`{}`), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	return string(resp.Body)
}

func (e *Engine) poolsInUse() int {
	e.pools.mu.Lock()
	defer e.pools.mu.Unlock()
	return len(e.pools.byPath)
}

func TestAnEndpointFindsWhatItsOwnRequirementsName(t *testing.T) {
	e := running(t)
	code := codeFolder(t, "./tiny-1.0-py3-none-any.whl\n")
	if _, err := e.Load(t.Context(), specOf("shared", code, nil)); err == nil || !strings.Contains(err.Error(), "tiny") {
		t.Fatalf("the shared environment has tiny: %v", err)
	}
	var models []engine.Model
	for _, url := range []string{"one", "two"} {
		m, err := e.Load(t.Context(), specOf(url, code, own()))
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(t, m); !strings.Contains(got, `"tiny":41`) || strings.Contains(got, `"venv":""`) {
			t.Errorf("%s answered %s", url, got)
		}
		models = append(models, m)
	}
	if n := e.poolsInUse(); n != 2 {
		t.Errorf("%d pools for two environments", n)
	}
	for _, m := range models {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := e.poolsInUse(); n != 1 {
		t.Errorf("%d pools when nobody uses the second environment any more", n)
	}
}

func TestAnEnvironmentWhoseFolderIsRemovedIsMadeAgain(t *testing.T) {
	e := running(t)
	m, err := e.Load(t.Context(), specOf("one", codeFolder(t, "./tiny-1.0-py3-none-any.whl\n"), own()))
	if err != nil {
		t.Fatal(err)
	}
	var before struct{ Venv string }
	if err := json.Unmarshal([]byte(answer(t, m)), &before); err != nil || before.Venv == "" {
		t.Fatalf("%+v, %v", before, err)
	}
	for _, what := range []string{"worker", "zygote"} {
		if err := os.RemoveAll(filepath.Dir(before.Venv)); err != nil { // all environments
			t.Fatal(err)
		}
		pid := m.Status().Workers[0].PID
		if what == "zygote" {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(stat), ") ")
			pid, _ = strconv.Atoi(strings.Fields(rest)[1])
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		for answered := false; !answered; {
			resp, err := m.Infer(ctx, &engine.Request{Body: []byte(`{}`), ContentType: "application/json"})
			answered = err == nil && strings.Contains(string(resp.Body), `"tiny":41`)
			if _, errDir := os.Stat(before.Venv); errDir != nil {
				answered = false // by the worker that was about to die
			}
			if ctx.Err() != nil {
				t.Fatalf("after the death of the %s: %v", what, err)
			}
		}
		cancel()
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnEnvironmentThatCannotBeMadeIsAFailureOfThatEndpoint(t *testing.T) {
	e := running(t)
	for name, c := range map[string]struct {
		spec engine.Spec
		says string
	}{
		"unknown package": {specOf("a", codeFolder(t, "no-such-package-at-all\n"), own()), "no-such-package-at-all"},
		"single file":     {specOf("b", filepath.Join(codeFolder(t, ""), "__init__.py"), own()), "has no requirements.txt"},
		"no code":         {specOf("c", "", own()), "has no requirements.txt"},
		"unknown word":    {specOf("d", "", map[string]any{"environment": "mine"}), "give own or shared"},
	} {
		_, err := e.Load(t.Context(), c.spec)
		if failed, ok := errors.AsType[*engine.LoadError](err); !ok || !strings.Contains(failed.Text, c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtraPackagesLieOverTheInterpretersOwn(t *testing.T) {
	dir := t.TempDir()
	tinyWheel(t, dir)
	e := running(t, filepath.Join(dir, "tiny-1.0-py3-none-any.whl"))
	m, err := e.Load(t.Context(), specOf("shared", codeFolder(t, ""), nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, m); !strings.Contains(got, `"tiny":41`) {
		t.Errorf("answered %s", got)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := e.poolsInUse(); n != 1 {
		t.Errorf("%d pools: the shared one is kept ready", n)
	}
}
