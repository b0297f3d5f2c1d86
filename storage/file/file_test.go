package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/leaktest"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/storage/storagetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestAdapterKeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storagetest.Place {
		t.Helper()
		dir := t.TempDir()
		return storagetest.Place{
			Adapter: file.Adapter{}, Ranges: true,
			URL: func(name string) string { return "file://" + filepath.Join(dir, name) },
		}
	})
}

func TestURLMeansThisPath(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw%20name")
	if err := os.WriteFile(raw, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"/a/b":                        "/a/b",
		"/a/%41":                      "/a/%41",
		"file:///a/b":                 "/a/b",
		"FILE:///a/b":                 "/a/b",
		"file:/a/b":                   "/a/b",
		"file://localhost/a":          "/a",
		"file:///a%20b":               "/a b",
		"file:///a%2520b":             "/a%20b",
		"file:///a%zz":                "/a%zz",
		"file:///a/../b":              "/b",
		"file://" + raw:               raw,
		"file://" + dir + "/gone%20x": filepath.Join(dir, "gone x"),
	} {
		if got, err := (file.Adapter{}).LocalPath(url); err != nil || got != want {
			t.Errorf("LocalPath(%q) = %q, %v; want %q", url, got, err, want)
		}
	}
}

func TestURLThatIsNoPathIsRefused(t *testing.T) {
	for url, want := range map[string]string{
		"file://host/share/a": `the host "host" is not this machine`,
		"/a\x00b":             "NUL",
		"":                    "empty",
	} {
		if got, err := (file.Adapter{}).LocalPath(url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("LocalPath(%q) = %q, %v; want an error with %q", url, got, err, want)
		}
	}
}

func TestOnlyRegularFilesAreFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := (file.Adapter{}).Stat(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "it is a folder") {
		t.Errorf("stat of a folder: %v", err)
	}
	if _, err := (file.Adapter{}).Stat(t.Context(), "/dev/null"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("stat of a device: %v", err)
	}
	if err := (file.Adapter{}).Delete(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "folders are not deleted") {
		t.Errorf("delete of a folder: %v", err)
	}
	if err := (file.Adapter{}).Put(t.Context(), dir, strings.NewReader("x"), 1, nil); err == nil || !strings.Contains(err.Error(), "it is a folder") {
		t.Errorf("put over a folder: %v", err)
	}
	below := filepath.Join(dir, "file")
	if err := os.WriteFile(below, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (file.Adapter{}).Stat(t.Context(), below+"/x"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("stat below a file: %v", err)
	}
}

func TestFailedPutLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	err := (file.Adapter{}).Put(t.Context(), filepath.Join(dir, "a"), strings.NewReader("short"), 100, nil)
	if err == nil {
		t.Fatal("5 bytes were stored as 100")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
