//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is a descendant of the test.
type process struct {
	pid, parent int
	state       string
	command     string
}

func (p process) String() string { return fmt.Sprintf("%d (%s) %s", p.pid, p.state, p.command) }

// adoptOrphans makes every process whose parent dies a child of the test, so that the
// test finds what a killed service leaves behind.
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// below lists the living processes below one, in the order of their ids.
func below(root int) []process {
	all := map[int]process{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		head, rest, ok := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[0] == "Z" {
			continue // a zombie has ended; its parent has not reaped it yet
		}
		pid, _ := strconv.Atoi(head[:strings.IndexByte(head, ' ')])
		parent, _ := strconv.Atoi(fields[1])
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		all[pid] = process{pid, parent, fields[0], strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))}
	}
	var found []process
	for pid, p := range all {
		for up := p.parent; up > 1; up = all[up].parent {
			if up == root {
				found = append(found, all[pid])
				break
			}
		}
	}
	return found
}

// noProcessLeft fails if a process of the installation is still running: a descendant of
// the test that runs in its folder or names it. Installations of parallel tests are
// ignored. The kernel and the reapers may need a moment.
func (s *system) noProcessLeft(t *testing.T) {
	t.Helper()
	noProcessLeft(t, s.dir)
}

func noProcessLeft(t *testing.T, dir string) {
	t.Helper()
	var left []process
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(tick) {
		left = slices.DeleteFunc(below(os.Getpid()), func(p process) bool { return !p.concerns(dir) })
		if len(left) == 0 {
			return
		}
	}
	for _, p := range left {
		t.Errorf("left behind: %v", p)
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // so that the next test starts clean
	}
}

// concerns reports whether a process runs in a folder, or has it in its arguments or environment.
func (p process) concerns(dir string) bool {
	if strings.Contains(p.command, dir) {
		return true
	}
	proc := fmt.Sprintf("/proc/%d/", p.pid)
	if cwd, err := os.Readlink(proc + "cwd"); err == nil && strings.HasPrefix(cwd, dir) {
		return true
	}
	environ, err := os.ReadFile(proc + "environ")
	return err == nil && strings.Contains(string(environ), dir)
}

// pythons are the descendants of the service that run the Python runtime.
func (s *system) pythons() []process {
	var found []process
	for _, p := range below(s.cmd.Process.Pid) {
		if strings.Contains(p.command, "python") || strings.Contains(p.command, "clearml-serving-worker") {
			found = append(found, p)
		}
	}
	return found
}
