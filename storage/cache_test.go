package storage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a folder that stands for a server: the fault adapter around it hides
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
	p := newPlace(t)
	data := storagetest.Bytes(500_000, 1)
	url := p.put(t, "model.pkl", data)
	c := newCache(t, options(t.TempDir(), p))
	var arrived atomic.Int32
	c.AtEachStep(func(step string) { // the download stands still until all wait for it
		for step == "partial open" && arrived.Load() < 20 {
			time.Sleep(time.Millisecond)
		}
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			arrived.Add(1)
			var last int64
			h, err := c.Fetch(t.Context(), storage.Item{URL: url}, func(done, _ int64) { last = done })
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Release()
			if last != int64(len(data)) && !h.FromCache {
				t.Errorf("progress ended at %d", last)
			}
			wantFile(t, h.Path, data)
		})
	}
	all.Wait()
	if n := p.Opens(); n != 1 {
		t.Errorf("%d downloads, want 1", n)
	}
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
		if _, err := c.Fetch(t.Context(), storage.Item{URL: p.put(t, "a", nil), SHA256: digest}, nil); err == nil || !strings.Contains(err.Error(), "no SHA-256") {
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
			t.Errorf("beside %q lie %v", name, beside)
		}
	}
}

func TestBigFileComesInPartsAtOnce(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(40<<20+1234, 1)
	url := p.put(t, "model.bin", data)
	var steps int
	c := newCache(t, options(t.TempDir(), p))
	c.AtEachStep(func(step string) {
		if step == "partial record" {
			steps++
		}
	})
	var last, total int64
	h, err := c.Fetch(t.Context(), storage.Item{URL: url}, func(d, n int64) {
		if d < last {
			t.Errorf("progress from %d back to %d", last, d)
		}
		last, total = d, n
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	wantFile(t, h.Path, data)
	if p.Opens() != 6 || p.BytesRead() != int64(len(data)) || steps < 3 {
		t.Errorf("%d parts, %d bytes read of %d, %d records", p.Opens(), p.BytesRead(), len(data), steps)
	}
	if last != int64(len(data)) || total != last {
		t.Errorf("progress ended at %d of %d", last, total)
	}
}

func TestDownloadGoesOnAfterARestart(t *testing.T) {
	for _, size := range []int{1000, 30 << 20} {
		p := newPlace(t)
		data := storagetest.Bytes(size, 1)
		url := p.put(t, "model.bin", data)
		o := options(t.TempDir(), p)
		o.Backoff.Attempts = 1
		o.Connections = 1
		p.CutAfter(700, 1)
		if _, err := newCache(t, o).Fetch(t.Context(), storage.Item{URL: url}, nil); !storage.IsTransient(err) {
			t.Fatalf("the cut ends with %v", err)
		}
		h := fetch(t, newCache(t, o), storage.Item{URL: url})
		wantFile(t, h.Path, data)
		if p.BytesRead() != int64(size) {
			t.Errorf("%d bytes were read of %d", p.BytesRead(), size)
		}
	}
}

func TestDownloadOfAChangedFileBeginsAnew(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "model.bin", storagetest.Bytes(1000, 1))
	o := options(t.TempDir(), p)
	o.Backoff.Attempts = 1
	p.CutAfter(700, 1)
	if _, err := newCache(t, o).Fetch(t.Context(), storage.Item{URL: url}, nil); err == nil {
		t.Fatal("the cut was not noticed")
	}
	data := storagetest.Bytes(1000, 2)
	p.put(t, "model.bin", data)
	wantFile(t, fetch(t, newCache(t, o), storage.Item{URL: url}).Path, data)
}

// A source that lies about being unchanged leaves a mixture; the digest tells.
func TestWrongRemainderIsFetchedAnew(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "model.bin", data)
	dir := t.TempDir()
	o := options(dir, p)
	o.Backoff.Attempts = 1
	p.CutAfter(700, 1)
	item := storage.Item{URL: url, SHA256: sum(data)}
	if _, err := newCache(t, o).Fetch(t.Context(), item, nil); err == nil {
		t.Fatal("the cut was not noticed")
	}
	left, _ := filepath.Glob(filepath.Join(dir, "partial", "*[0-9a-f]"))
	f, err := os.OpenFile(left[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 10); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wantFile(t, fetch(t, newCache(t, o), item).Path, data)
}

// Whatever moment the process is killed at, the next one finds no half file: the
// folder is copied before each step, as a kill would leave it.
func TestKillAtAnyStepLosesNothing(t *testing.T) {
	p := newPlace(t)
	model, code := storagetest.Bytes(20<<20, 1), readTestdata(t, "good.zip")
	items := []storage.Item{
		{URL: p.put(t, "model.bin", model)},
		{URL: p.put(t, "code.zip", code), SHA256: sum(code), Unpack: true},
	}
	check := func(c *storage.Cache) {
		t.Helper()
		wantFile(t, fetch(t, c, items[0]).Path, model)
		wantFile(t, filepath.Join(fetch(t, c, items[1]).Path, "__init__.py"), []byte("from .inner import x\n"))
	}
	type kill struct{ step, dir string }
	var kills []kill
	dir := t.TempDir()
	c := newCache(t, options(dir, p))
	var mu sync.Mutex
	c.AtEachStep(func(step string) {
		mu.Lock()
		defer mu.Unlock()
		left := t.TempDir()
		if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		kills = append(kills, kill{step, left})
	})
	check(c)
	c.Prune(0)
	seen := map[string]bool{}
	for _, k := range kills {
		seen[k.step] = true
		t.Run(k.step, func(t *testing.T) {
			c := newCache(t, options(k.dir, p))
			check(c)
			p.Unreachable(true) // what the second start has is whole
			defer p.Unreachable(false)
			check(newCache(t, options(k.dir, p)))
		})
	}
	for _, step := range []string{"partial open", "partial reset", "partial sync", "partial record", "blob seal", "blob rename", "blob renamed", "index", "named link", "named rename", "unpack"} {
		if !seen[step] {
			t.Errorf("step %q was not reached", step)
		}
	}
}

func TestDamagedRecordsAreFetchedAnew(t *testing.T) {
	for name, damage := range map[string]string{
		"empty": "", "no JSON": "{", "wrong shape": "[]", "null": "null",
		"overlapping":     `{"size":1000,"etag":"\"x\"","done":[{"From":0,"To":800},{"From":700,"To":900}]}`,
		"past the end":    `{"size":1000,"etag":"\"x\"","done":[{"From":0,"To":5000}]}`,
		"negative":        `{"size":1000,"etag":"\"x\"","done":[{"From":-5,"To":10}]}`,
		"other content":   `{"url":"x","sha256":"../../x","size":1000}`,
		"no such content": `{"url":"x","sha256":"` + sum(nil) + `","size":1000}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			data := storagetest.Bytes(1000, 1)
			url := p.put(t, "model.bin", data)
			object, err := p.Stat(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			o := options(dir, p)
			o.Backoff.Attempts = 1
			p.CutAfter(700, 1)
			if _, err := newCache(t, o).Fetch(t.Context(), storage.Item{URL: url}, nil); err == nil {
				t.Fatal("the cut was not noticed")
			}
			damage := strings.ReplaceAll(damage, `\"x\"`, strings.ReplaceAll(object.ETag, `"`, `\"`))
			overwrite(t, filepath.Join(dir, "partial", "*.json"), strings.ReplaceAll(damage, `"x"`, `"`+url+`"`))
			wantFile(t, fetch(t, newCache(t, o), storage.Item{URL: url}).Path, data)
			overwrite(t, filepath.Join(dir, "urls", "*.json"), strings.ReplaceAll(damage, `"x"`, `"`+url+`"`))
			wantFile(t, fetch(t, newCache(t, o), storage.Item{URL: url}).Path, data)
		})
	}
}

