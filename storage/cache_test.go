package storage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/storage/storagetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// place is a folder that acts as a server: the fault adapter around it hides
// that it is local.
type place struct {
	*storagetest.Faulty
	dir string
}

func newPlace(t *testing.T) place {
	t.Helper()
	return place{storagetest.NewFaulty(file.Adapter{}), t.TempDir()}
}

func (p place) put(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := p.Put(t.Context(), path, bytes.NewReader(data), int64(len(data)), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func options(dir string, a storage.Adapter) storage.CacheOptions {
	return storage.CacheOptions{
		Dir: dir, Adapters: storage.Adapters{"file": a},
		Backoff: storage.Backoff{First: time.Microsecond, Max: time.Millisecond},
	}
}

func newCache(t *testing.T, o storage.CacheOptions) *storage.Cache {
	t.Helper()
	c, err := storage.NewCache(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(t *testing.T, c *storage.Cache, item storage.Item) *storage.Handle {
	t.Helper()
	h, err := c.Fetch(t.Context(), item, nil)
	if err != nil {
		t.Fatalf("fetch %s: %v", item.URL, err)
	}
	t.Cleanup(h.Release)
	return h
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func wantFile(t *testing.T, path string, data []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%s holds %d bytes that are not the %d wanted (%v)", path, len(got), len(data), err)
	}
}

func TestThoseWhoWantTheSameWaitForOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		data := storagetest.Bytes(500_000, 1)
		url := p.put(t, "model.pkl", data)
		c := newCache(t, options(t.TempDir(), p))
		goOn := make(chan struct{})
		c.AtEachStep(func(step string) {
			if step == "partial open" {
				<-goOn
			}
		})
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				var last int64
				h, err := c.Fetch(t.Context(), storage.Item{URL: url}, func(done, _ int64) { last = done })
				if err != nil {
					t.Error(err)
					return
				}
				defer h.Release()
				if last != int64(len(data)) {
					t.Errorf("progress ended at %d", last)
				}
				wantFile(t, h.Path, data)
			})
		}
		synctest.Wait() // until all goroutines wait
		close(goOn)
		all.Wait()
		if n := p.Opens(); n != 1 {
			t.Errorf("%d downloads, want 1", n)
		}
	})
}

func TestKnownContentNeedsNoPlace(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(100, 1)
	dir := t.TempDir()
	fetch(t, newCache(t, options(dir, p)), storage.Item{URL: p.put(t, "a", data)})
	asked := p.Stats()
	p.Unreachable(true)
	h := fetch(t, newCache(t, options(dir, p)), storage.Item{URL: "/elsewhere/model.pkl", SHA256: sum(data)})
	wantFile(t, h.Path, data)
	if h.Stale || !h.FromCache || p.Stats() != asked {
		t.Errorf("handle %+v after %d more questions", h, p.Stats()-asked)
	}
	if filepath.Base(h.Path) != "model.pkl" {
		t.Errorf("the file is named %s", h.Path)
	}
}

func TestUnchangedFileIsNotReadAgain(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "a", storagetest.Bytes(100, 1))
	dir := t.TempDir()
	fetch(t, newCache(t, options(dir, p)), storage.Item{URL: url})
	h := fetch(t, newCache(t, options(dir, p)), storage.Item{URL: url})
	if p.Opens() != 1 || !h.FromCache || h.Stale {
		t.Errorf("%d downloads, handle %+v", p.Opens(), h)
	}
}

func TestUnexpectedContentIsRefused(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "a", []byte("new"))
	dir := t.TempDir()
	_, err := newCache(t, options(dir, p)).Fetch(t.Context(), storage.Item{URL: url, SHA256: sum([]byte("old"))}, nil)
	var mismatch *storage.MismatchError
	if !errors.As(err, &mismatch) || mismatch.Got != sum([]byte("new")) {
		t.Fatalf("error %v", err)
	}
	for _, folder := range []string{"blobs", "partial", "urls"} {
		if left, _ := os.ReadDir(filepath.Join(dir, folder)); len(left) > 0 {
			t.Errorf("%s holds %v", folder, left)
		}
	}
}

func TestDigestThatIsNoneIsRefused(t *testing.T) {
	p := newPlace(t)
	c := newCache(t, options(t.TempDir(), p))
	for _, digest := range []string{"../../../etc/passwd", "abc", strings.Repeat("A", 64), strings.Repeat("a", 63) + "/"} {
		if _, err := c.Fetch(t.Context(), storage.Item{URL: p.put(t, "a", nil), SHA256: digest}, nil); err == nil || !strings.Contains(err.Error(), "not a SHA-256") {
			t.Errorf("digest %q: %v", digest, err)
		}
	}
}

