//go:build !linux

package statistics

import "os"

// reserve takes room on the disk for a part of the file, without a change of its content. A store to
// memory without room would end the process.
func reserve(f *os.File, offset, size int64) error { return fill(f, offset, size) }