func overwrite(t *testing.T, pattern, text string) {
	t.Helper()
	files, _ := filepath.Glob(pattern)
	if len(files) != 1 {
		t.Fatalf("%s matches %v", pattern, files)
	}
	if err := os.WriteFile(files[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
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
		t.Error("the handle is not said to be stale")
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

func TestPruningTakesTheOldestAndNothingInUse(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	c := newCache(t, options(dir, p))
	var handles []*storage.Handle
	for i, name := range []string{"a", "b", "c", "d"} {
		h := fetch(t, c, storage.Item{URL: p.put(t, name, storagetest.Bytes(1000, uint64(i)))})
		used := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := os.Chtimes(filepath.Join(dir, "leases", h.SHA256), used, used); err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	kept := func() string {
		var names string
		for i, h := range handles {
			if _, err := os.Stat(h.Path); err == nil {
				names += string(rune('a' + i))
			}
		}
		return names
	}
	if n := c.Prune(0); n != 0 || kept() != "abcd" {
		t.Errorf("of files in use, %d bytes were removed; kept %s", n, kept())
	}
	handles[1].Release()
	handles[1].Release() // further calls do nothing
	handles[2].Release()
	other := newCache(t, options(dir, p)) // leases hold in other processes too
	if n := other.Prune(3500); n != 1000 || kept() != "acd" {
		t.Errorf("%d bytes were removed, kept %s; want 1000, acd", n, kept())
	}
	if n := other.Prune(0); n != 1000 || kept() != "ad" {
		t.Errorf("%d bytes were removed, kept %s; want 1000, ad", n, kept())
	}
}

func TestBoundHoldsAfterEachFetch(t *testing.T) {
	p := newPlace(t)
	o := options(t.TempDir(), p)
	o.MaxBytes = 2500
	c := newCache(t, o)
	for i := range 6 {
		h := fetch(t, c, storage.Item{URL: p.put(t, "m"+string(rune('a'+i)), storagetest.Bytes(1000, uint64(i)))})
		if _, err := os.Stat(h.Path); err != nil {
			t.Fatal(err)
		}
		h.Release()
	}
	blobs, _ := filepath.Glob(filepath.Join(o.Dir, "blobs", "*", "*"))
	if len(blobs) != 2 {
		t.Errorf("%d files are kept, want 2", len(blobs))
	}
}

func TestLeaverDoesNotStopTheOthers(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "a", data)
	c := newCache(t, options(t.TempDir(), p))
	leaving, leave := context.WithCancel(t.Context())
	begun, goOn := make(chan struct{}), make(chan struct{})
	c.AtEachStep(func(step string) {
		if step == "partial open" {
			close(begun)
			<-goOn
		}
	})
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := c.Fetch(leaving, storage.Item{URL: url}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("the leaver got %v", err)
		}
		close(goOn)
	})
	<-begun
	joined := make(chan struct{})
	both.Go(func() {
		close(joined)
		h, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil)
		if err != nil {
			t.Errorf("the other got %v", err)
			return
		}
		defer h.Release()
		wantFile(t, h.Path, data)
	})
	<-joined
	time.Sleep(10 * time.Millisecond) // until the second waits; if it does not yet, the test only proves less
	leave()
	both.Wait()
	if p.Opens() != 1 {
		t.Errorf("%d downloads, want 1", p.Opens())
	}
}