func TestFileKeepsItsName(t *testing.T) {
	p := newPlace(t)
	data := []byte("the same content")
	c := newCache(t, options(t.TempDir(), p))
	for name, want := range map[string]string{
		"model.pkl": "model.pkl", "a b ä.onnx": "a b ä.onnx", "..": "file", ".": "file", "a/b": "a_b", "a\\b": "a_b",
		"a\x00\n": "a__", strings.Repeat("x", 300) + ".json": strings.Repeat("x", 195) + ".json",
	} {
		h := fetch(t, c, storage.Item{URL: p.put(t, "file", data), Name: name})
		wantFile(t, h.Path, data)
		if filepath.Base(h.Path) != want {
			t.Errorf("%q became %q, want %q", name, filepath.Base(h.Path), want)
		}
		if beside, _ := os.ReadDir(filepath.Dir(h.Path)); len(beside) != 1 {
			t.Errorf("beside %q are %v", name, beside)
		}
	}
}

func TestContentThatWasWrittenToIsFetchedAnew(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "model.bin", data)
	c := newCache(t, options(t.TempDir(), p))
	h := fetch(t, c, storage.Item{URL: url})
	if err := os.Chmod(h.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Path, []byte("written by user code"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, fetch(t, c, storage.Item{URL: url, SHA256: sum(data)}).Path, data)
}

func TestCopiedCacheServesWithoutThePlace(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "model.bin", data)
	dir, moved := t.TempDir(), t.TempDir()
	fetch(t, newCache(t, options(dir, p)), storage.Item{URL: url})
	if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	p.Unreachable(true)
	h := fetch(t, newCache(t, options(moved, p)), storage.Item{URL: url})
	wantFile(t, h.Path, data)
	if !h.Stale {
		t.Error("the handle is not marked as stale")
	}
}

func TestMissingFileIsNotServedFromTheCache(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "model.bin", []byte("x"))
	c := newCache(t, options(t.TempDir(), p))
	fetch(t, c, storage.Item{URL: url})
	if err := os.Remove(url); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist", err)
	}
}

func TestLocalFilesAreUsedInPlace(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "model.pkl", []byte("first"))
	dir := t.TempDir()
	c := newCache(t, options(dir, file.Adapter{}))
	h := fetch(t, c, storage.Item{URL: "file://" + url})
	if h.Path != url || h.SHA256 != sum([]byte("first")) || h.Size != 5 {
		t.Errorf("handle %+v", h)
	}
	p.put(t, "model.pkl", []byte("other"))
	if h := fetch(t, c, storage.Item{URL: "file://" + url}); h.SHA256 != sum([]byte("other")) {
		t.Errorf("the change was not noticed: %+v", h)
	}
	var mismatch *storage.MismatchError
	if _, err := c.Fetch(t.Context(), storage.Item{URL: url, SHA256: sum(nil)}, nil); !errors.As(err, &mismatch) {
		t.Errorf("unexpected content: %v", err)
	}
	if _, err := c.Fetch(t.Context(), storage.Item{URL: url + ".gone"}, nil); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if blobs, _ := os.ReadDir(filepath.Join(dir, "blobs")); len(blobs) > 0 {
		t.Errorf("local files were copied: %v", blobs)
	}
	zip := p.put(t, "code.zip", readTestdata(t, "good.zip"))
	unpacked := fetch(t, c, storage.Item{URL: zip, Unpack: true})
	wantFile(t, filepath.Join(unpacked.Path, "__init__.py"), []byte("from .inner import x\n"))
	wantFile(t, zip, readTestdata(t, "good.zip"))
}

func TestArchivesAreUnpackedOnceForEachContent(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "my.code.zip", readTestdata(t, "good.zip"))
	c := newCache(t, options(t.TempDir(), p))
	var unpacked int
	c.AtEachStep(func(step string) {
		if step == "unpack" {
			unpacked++
		}
	})
	for range 3 {
		h := fetch(t, c, storage.Item{URL: url, Unpack: true})
		if filepath.Base(h.Path) != "my.code" {
			t.Errorf("the folder is named %s", h.Path)
		}
		wantFile(t, filepath.Join(h.Path, "__init__.py"), []byte("from .inner import x\n"))
	}
	if unpacked != 1 {
		t.Errorf("unpacked %d times", unpacked)
	}
}

func TestHostileArchiveLeavesNothingUnpacked(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "model.zip", readTestdata(t, "parent.zip"))
	dir := t.TempDir()
	_, err := newCache(t, options(dir, p)).Fetch(t.Context(), storage.Item{URL: url, Unpack: true}, nil)
	var fault *storage.ArchiveError
	if !errors.As(err, &fault) || fault.Archive != "model.zip" || !strings.Contains(fault.Entry, "..") {
		t.Fatalf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "unpacked", "*", "*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
