package worker

import (
	"os"

	"golang.org/x/sys/unix"
)

func newPageFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("clearml-serving-marks", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "marks"), nil
}
