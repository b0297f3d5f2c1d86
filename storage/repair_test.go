package storage_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/storage"
)

// zipped returns an archive of a.txt and sub/b.txt.
func zipped(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"a.txt", "sub/b.txt"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("content of " + name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte(text), 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatVanishedOrChangedIsFetchedAgain damages a cache in use; the same content
// must come back to the same path.
func TestWhatVanishedOrChangedIsFetchedAgain(t *testing.T) {
	p := newPlace(t)
	archive := p.put(t, "code.zip", zipped(t))
	single := p.put(t, "model.bin", []byte("the model"))
	for name, damage := range map[string]struct {
		verify bool
		do     func(t *testing.T, dir, file, folder string)
	}{
		"whole cache": {do: func(t *testing.T, dir, _, _ string) {
			t.Helper()
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}},
		"its folders": {do: func(t *testing.T, dir, _, _ string) {
			t.Helper()
			for _, sub := range []string{"named", "unpacked", "leases", "partial", "urls"} {
				if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"the file and the folder": {do: func(t *testing.T, _, file, folder string) {
			t.Helper()
			if err := errors.Join(os.Remove(file), os.RemoveAll(folder)); err != nil {
				t.Fatal(err)
			}
		}},
		"one file of the folder": {do: func(t *testing.T, _, _, folder string) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(folder, "sub")); err != nil {
				t.Fatal(err)
			}
		}},
		"cut short": {do: func(t *testing.T, _, file, folder string) {
			t.Helper()
			rewrite(t, file, "the")
			rewrite(t, filepath.Join(folder, "a.txt"), "con")
		}},
		"changed with the same length": {verify: true, do: func(t *testing.T, _, file, folder string) {
			t.Helper()
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, file, "THE MODEL")
			rewrite(t, filepath.Join(folder, "a.txt"), "CONTENT OF a.txt")
			if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}},
		"folders in the place of files": {do: func(t *testing.T, dir, file, folder string) {
			t.Helper()
			var all error
			for _, pattern := range []string{"blobs/*/*", "urls/*", "leases/*"} {
				found, err := filepath.Glob(filepath.Join(dir, pattern))
				all = errors.Join(all, err)
				for _, path := range found {
					all = errors.Join(all, os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
				}
			}
			all = errors.Join(all, os.Remove(file), os.Mkdir(file, 0o700))
			all = errors.Join(all, os.Remove(filepath.Join(folder, "a.txt")), os.Mkdir(filepath.Join(folder, "a.txt"), 0o700))
			if all != nil {
				t.Fatal(all)
			}
		}},
		"a file in the place of a folder": {do: func(t *testing.T, dir, _, _ string) {
			t.Helper()
			for _, sub := range []string{"urls", "unpacked", "named"} {
				err := errors.Join(os.RemoveAll(filepath.Join(dir, sub)), os.WriteFile(filepath.Join(dir, sub), nil, 0o600))
				if err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			c := newCache(t, options(dir, p))
			file, folder := fetch(t, c, storage.Item{URL: single}), fetch(t, c, storage.Item{URL: archive, Unpack: true})
			extra := filepath.Join(folder.Path, "made by user code")
			if err := os.WriteFile(extra, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			damage.do(t, dir, file.Path, folder.Path)
			file2 := fetch(t, c, storage.Item{URL: single, SHA256: file.SHA256, Verify: damage.verify})
			folder2 := fetch(t, c, storage.Item{URL: archive, SHA256: folder.SHA256, Unpack: true, Verify: damage.verify})
			if file2.Path != file.Path || folder2.Path != folder.Path {
				t.Errorf("paths %s and %s, before %s and %s", file2.Path, folder2.Path, file.Path, folder.Path)
			}
			for path, want := range map[string]string{
				file.Path: "the model", filepath.Join(folder.Path, "a.txt"): "content of a.txt", filepath.Join(folder.Path, "sub", "b.txt"): "content of sub/b.txt",
			} {
				if text, err := os.ReadFile(path); err != nil || string(text) != want {
					t.Errorf("%s is %q (%v)", path, text, err)
				}
			}
			if _, err := os.Stat(extra); err != nil && strings.Contains(name, "one file") {
				t.Errorf("a file of user code is gone: %v", err)
			}
		})
	}
}
