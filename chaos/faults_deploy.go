package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// deployFaults are bad deployments: the version in service must stay.
func deployFaults() []fault {
	// bad deploys code to the victim that must never answer, waits, and restores the good code.
	bad := func(text string) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			file := filepath.Join(w.dir, "bad.py")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return err
			}
			if err := w.deployCode(ctx, victim, file); err != nil {
				return err
			}
			if err := pause(ctx, 1500*time.Millisecond); err != nil {
				return err
			}
			if err := w.ask(ctx, victim, `{"x": 3}`, http.StatusOK); err != nil {
				return fmt.Errorf("the old version no longer serves: %w", err)
			}
			good, err := filepath.Abs("chaos/code/victim.py")
			if err != nil {
				return err
			}
			return w.deployCode(ctx, victim, good)
		}
	}
	const head = "class Preprocess:\n    def load(self, path):\n        "
	return []fault{
		{name: "deploy-syntax-error", about: "code with a syntax error", slow: true, inject: bad("class Preprocess(:\n")},
		{name: "deploy-raises", about: "a load() that raises", inject: bad(head + "raise RuntimeError('no')\n")},
		{name: "deploy-dies", about: "a load() that dies of SIGSEGV", inject: bad(head + "import ctypes; ctypes.string_at(0)\n")},
		{name: "deploy-hangs", about: "a load() that never ends", slow: true, inject: bad(head + "import time; time.sleep(3600)\n")},
		{name: "deploy-hogs", about: "a load() that takes 1 GB and computes", slow: true, inject: bad(head + "self.b = bytearray(1 << 30)\n        import time\n        end = time.monotonic() + 3\n        while time.monotonic() < end: pass\n        raise RuntimeError('no')\n")},
		{name: "deploy-flaps", about: "good code deployed ten times in a row", inject: func(ctx context.Context, w *world) error {
			good, err := os.ReadFile("chaos/code/victim.py")
			if err != nil {
				return err
			}
			for i := range 10 {
				file := filepath.Join(w.dir, "victim.py")
				if err := os.WriteFile(file, fmt.Appendf(good, "\n# %d\n", i), 0o600); err != nil {
					return err
				}
				if err := w.deployCode(ctx, victim, file); err != nil {
					return err
				}
			}
			return pause(ctx, time.Second)
		}},
		{name: "deploy-broken-model", about: "an endpoint whose model file is invalid", slow: true, inject: func(ctx context.Context, w *world) error {
			file := filepath.Join(w.dir, "broken.pkl")
			if err := os.WriteFile(file, []byte("no pickle"), 0o600); err != nil {
				return err
			}
			for _, c := range [][]string{
				{"model", "upload", "--name", "broken", "--project", "chaos", "--path", file},
				{"model", "add", "--endpoint", "broken", "--engine", "sklearn", "--name", "broken", "--project", "chaos"},
			} {
				if err := w.cli(ctx, c...); err != nil {
					return err
				}
			}
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			if err := w.ask(ctx, "broken", `{"x": 3}`, http.StatusServiceUnavailable); err != nil {
				return err
			}
			err := w.cli(ctx, "model", "remove", "--endpoint", "broken")
			return err
		}},
		{name: "deploy-download-cut", about: "the file server disconnects while a model is downloaded", slow: true, inject: func(ctx context.Context, w *world) error {
			file := filepath.Join(w.dir, "large.bin")
			if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
				return err
			}
			if err := w.cli(ctx, "model", "upload", "--name", "large", "--project", "chaos", "--path", file); err != nil {
				return err
			}
			w.files.be(cuts)
			code, err := filepath.Abs("chaos/code/steady.py")
			if err == nil {
				err = w.cli(ctx, "model", "add", "--endpoint", "fetched", "--engine", "custom", "--preprocess", code, "--name", "large", "--project", "chaos")
			}
			if err == nil {
				err = pause(ctx, 1500*time.Millisecond)
			}
			w.files.be(honest)
			if err != nil {
				return err
			}
			if err := w.waitReady(ctx, "fetched"); err != nil {
				return err
			}
			err = w.cli(ctx, "model", "remove", "--endpoint", "fetched")
			return err
		}},
	}
}

// deployCode replaces an endpoint's code.
func (w *world) deployCode(ctx context.Context, endpoint, file string) error {
	err := w.cli(ctx, "model", "add", "--endpoint", endpoint, "--engine", "custom", "--preprocess", file)
	return err
}
