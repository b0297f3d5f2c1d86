package storage_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/storage"
	"clearmlserving/storage/storagetest"
)

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
	if c.Sweep(time.Now().Add(time.Hour)); there() != 5 {
		t.Errorf("after an hour, %d leftovers are there, want all", there())
	}
	if c.Sweep(time.Now().Add(25 * time.Hour)); there() != 2 {
		t.Errorf("after a day, %d leftovers are there, want the partial download", there())
	}
	if c.Sweep(time.Now().Add(8 * 24 * time.Hour)); there() != 0 {
		t.Errorf("after a week, %d leftovers are there", there())
	}
}
