package worker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newArenaFile makes a file of that size without memory. Nobody can make it
// shorter: to touch what a worker has cut off would end us.
func newArenaFile(size int64) (*os.File, error) { return sealedFile("clearml-serving-bodies", size) }

// readOnly opens the file anew: what a worker writes by mistake harms nobody's body,
// and takes no memory that is not counted as its own.
func readOnly(file *os.File) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
}

func mapArena(file *os.File, offset int64, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func dropPages(memory []byte) error { return unix.Madvise(memory, unix.MADV_REMOVE) }
