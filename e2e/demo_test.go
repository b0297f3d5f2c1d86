//go:build linux

package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDemoPredictsAndASecondRunChangesNothing(t *testing.T) {
	demo, home := filepath.Join(t.TempDir(), "demo"), t.TempDir()
	// The go command leaves a background process that writes there, maybe during the cleanup.
	telemetry := filepath.Join(home, ".config/go/telemetry")
	if err := errors.Join(os.MkdirAll(telemetry, 0o755), os.WriteFile(filepath.Join(telemetry, "mode"), []byte("off"), 0o644)); err != nil {
		t.Fatal(err)
	}
	run := func(script string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(root, "scripts", script))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "DEMO_DIR="+demo, "HOME="+home, "XDG_CONFIG_HOME=")
		cmd.Env = append(cmd.Env, "GOPATH="+goEnv(t, "GOPATH"), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() {
		run("demo-stop.sh")
		noProcessLeft(t, demo)
	})
	first := run("demo.sh")
	wantWords(t, "the demo", first, `{"y":[1]}`, "agrees on all 178 rows", "make demo-stop")
	second := run("demo.sh")
	wantWords(t, "the second run", second, "it runs already", "is registered already", "the serving service exists already", "exists already, with today's", "agrees on all 178 rows")
	if strings.Contains(second, "\x1b[") {
		t.Error("colours without a terminal")
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
