package storage_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"clearmlserving/storage"
	"clearmlserving/storage/storagetest"
)

// smallDisk mounts a small file system, if the test is allowed to.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskThatFillsUpIsNamed(t *testing.T) {
	dir := smallDisk(t)
	p := newPlace(t)
	url := p.put(t, "big", storagetest.Bytes(1<<20, 1))
	p.HideObject() // so that it is detected only while writing
	_, err := newCache(t, options(dir, p)).Fetch(t.Context(), storage.Item{URL: url}, nil)
	var space *storage.SpaceError
	if !errors.As(err, &space) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v", err)
	}
}

func TestUnusedFilesMakeRoom(t *testing.T) {
	dir := smallDisk(t)
	p := newPlace(t)
	c := newCache(t, options(dir, p))
	for i := range 4 {
		data := storagetest.Bytes(150_000, uint64(i))
		h := fetch(t, c, storage.Item{URL: p.put(t, "m", data)})
		wantFile(t, h.Path, data)
		h.Release()
	}
}

func TestReadOnlyDiskIsNamed(t *testing.T) {
	dir := smallDisk(t)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot make a disk read-only: %v", err)
	}
	_, err := storage.NewCache(storage.CacheOptions{Dir: dir})
	var fault *storage.DirError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another data folder") {
		t.Errorf("error %v", err)
	}
}
