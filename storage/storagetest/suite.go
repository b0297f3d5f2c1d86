// Package storagetest has the suite that every storage.Adapter passes, and an adapter that fails on
// purpose. It is for tests only.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"clearmlserving/storage"
)

// Place is the storage of an adapter under test.
type Place struct {
	Adapter storage.Adapter
	// URL is the address of a file with this name, which may contain folders.
	URL func(name string) string
	// Ranges means that the storage can return parts of files.
	Ranges bool
}

// Run checks that an adapter fulfils the contract of storage.Adapter. open returns a new empty
// place.
func Run(t *testing.T, open func(t *testing.T) Place) {
	t.Helper()
	for name, run := range map[string]func(check){
		"what was put is read back":          check.putAndRead,
		"stat tells the size":                check.statSize,
		"a missing file is ErrNotExist":      check.missing,
		"put replaces":                       check.replace,
		"put refuses a wrong length":         check.wrongLength,
		"put passes on a failing source":     check.failingSource,
		"put reports progress":               check.putProgress,
		"delete removes once":                check.remove,
		"parts are exact":                    check.parts,
		"a part of a changed file":           check.changedPart,
		"names are kept":                     check.names,
		"a cancelled context ends":           check.cancelled,
		"a cache over it survives each cut":  check.cuts,
		"a cache over it notices a change":   check.noticesChange,
		"a cache over it serves what it has": check.servesStale,
		"a cache over it outlasts trouble":   check.trouble,
	} {
		t.Run(name, func(t *testing.T) { run(check{t, open(t)}) })
	}
}

// check is one test of the suite.
type check struct {
	*testing.T
	Place
}

// Bytes returns n pseudo-random bytes, the same for each seed.
func Bytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func (p Place) put(t *testing.T, name string, data []byte) string {
	t.Helper()
	url := p.URL(name)
	if err := p.Adapter.Put(t.Context(), url, bytes.NewReader(data), int64(len(data)), nil); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
	return url
}

