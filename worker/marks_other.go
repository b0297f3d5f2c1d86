//go:build unix && !linux

package worker

import "os"

func newPageFile() (*os.File, error) {
	f, err := os.CreateTemp("", "clearml-serving-marks-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name()) // only its holders know it
}
