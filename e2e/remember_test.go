//go:build linux

package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAnInstanceServesTheServiceThatItServedBefore restarts an instance without --id
// on its data folder while the server no longer lists its service, and after the
// service was deleted.
func TestAnInstanceServesTheServiceThatItServedBefore(t *testing.T) {
	plane := controlPlane(t)
	first := createdID(t, plane.must(t, "create", "--name", "first"))
	s := install(t)
	s.sdk = plane.sdk
	alone := role{args: []string{"inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}, env: append([]string{"CLEARML_SERVING_POLL_FREQ=" + pollMinutes}, plane.sdk...)}
	serves := func(what string) {
		t.Helper()
		s.eventually(t, patience, what, func() error {
			_, status := s.get(t, s.urls["serve"]+"/status")
			if !strings.Contains(status, `"service_id": "`+first+`"`) {
				return errors.New(status)
			}
			return nil
		})
	}
	s.start(t, alone)
	t.Cleanup(func() { s.stop(t) })
	serves("it serves the only service")
	s.stop(t)

	plane.must(t, "create", "--name", "second")
	plane.call(t, "tasks.stopped", map[string]any{"task": first, "force": true}) // as the server's watchdog does
	s.start(t, alone)
	serves("it serves the previous one")
	s.stop(t)

	plane.call(t, "tasks.delete", map[string]any{"task": first, "force": true})
	s.start(t, alone)
	serves("its last good configuration")
	s.eventually(t, patience, "/readyz reports that the service is gone", func() error {
		_, ready := s.get(t, s.urls["serve"]+"/readyz")
		if !strings.Contains(ready, first) || !strings.Contains(ready, "--id") {
			return errors.New(ready)
		}
		return nil
	})
}

// TestDamagedSideFilesAreSetAside starts a service on a data folder in which every
// file that can be regenerated is damaged.
func TestDamagedSideFilesAreSetAside(t *testing.T) {
	s := up(t)
	s.must(t, "create")
	s.must(t, "model", "add", "--engine", "custom", "--endpoint", "steady", "--preprocess", code("echo.py"), "--wait")
	s.must(t, "model", "record", "--endpoint", "steady")
	s.answers(t, "steady", `{"echo":{"x":1}}`)
	s.stop(t)
	data := s.data
	names := []string{"last-addresses.json"}
	for _, pattern := range []string{"inference/*", "recordings/*", "cache/urls/*", "cache/leases/*", "cache/blobs/*/*", "runtime/*/zygote.py"} {
		found, err := filepath.Glob(filepath.Join(data, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, err := filepath.Rel(data, path)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	folders := []string{"inference", "recordings", "cache", "runtime", "environments", "cache/urls", "cache/leases"}
	for _, kind := range []string{"empty", "torn", "garbage", "folder", "unreadable", "file for folder"} {
		var all error
		damaged := 0
		list := names
		if kind == "file for folder" {
			list = folders
		}
		for _, name := range list {
			path := filepath.Join(data, name)
			text, err := os.ReadFile(path)
			if err != nil && kind != "file for folder" {
				continue // not regenerated yet
			}
			damaged++
			_ = os.Chmod(path, 0o700)
			switch kind {
			case "empty":
				all = errors.Join(all, os.WriteFile(path, nil, 0o600))
			case "torn":
				all = errors.Join(all, os.WriteFile(path, text[:len(text)/2], 0o600))
			case "garbage":
				all = errors.Join(all, os.WriteFile(path, []byte("\x00\xff{["), 0o600))
			case "folder":
				all = errors.Join(all, os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
			case "unreadable":
				all = errors.Join(all, os.Chmod(path, 0))
			case "file for folder":
				all = errors.Join(all, os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600))
			}
		}
		if all != nil && !errors.Is(all, syscall.ENOTDIR) {
			t.Fatal(all)
		}
		if damaged < 4 {
			t.Errorf("%s: only %d files existed", kind, damaged)
		}
		s.start(t, role{})
		s.answers(t, "steady", `{"echo":{"x":1}}`)
		s.stop(t)
		t.Log(kind, damaged)
	}
}
