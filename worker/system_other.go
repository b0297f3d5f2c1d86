//go:build unix && !linux

package worker

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// There are no ordered packets here: datagrams between a pair keep order and limits.
const (
	packets socketKind = unix.SOCK_DGRAM
	stream  socketKind = unix.SOCK_STREAM
)

func newSocketPair(kind socketKind) ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, int(kind), 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// newMemoryFile makes a file that only its holders know.
func newMemoryFile(name string, size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "clearml-serving-"+name+"-*")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Bodies go through the socket here: there are no files in memory alone.
func newArenaFile(int64) (*os.File, error) { return os.Open(os.DevNull) }

func readOnly(*os.File) (*os.File, error) { return os.Open(os.DevNull) }

func mapArena(*os.File, int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func dropPages([]byte) error { return errors.ErrUnsupported }
