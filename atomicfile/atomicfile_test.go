package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/atomicfile"
)

// wantFile fails unless the file has the content and the mode and lies alone in its folder.
func wantFile(t *testing.T, path, content string, perm fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("content %q, %v; want %q", got, err, content)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != perm {
		t.Errorf("mode %v, %v; want %v", info.Mode(), err, perm)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want the file alone", entries, err)
	}
}

func TestAFileIsReplacedWithExactlyThePermissionsAskedFor(t *testing.T) {
	for _, perm := range []fs.FileMode{0o600, 0o644} {
		file := filepath.Join(t.TempDir(), "file")
		for _, content := range []string{"first", "second"} {
			if err := atomicfile.Write(file, []byte(content), perm); err != nil {
				t.Fatal(err)
			}
			wantFile(t, file, content, perm)
			if err := os.Chmod(file, 0o666); err != nil { // must not be inherited
				t.Fatal(err)
			}
		}
	}
}

func TestALinkIsReplacedAndNotFollowed(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.Symlink(elsewhere, file); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(file, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, file, "new", 0o600)
	wantFile(t, elsewhere, "old", 0o600)
}

func TestAFailedWriteLeavesTheOldFileAndNothingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := atomicfile.Write(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := atomicfile.WriteWith(file, 0o600, func(f *os.File) error {
		_, err := f.WriteString("half")
		return errors.Join(err, broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v; want %v", err, broken)
	}
	wantFile(t, file, "old", 0o600)
}

func TestAFolderInTheWayIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(dir, nil, 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}
