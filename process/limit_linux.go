package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LimitMemory bounds the memory that this process may allocate to limit bytes beyond own. A limit of 0 is
// none. Later allocations above it fail.
func LimitMemory(limit, own int64) error {
	if limit <= 0 {
		return nil
	}
	bound := uint64(limit) + uint64(own) //nolint:gosec // positive
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: bound, Max: bound}); err != nil {
		return fmt.Errorf("limit the memory of this process: %w", err)
	}
	return nil
}
