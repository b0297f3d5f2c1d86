package worker

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func newPageFile(size int64) (*os.File, error) { return sealedFile("clearml-serving-marks", size) }

// sealedFile makes a file in memory whose size can no longer be changed. To
// touch memory that a worker has cut off would end us.
func sealedFile(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
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