func (p Place) read(t *testing.T, url string, part storage.Part) ([]byte, error) {
	t.Helper()
	body, _, err := p.Adapter.Open(t.Context(), url, part)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (p Place) want(t *testing.T, url string, data []byte) {
	t.Helper()
	got, err := p.read(t, url, storage.Part{})
	if err != nil {
		t.Fatalf("read %s: %v", url, err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("read %s: %d bytes that are not the %d stored", url, len(got), len(data))
	}
}

func (k check) putAndRead() {
	t, p := k.T, k.Place
	for _, n := range []int{0, 1, 1000, 300_000} {
		data := Bytes(n, 1)
		p.want(t, p.put(t, fmt.Sprintf("file%d.bin", n), data), data)
	}
}

func (k check) statSize() {
	t, p := k.T, k.Place
	for _, n := range []int{0, 77} {
		url := p.put(t, "model.pkl", Bytes(n, 1))
		object, err := p.Adapter.Stat(t.Context(), url)
		if err != nil || object.Size != int64(n) {
			t.Fatalf("stat: size %d, %v; stored are %d bytes", object.Size, err, n)
		}
		if object.Ranges != p.Ranges {
			t.Fatalf("stat: ranges %v, the place has %v", object.Ranges, p.Ranges)
		}
	}
}

func (k check) missing() {
	t, p := k.T, k.Place
	url := p.URL("no/such/file")
	_, statErr := p.Adapter.Stat(t.Context(), url)
	_, openErr := p.read(t, url, storage.Part{})
	for op, err := range map[string]error{"stat": statErr, "open": openErr, "delete": p.Adapter.Delete(t.Context(), url)} {
		if !errors.Is(err, storage.ErrNotExist) || storage.IsTransient(err) {
			t.Errorf("%s: %v, want ErrNotExist that is not transient", op, err)
		}
		if !strings.Contains(err.Error(), "no/such/file") {
			t.Errorf("%s: %v does not name the file", op, err)
		}
	}
}

func (k check) replace() {
	t, p := k.T, k.Place
	p.put(t, "a", Bytes(5000, 1))
	shorter := Bytes(10, 2)
	p.want(t, p.put(t, "a", shorter), shorter)
}

func (k check) wrongLength() {
	t, p := k.T, k.Place
	old := Bytes(10, 1)
	url := p.put(t, "a", old)
	if err := p.Adapter.Put(t.Context(), url, bytes.NewReader(Bytes(20, 2)), 30, nil); err == nil {
		t.Error("20 bytes were stored as 30")
	}
	p.want(t, url, old)
}

func (k check) failingSource() {
	t, p := k.T, k.Place
	old := Bytes(10, 1)
	url := p.put(t, "a", old)
	broken := errors.New("the disk is on fire")
	source := io.MultiReader(bytes.NewReader(Bytes(1000, 2)), failing{broken})
	if err := p.Adapter.Put(t.Context(), url, source, 2000, nil); !errors.Is(err, broken) {
		t.Errorf("error %v, want the one of the source", err)
	}
	p.want(t, url, old)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (k check) putProgress() {
	t, p := k.T, k.Place
	data := Bytes(200_000, 1)
	var last int64
	err := p.Adapter.Put(t.Context(), p.URL("a"), bytes.NewReader(data), int64(len(data)), func(done, total int64) {
		if done < last || total != int64(len(data)) {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != int64(len(data)) {
		t.Errorf("progress ended at %d of %d, %v", last, len(data), err)
	}
}

func (k check) remove() {
	t, p := k.T, k.Place
	url := p.put(t, "a/b", Bytes(10, 1))
	if err := p.Adapter.Delete(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	if err := p.Adapter.Delete(t.Context(), url); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("second delete: %v, want ErrNotExist", err)
	}
}

func (k check) parts() {
	t, p := k.T, k.Place
	data := Bytes(1000, 1)
	url := p.put(t, "a", data)
	of, err := p.Adapter.Stat(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][2]int64{{0, 1}, {0, 1000}, {1, 0}, {999, 1}, {500, 250}} {
		want := data[part[0]:]
		if part[1] > 0 {
			want = want[:part[1]]
		}
		got, err := p.read(t, url, storage.Part{Offset: part[0], Length: part[1], Of: of})
		switch {
		case !p.Ranges && errors.Is(err, storage.ErrNoRanges):
		case err != nil:
			t.Errorf("part %v: %v", part, err)
		case !bytes.Equal(got, want):
			t.Errorf("part %v: wrong bytes (%d)", part, len(got))
		}
	}
	if got, err := p.read(t, url, storage.Part{Offset: 990, Length: 20, Of: of}); err == nil {
		t.Errorf("20 bytes from 990 of 1000 gave %d bytes", len(got))
	}
}

func (k check) changedPart() {
	t, p := k.T, k.Place
	url := p.put(t, "a", Bytes(1000, 1))
	of, err := p.Adapter.Stat(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if !of.Validated() {
		t.Skip("the place has no validators")
	}
	p.put(t, "a", Bytes(1001, 2))
	for _, part := range []storage.Part{{Of: of}, {Offset: 1, Of: of}, {Offset: 1, Length: 5, Of: of}} {
		if _, err := p.read(t, url, part); !errors.Is(err, storage.ErrChanged) {
			t.Errorf("part from %d of %d: %v, want ErrChanged", part.Offset, part.Length, err)
		}
	}
}

func (k check) names() {
	t, p := k.T, k.Place
	for _, name := range []string{"a b.pkl", "ä/ö.pkl", "a+b&c=d;e", "[a].id/models/x.pkl", "a.b.c"} {
		data := []byte(name)
		p.want(t, p.put(t, name, data), data)
	}
}

func (k check) cancelled() {
	t, p := k.T, k.Place
	url := p.put(t, "a", Bytes(10, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, statErr := p.Adapter.Stat(ctx, url)
	_, _, openErr := p.Adapter.Open(ctx, url, storage.Part{})
	for op, err := range map[string]error{"stat": statErr, "open": openErr} {
		if !errors.Is(err, context.Canceled) || storage.IsTransient(err) {
			t.Errorf("%s: %v, want the end of the context", op, err)
		}
	}
}

// cache is a cache over an adapter, with short waits for tests.
func cache(t *testing.T, url string, adapter storage.Adapter, dir string) *storage.Cache {
	t.Helper()
	c, err := storage.NewCache(storage.CacheOptions{
		Dir: dir, Adapters: storage.Adapters{storage.Scheme(url): adapter},
		Backoff: storage.Backoff{First: time.Microsecond, Max: time.Millisecond}, Stall: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(t *testing.T, c *storage.Cache, url string, data []byte) *storage.Handle {
	t.Helper()
	h, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	t.Cleanup(h.Release)
	got, err := os.ReadFile(h.Path)
	sum := sha256.Sum256(data)
	if err != nil || !bytes.Equal(got, data) || h.SHA256 != hex.EncodeToString(sum[:]) {
		t.Fatalf("fetched are %d bytes that are not the %d stored (%v)", len(got), len(data), err)
	}
	return h
}

func (k check) cuts() {
	t, p := k.T, k.Place
	data := Bytes(100_000, 3)
	url := p.put(t, "models/model.pkl", data)
	for _, at := range []int64{0, 1, 4095, 4096, 65_536, 99_999, 100_000} {
		faulty := NewFaulty(p.Adapter)
		faulty.CutAfter(at, 4)
		fetch(t, cache(t, url, faulty, t.TempDir()), url, data)
	}
}

func (k check) noticesChange() {
	t, p := k.T, k.Place
	first, second := Bytes(5000, 1), Bytes(5000, 2)
	url := p.put(t, "model.pkl", first)
	c := cache(t, url, p.Adapter, t.TempDir())
	fetch(t, c, url, first)
	p.put(t, "model.pkl", second)
	fetch(t, c, url, second)
}

func (k check) servesStale() {
	t, p := k.T, k.Place
	data := Bytes(5000, 1)
	url := p.put(t, "model.pkl", data)
	faulty := NewFaulty(p.Adapter)
	c := cache(t, url, faulty, t.TempDir())
	fetch(t, c, url, data)
	faulty.Unreachable(true)
	if h := fetch(t, c, url, data); !h.Stale || h.Why == nil || !h.FromCache {
		t.Errorf("handle %+v is not marked as stale", h)
	}
	other := url + ".other"
	if _, err := c.Fetch(t.Context(), storage.Item{URL: other}, nil); !storage.IsTransient(err) {
		t.Errorf("an unknown file of an unreachable place: %v, want a transient error", err)
	}
	faulty.Unreachable(false)
	if h := fetch(t, c, url, data); h.Stale {
		t.Error("the handle is stale although the place is back")
	}
}

func (k check) trouble() {
	t, p := k.T, k.Place
	data := Bytes(70_000, 4)
	url := p.put(t, "model.pkl", data)
	for n := 1; n <= 5; n++ {
		faulty := NewFaulty(p.Adapter)
		faulty.FailOpens(n, &storage.Error{Op: "open", URL: url, Transient: true, Err: errors.New("503")})
		fetch(t, cache(t, url, faulty, t.TempDir()), url, data)
	}
	faulty := NewFaulty(p.Adapter)
	faulty.FailOpens(1, &storage.Error{Op: "open", URL: url, Err: storage.ErrDenied})
	c := cache(t, url, faulty, t.TempDir())
	if _, err := c.Fetch(t.Context(), storage.Item{URL: url}, nil); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("after a permanent error: %v", err)
	}
	for name, fault := range map[string]func(*Faulty){
		"changed once": func(f *Faulty) { f.FailOpens(1, &storage.Error{Op: "open", URL: url, Err: storage.ErrChanged}) },
		"no ranges":    func(f *Faulty) { f.CutAfter(1000, 1); f.RefuseParts() },
		"always 416":   func(f *Faulty) { f.CutAfter(1000, 1); f.ChangedParts() },
		"no length":    func(f *Faulty) { f.HideObject() },
	} {
		t.Run(name, func(t *testing.T) {
			faulty := NewFaulty(p.Adapter)
			fault(faulty)
			fetch(t, cache(t, url, faulty, t.TempDir()), url, data)
		})
	}
}
