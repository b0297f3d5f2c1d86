package embedded

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is written afterwards is there after the next start.
func TestAFolderThatIsRemovedWhileItIsUsedIsMadeAgain(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"folder removed": os.RemoveAll,
		"log removed":    func(dir string) error { return os.RemoveAll(filepath.Join(dir, "wal")) },
		"folder replaced by a file": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("x"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "timeseries")
			s := New(Options{Dir: dir, Now: func() time.Time { return noon }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
			s.keep(t.Context())
			mustWrite(t, s, floats(noon, 6, "__name__", "x"))
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			s.keep(t.Context())
			mustWrite(t, s, floats(noon, 7, "__name__", "y"))
			if err := s.replace(nil, errClosed); err != nil {
				t.Error(err)
			}
			again, _ := start(t, Options{Dir: dir})
			if v := mustQuery(t, again, "y", noon); len(v) != 1 || v[0].Value != 7 {
				t.Errorf("after the next start: %v", v)
			}
		})
	}
}

// small returns a folder on a disk of this size.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if !errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
		t.Skipf("cannot mount a file system: %v", err) // not root, or in a container that may not
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill leaves no room on a disk until free is called.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// After a full disk has room again, samples are stored, and no start loses them.
func TestSamplesAfterAFullDiskSurviveARestart(t *testing.T) {
	disk := small(t, "300m")
	dir := filepath.Join(disk, "timeseries")
	s := New(Options{Dir: dir, Now: func() time.Time { return noon }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	s.keep(t.Context())
	mustWrite(t, s, floats(noon.Add(-time.Minute), 6, "__name__", "before"))
	free := fill(t, disk)
	failed := 0
	for i := range 4000 {
		if err := s.Write(t.Context(), floats(noon.Add(time.Duration(i-4000)*time.Millisecond), float64(i), "__name__", "x", "text", string(make([]byte, 200)))); err != nil {
			failed++
		}
	}
	s.keep(t.Context())
	if failed == 0 {
		t.Fatal("the disk was not full")
	}
	if v := mustQuery(t, s, "before", noon); len(v) != 1 {
		t.Errorf("with a full disk: %v", v)
	}
	free()
	s.keep(t.Context())
	mustWrite(t, s, floats(noon, 7, "__name__", "after"))
	if err := s.replace(nil, errClosed); err != nil {
		t.Error(err)
	}
	again, _ := start(t, Options{Dir: dir})
	for _, name := range []string{"before", "after"} {
		if v := mustQuery(t, again, name, noon); len(v) != 1 {
			t.Errorf("%s after the next start: %v", name, v)
		}
	}
}

// Prometheus' database panics, in a goroutine of its own too, if it cannot write a chunk.
func TestChunksThatCannotBeWrittenEndNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "timeseries")
	s := New(Options{Dir: dir, Now: func() time.Time { return noon }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	s.keep(t.Context())
	mustWrite(t, s, floats(noon.Add(-time.Minute), 6, "__name__", "before"))
	if err := os.RemoveAll(filepath.Join(dir, "chunks_head")); err != nil {
		t.Fatal(err)
	}
	for i := range 400 { // a chunk has at most 240 samples
		_ = s.Write(t.Context(), floats(noon.Add(time.Duration(i-400)*time.Second), float64(i), "__name__", "x")) // fails at the end
	}
	if !s.unsafe.Load() {
		t.Fatal("all chunks were written")
	}
	s.keep(t.Context())
	mustWrite(t, s, floats(noon, 7, "__name__", "after"))
	for _, name := range []string{"before", "x", "after"} {
		if v := mustQuery(t, s, name, noon); len(v) != 1 {
			t.Errorf("%s: %v", name, v)
		}
	}
	if err := s.replace(nil, errClosed); err != nil {
		t.Error(err)
	}
}

// Reading the log writes chunks too, so a full disk only delays the opening.
func TestAFullDiskDelaysTheOpening(t *testing.T) {
	disk := small(t, "60m")
	dir := filepath.Join(disk, "timeseries")
	s := New(Options{Dir: dir, Now: func() time.Time { return noon }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	s.keep(t.Context())
	for i := range 400 {
		mustWrite(t, s, floats(noon.Add(time.Duration(i-400)*time.Second), float64(i), "__name__", "x"))
	}
	if err := s.replace(nil, errClosed); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "chunks_head")); err != nil { // they come from the log again
		t.Fatal(err)
	}
	free := fill(t, disk)
	again := New(Options{Dir: dir, Now: func() time.Time { return noon }})
	again.keep(t.Context())
	if _, err := again.Query(t.Context(), "x", noon); err == nil || !strings.Contains(err.Error(), "bytes left") {
		t.Errorf("with a full disk: %v", err)
	}
	free()
	again.keep(t.Context())
	if v := mustQuery(t, again, "x", noon); len(v) != 1 || v[0].Value != 399 {
		t.Errorf("with room: %v", v)
	}
	if err := again.replace(nil, errClosed); err != nil {
		t.Error(err)
	}
}

// A repair copies a part of the log. What it had not copied is not lost.
func TestARepairThatDoesNotEndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s, stop := start(t, Options{Dir: dir})
	mustWrite(t, s, floats(noon, 6, "__name__", "x"))
	stop()
	file := segment(t, dir)
	if err := errors.Join(os.Rename(file, file+".repair"), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, _ = start(t, Options{Dir: dir})
	if v := mustQuery(t, s, "x", noon); len(v) != 1 {
		t.Errorf("got %v", v)
	}
}
