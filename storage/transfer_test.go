package storage_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/storage"
	"clearmlserving/storage/storagetest"
)

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
			t.Fatalf("the interruption ends with %v", err)
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
		t.Fatal("the interruption was not detected")
	}
	data := storagetest.Bytes(1000, 2)
	p.put(t, "model.bin", data)
	wantFile(t, fetch(t, newCache(t, o), storage.Item{URL: url}).Path, data)
}

// A source that falsely reports no change leaves a mixture, which the digest detects.
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
		t.Fatal("the interruption was not detected")
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

// After a kill at any moment, the next process finds no incomplete file: the
// folder is copied before each step, in the state after a kill.
func TestKillAtAnyStepLosesNothing(t *testing.T) {
	p := newPlace(t)
	model, code := storagetest.Bytes(20<<20, 1), readTestdata(t, "good.zip")
	items := []storage.Item{
		{URL: p.put(t, "model.bin", model)},
		{URL: p.put(t, "code.zip", code), SHA256: sum(code), Unpack: true},
	}
	check := func(c *storage.Cache) {
		t.Helper()
		first, second := fetch(t, c, items[0]), fetch(t, c, items[1])
		defer first.Release()
		defer second.Release()
		wantFile(t, first.Path, model)
		wantFile(t, filepath.Join(second.Path, "__init__.py"), []byte("from .inner import x\n"))
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
		copyWithTimes(t, dir, left)
		kills = append(kills, kill{step, left})
	})
	check(c)
	if c.Prune(0) == 0 {
		t.Error("nothing was pruned")
	}
	seen := map[string]bool{}
	for _, k := range kills {
		seen[k.step] = true
		t.Run(k.step, func(t *testing.T) {
			c := newCache(t, options(k.dir, p))
			check(c)
			p.Unreachable(true) // the files of the second start are complete
			defer p.Unreachable(false)
			check(newCache(t, options(k.dir, p)))
		})
	}
	for _, step := range []string{"partial open", "partial reset", "partial sync", "partial record", "blob seal", "blob rename", "blob renamed", "index", "named link", "named rename", "unpack", "prune"} {
		if !seen[step] {
			t.Errorf("step %q was not reached", step)
		}
	}
}

// copyWithTimes copies a folder with its modification times.
func copyWithTimes(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Error(err)
	}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(to+strings.TrimPrefix(path, from), info.ModTime(), info.ModTime())
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDamagedRecordsAreFetchedAnew(t *testing.T) {
	for name, damage := range map[string]string{
		"empty": "", "no JSON": "{", "wrong shape": "[]", "null": "null",
		"too many parts":  `{"size":1000,"etag":"\"x\"","part":1000,"have":[700,300]}`,
		"other parts":     `{"size":1000,"etag":"\"x\"","part":500,"have":[500,200]}`,
		"no parts":        `{"size":1000,"etag":"\"x\"","part":0}`,
		"past the end":    `{"size":1000,"etag":"\"x\"","part":1000,"have":[5000]}`,
		"past the file":   `{"size":1000,"etag":"\"x\"","part":1000,"have":[701]}`,
		"negative":        `{"size":1000,"etag":"\"x\"","part":1000,"have":[-5]}`,
		"earlier version": `{"size":1000,"etag":"\"x\"","done":[{"From":0,"To":700}]}`,
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
				t.Fatal("the interruption was not detected")
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

func TestLeaverDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		data := storagetest.Bytes(1000, 1)
		url := p.put(t, "a", data)
		c := newCache(t, options(t.TempDir(), p))
		leaving, leave := context.WithCancel(t.Context())
		goOn := make(chan struct{})
		c.AtEachStep(func(step string) {
			if step == "partial open" {
				<-goOn
			}
		})
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := c.Fetch(leaving, storage.Item{URL: url}, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("the first caller got %v", err)
			}
		})
		synctest.Wait() // the first caller has begun the download
		both.Go(func() {
			h, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil)
			if err != nil {
				t.Errorf("the second caller got %v", err)
				return
			}
			defer h.Release()
			wantFile(t, h.Path, data)
		})
		synctest.Wait() // the second caller waits for it
		leave()
		synctest.Wait() // the first caller has left
		close(goOn)
		both.Wait()
		if p.Opens() != 1 {
			t.Errorf("%d downloads, want 1", p.Opens())
		}
	})
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
			t.Errorf("three stalls took %s", took)
		}
	})
}

// told is an adapter that describes its files as the test requires.
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
