package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LimitMemory bounds the memory that this process may allocate to limit bytes beyond own. A limit of 0 is
// none, and one above the limit that the process has changes nothing. Later allocations above it fail.
func LimitMemory(limit, own int64) error {
	if limit <= 0 {
		return nil
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &now); err != nil {
		return fmt.Errorf("read the limit of the memory of this process: %w", err)
	}
	bound := min(uint64(limit)+uint64(own), now.Cur) //nolint:gosec // positive
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: bound, Max: bound}); err != nil {
		return fmt.Errorf("limit the memory of this process: %w", err)
	}
	return nil
}
