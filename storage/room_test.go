package storage_test

import (
	"testing"

	"clearmlserving/storage"
)

func TestSizesThatAreCloseTogetherDifferWhenADiskIsFull(t *testing.T) {
	err := &storage.SpaceError{Dir: "d", Need: 1<<30 + 5<<20, Free: 1 << 30}
	if got, want := err.Error(), "no room in d: 1.005 GiB needed, 1.000 GiB free; make room there or choose another data folder"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
