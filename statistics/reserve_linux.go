package statistics

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve takes room on the disk for a part of the file, without a change of its content. A store to
// memory without room would end the process.
func reserve(f *os.File, offset, size int64) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, offset, size); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			return fill(f, offset, size)
		default:
			return err
		}
	}
}
