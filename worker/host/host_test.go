package host

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

	"clearmlserving/leaktest"
	"clearmlserving/worker"
	"clearmlserving/worker/venv"
	"clearmlserving/worker/workertest"
)

func TestMain(all *testing.M) { leaktest.Main(all) }

// running is a Host with the interpreter of the machine.
func running(t *testing.T, extra ...string) *Host {
	t.Helper()
	base, env := workertest.Environment(t)
	env = append(env, "PIP_NO_INDEX=1", "UV_OFFLINE=1")
	uv, err := filepath.Abs("../../bin/tools/uv/bin/uv") // faster, where it is
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h := New(Options{
		Find:   func(context.Context) (*worker.Environment, error) { return base, nil },
		Worker: worker.Options{RuntimeDir: t.TempDir(), ZygoteEnv: env, Preload: []string{}, Logger: log},
		Env:    env, Extra: extra, Environments: venv.New(venv.Options{Dir: t.TempDir(), Env: env, UV: uv, Logger: log}),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := h.Run(ctx, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return h
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

func specOf(url, code string) worker.Spec {
	return worker.Spec{Endpoint: url, Engine: "custom", CodePath: code, CodeName: "py_code_" + url}
}

func ask(ctx context.Context, g *Group) (string, error) {
	resp, err := g.Do(ctx, &worker.Request{Body: []byte(`{}`), ContentType: "application/json"})
	if err != nil {
		return "", err
	}
	return string(resp.Body), nil
}

func answer(t *testing.T, g *Group) string {
	t.Helper()
	body, err := ask(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func (h *Host) poolsInUse() int {
	h.pools.mu.Lock()
	defer h.pools.mu.Unlock()
	return len(h.pools.byPath)
}

func TestAnEndpointFindsWhatItsOwnRequirementsName(t *testing.T) {
	h := running(t)
	code := codeFolder(t, "./tiny-1.0-py3-none-any.whl\n")
	if _, err := h.Start(t.Context(), false, specOf("shared", code)); err == nil || !strings.Contains(err.Error(), "tiny") {
		t.Fatalf("the shared environment has tiny: %v", err)
	}
	var groups []*Group
	for _, url := range []string{"one", "two"} {
		g, err := h.Start(t.Context(), true, specOf(url, code))
		if err != nil {
			t.Fatal(err)
		}
		if got := answer(t, g); !strings.Contains(got, `"tiny":41`) || strings.Contains(got, `"venv":""`) {
			t.Errorf("%s answered %s", url, got)
		}
		groups = append(groups, g)
	}
	if n := h.poolsInUse(); n != 2 {
		t.Errorf("%d pools for two environments", n)
	}
	for _, g := range groups {
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := h.poolsInUse(); n != 1 {
		t.Errorf("%d pools when nobody uses the second environment any more", n)
	}
}

func TestAnEnvironmentWhoseFolderIsRemovedIsMadeAgain(t *testing.T) {
	h := running(t)
	g, err := h.Start(t.Context(), true, specOf("one", codeFolder(t, "./tiny-1.0-py3-none-any.whl\n")))
	if err != nil {
		t.Fatal(err)
	}
	var before struct{ Venv string }
	if err := json.Unmarshal([]byte(answer(t, g)), &before); err != nil || before.Venv == "" {
		t.Fatalf("%+v, %v", before, err)
	}
	for _, what := range []string{"worker", "zygote"} {
		if err := os.RemoveAll(filepath.Dir(before.Venv)); err != nil { // all environments
			t.Fatal(err)
		}
		pid := g.Status().Workers[0].PID
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
			body, err := ask(ctx, g)
			answered = err == nil && strings.Contains(body, `"tiny":41`)
			if _, errDir := os.Stat(before.Venv); errDir != nil {
				answered = false // by the worker that was about to die
			}
			if ctx.Err() != nil {
				t.Fatalf("after the death of the %s: %v", what, err)
			}
		}
		cancel()
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAnEnvironmentThatCannotBeMadeIsAFailureOfThatEndpoint(t *testing.T) {
	h := running(t)
	for name, c := range map[string]struct {
		spec worker.Spec
		says string
	}{
		"unknown package": {specOf("a", codeFolder(t, "no-such-package-at-all\n")), "no-such-package-at-all"},
		"single file":     {specOf("b", filepath.Join(codeFolder(t, ""), "__init__.py")), "has no requirements.txt"},
		"no code":         {specOf("c", ""), "has no requirements.txt"},
	} {
		_, err := h.Start(t.Context(), true, c.spec)
		if failed, ok := errors.AsType[*EnvironmentError](err); !ok || !strings.Contains(failed.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtraPackagesLieOverTheInterpretersOwn(t *testing.T) {
	dir := t.TempDir()
	tinyWheel(t, dir)
	h := running(t, filepath.Join(dir, "tiny-1.0-py3-none-any.whl"))
	g, err := h.Start(t.Context(), false, specOf("shared", codeFolder(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, g); !strings.Contains(got, `"tiny":41`) {
		t.Errorf("answered %s", got)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := h.poolsInUse(); n != 1 {
		t.Errorf("%d pools: the shared one is kept ready", n)
	}
}