func TestLastLeaverStopsTheDownload(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "a", storagetest.Bytes(1000, 1))
	c := newCache(t, options(t.TempDir(), storagetest.Hanging{Adapter: p, First: 100}))
	ctx, leave := context.WithCancel(t.Context())
	_, err := c.Fetch(ctx, storage.Item{URL: url}, func(done, _ int64) {
		if done == 100 {
			leave()
		}
	})
	if !errors.Is(err, context.Canceled) || storage.IsTransient(err) {
		t.Errorf("error %v, want the end of the context", err)
	}
}

func TestSilenceIsACutAndSlownessIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		data := storagetest.Bytes(50, 1)
		url := p.put(t, "a", data)
		o := options(t.TempDir(), storagetest.Hanging{Adapter: p, Slow: 59 * time.Second})
		began := time.Now()
		wantFile(t, fetch(t, newCache(t, o), storage.Item{URL: url}).Path, data)
		if took := time.Since(began); took < 49*time.Minute {
			t.Errorf("50 slow bytes took %s", took)
		}
		o = options(t.TempDir(), storagetest.Hanging{Adapter: p, First: 0})
		o.Backoff = storage.Backoff{Attempts: 3, First: time.Second, Max: time.Minute}
		began = time.Now()
		_, err := newCache(t, o).Fetch(t.Context(), storage.Item{URL: url}, nil)
		if !storage.IsTransient(err) || !strings.Contains(err.Error(), "no bytes for 1m0s") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took < 3*time.Minute || took > 3*time.Minute+4*time.Second {
			t.Errorf("three silences took %s", took)
		}
	})
}

