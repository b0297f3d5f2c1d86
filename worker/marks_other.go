//go:build unix && !linux

package worker

import (
	"errors"
	"os"
)

func newPageFile(size int64) (*os.File, error) {
	f, err := os.CreateTemp("", "clearml-serving-marks-*")
	if err != nil {
		return nil, err
	}
	// Only its holders know it from here on.
	if err := errors.Join(os.Remove(f.Name()), f.Truncate(size)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
