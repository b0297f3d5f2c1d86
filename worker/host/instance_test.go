package host

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

func TestTheFileOfTheInstancesTaskGoesWithItsProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runtime")
	f := newInstanceFile(dir)
	for _, id := range []string{"first", "second"} {
		if err := f.write(id); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(f.path); err != nil || string(text) != id {
			t.Errorf("%q %v", text, err)
		}
	}
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Skip(err)
	}
	of := func(pid int) string { return filepath.Join(dir, instancePrefix+strconv.Itoa(pid)+"-1") }
	for _, pid := range []int{gone.ProcessState.Pid(), os.Getppid()} {
		if err := os.WriteFile(of(pid), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.remove()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || left[0] != of(os.Getppid()) {
		t.Errorf("left are %q, %v", left, err)
	}
}