// told is an adapter that tells of its files what the test wants.
type told struct {
	storage.Adapter
	stat, open func(storage.Object) storage.Object
}

func (a told) Stat(ctx context.Context, url string) (storage.Object, error) {
	o, err := a.Adapter.Stat(ctx, url)
	if a.stat != nil {
		o = a.stat(o)
	}
	return o, err
}

func (a told) Open(ctx context.Context, url string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	body, o, err := a.Adapter.Open(ctx, url, part)
	if a.open != nil {
		o = a.open(o)
	}
	return body, o, err
}

func TestLengthThatCanNotBeKnownNeedsADigest(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "a", data)
	unframed := func(storage.Object) storage.Object { return storage.Object{Size: -1, Unframed: true} }
	c := newCache(t, options(t.TempDir(), told{p, unframed, unframed}))
	if _, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("without a digest: %v", err)
	}
	wantFile(t, fetch(t, c, storage.Item{URL: url, SHA256: sum(data)}).Path, data)
}

// Some servers answer HEAD with a length of 0.
func TestLengthOfTheAnswerCountsMoreThanThatOfStat(t *testing.T) {
	p := newPlace(t)
	data := storagetest.Bytes(1000, 1)
	url := p.put(t, "a", data)
	empty := func(o storage.Object) storage.Object { o.Size = 0; return o }
	wantFile(t, fetch(t, newCache(t, options(t.TempDir(), told{p, empty, nil})), storage.Item{URL: url}).Path, data)
}

func TestFileWithoutRoomIsRefusedBeforeItIsRead(t *testing.T) {
	p := newPlace(t)
	url := p.put(t, "a", []byte("x"))
	dir := t.TempDir()
	huge := func(o storage.Object) storage.Object { o.Size = 1 << 60; return o }
	_, err := newCache(t, options(dir, told{p, huge, nil})).Fetch(t.Context(), storage.Item{URL: url}, nil)
	var space *storage.SpaceError
	if !errors.As(err, &space) || space.Dir != dir || space.Need != 1<<60 || space.Free <= 0 || p.Opens() != 0 {
		t.Errorf("error %v after %d downloads", err, p.Opens())
	}
}

func TestFolderThatCanNotBeUsedIsNamed(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(blocked, "cache")
	_, err := storage.NewCache(storage.CacheOptions{Dir: dir})
	var fault *storage.DirError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v does not name %s", err, dir)
	}
	if _, err := storage.NewCache(storage.CacheOptions{}); err == nil {
		t.Error("a cache without a folder was opened")
	}
}

