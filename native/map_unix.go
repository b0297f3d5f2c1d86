//go:build unix

package native

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// contents maps a file read-only. All processes that map it share its pages.
func contents(path string) (data []byte, release func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // the map stays
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() < headerSize || !info.Mode().IsRegular() {
		return nil, nil, errShort
	}
	if data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, nil, fmt.Errorf("map: %w", err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
