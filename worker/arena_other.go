//go:build unix && !linux

package worker

import (
	"errors"
	"os"
)

// Elsewhere bodies go through the socket: there are no files in memory alone.
func newArenaFile(int64) (*os.File, error) { return os.Open(os.DevNull) }

func readOnly(*os.File) (*os.File, error) { return os.Open(os.DevNull) }

func mapArena(*os.File, int64, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func dropPages([]byte) error { return errors.ErrUnsupported }
