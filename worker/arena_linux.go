package worker

import (
	"os"

	"golang.org/x/sys/unix"
)

// newArenaFile makes a file of that size without memory. Nobody can make it
// shorter: to touch what a worker has cut off would end us.
func newArenaFile(size int64) (*os.File, error) { return sealedFile("clearml-serving-bodies", size) }

func mapArena(file *os.File, offset int64, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func dropPages(memory []byte) error { return unix.Madvise(memory, unix.MADV_REMOVE) }