func TestUnknownSchemeIsNamedWithWhatIsSupported(t *testing.T) {
	c := newCache(t, options(t.TempDir(), file.Adapter{}))
	_, err := c.Fetch(t.Context(), storage.Item{URL: "s3://key:secret@bucket/model.pkl?sig=secret"}, nil)
	var unsupported *storage.UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Scheme != "s3" || !strings.Contains(err.Error(), "supported are file") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if _, err := c.Fetch(t.Context(), storage.Item{URL: " "}, nil); err == nil {
		t.Error("an empty URL was fetched")
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

func TestSecretsOfURLsAreNeitherLoggedNorStored(t *testing.T) {
	p := newPlace(t)
	data := []byte("x")
	path := p.put(t, "a", data)
	var log bytes.Buffer
	dir := t.TempDir()
	o := options(dir, nil)
	o.Adapters = storage.Adapters{"https": renamed{p, path}}
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := newCache(t, o)
	url := "https://user:hunter2@host/a.pkl?signature=hunter2#hunter2"
	h := fetch(t, c, storage.Item{URL: url})
	if filepath.Base(h.Path) != "a.pkl" {
		t.Errorf("the file is named %s", h.Path)
	}
	p.Unreachable(true)
	if h := fetch(t, c, storage.Item{URL: url}); !h.Stale {
		t.Error("not stale")
	}
	if strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "https://host/a.pkl") {
		t.Errorf("logged: %s", log.String())
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text)+path, "hunter2") {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// renamed is an adapter whose every URL leads to one file.
type renamed struct {
	storage.Adapter
	path string
}

func (r renamed) Stat(ctx context.Context, _ string) (storage.Object, error) {
	return r.Adapter.Stat(ctx, r.path)
}

func (r renamed) Open(ctx context.Context, _ string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	return r.Adapter.Open(ctx, r.path, part)
}

func TestLeftoversOfKilledProcessesAreSwept(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	c := newCache(t, options(dir, p))
	leftovers := []string{"unpacked/x/.unpacking-1", "urls/.writing-1", "named/x/y/.linking-1", "partial/0123", "partial/0123.json"}
	for _, name := range leftovers {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (n int) {
		for _, name := range leftovers {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				n++
			}
		}
		return n
	}
	for after, want := range map[time.Duration]int{time.Hour: 5} {
		if c.Sweep(time.Now().Add(after)); there() != want {
			t.Errorf("after %s, %d leftovers are there, want %d", after, there(), want)
		}
	}
	if c.Sweep(time.Now().Add(25 * time.Hour)); there() != 2 {
		t.Errorf("after a day, %d leftovers are there, want the partial download", there())
	}
	if c.Sweep(time.Now().Add(8 * 24 * time.Hour)); there() != 0 {
		t.Errorf("after a week, %d leftovers are there", there())
	}
}

func TestBackoffWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := &storage.Error{Op: "stat", URL: "x", Transient: true, Err: errors.New("busy")}
		b := storage.Backoff{Attempts: 5, First: time.Second, Max: 4 * time.Second}
		var at []time.Duration
		began := time.Now()
		err := b.Do(t.Context(), func() error { at = append(at, time.Since(began)); return failure })
		if !errors.Is(err, failure) || len(at) != 5 || !strings.Contains(err.Error(), "after 5 attempts") {
			t.Fatalf("%d attempts, %v", len(at), err)
		}
		for i, most := range []time.Duration{1, 2, 4, 4} {
			if wait := at[i+1] - at[i]; wait < most*time.Second/2 || wait > most*time.Second {
				t.Errorf("wait %d is %s, want %d s or up to half of it less", i, wait, most)
			}
		}
		failure.After = 3 * time.Second
		began, at = time.Now(), nil
		_ = storage.Backoff{Attempts: 2, First: time.Millisecond}.Do(t.Context(), func() error { at = append(at, time.Since(began)); return failure })
		if at[1] != 3*time.Second {
			t.Errorf("the place asked for 3 s, the wait is %s", at[1])
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Do(ctx, func() error { return failure }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the end of the context", err)
		}
	})
}

func TestSpansJoin(t *testing.T) {
	var spans []storage.Span
	for _, s := range []storage.Span{{From: 10, To: 20}, {From: 30, To: 40}, {From: 0, To: 5}, {From: 20, To: 25}, {From: 5, To: 10}, {From: 50, To: 60}, {From: 24, To: 52}} {
		spans = storage.Join(spans, s)
	}
	if len(spans) != 1 || spans[0] != (storage.Span{From: 0, To: 60}) {
		t.Errorf("spans %v", spans)
	}
}

func TestSchemeOfURL(t *testing.T) {
	for url, want := range map[string]string{
		"HTTPS://h/a": "https", "s3://b/k": "s3", "/a/b": "file", "a/b": "file", "C:/x": "file", "file:/a": "file",
		"file:///a": "file", "/a://b": "file", "://x": "file", "azure+x://c": "azure+x",
	} {
		if got := storage.Scheme(url); got != want {
			t.Errorf("Scheme(%q) = %q, want %q", url, got, want)
		}
	}
}
