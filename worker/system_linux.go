package worker

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	packets socketKind = unix.SOCK_SEQPACKET
	stream  socketKind = unix.SOCK_STREAM
)

func newSocketPair(kind socketKind) ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, int(kind)|unix.SOCK_CLOEXEC, 0)
}

// newMemoryFile makes a file without a name in memory, whose size cannot be changed:
// access to memory that a worker has cut off would end this process.
func newMemoryFile(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("clearml-serving-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	if err := errors.Join(file.Truncate(size), file.Chmod(0o600)); err != nil {
		_ = file.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// newArenaFile makes the file of an arena; its memory is taken when it is written to.
func newArenaFile(size int64) (*os.File, error) { return newMemoryFile("bodies", size) }

// readOnly opens the file anew, so that a worker can neither damage bodies of others nor
// take memory that is not counted as its own.
func readOnly(file *os.File) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
}

func mapArena(file *os.File, offset int64, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func dropPages(memory []byte) error { return unix.Madvise(memory, unix.MADV_REMOVE) }
