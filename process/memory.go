package process

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Memory is the memory usage of one process in bytes.
type Memory struct {
	// Share is its private memory and its share of shared memory: the sum over all processes is
	// their total usage.
	Share int64
	// Own is its private memory, which is freed when it ends.
	Own int64
}

// MemoryOf measures the memory of a process. The error is fs.ErrPermission if that is not
// permitted; other errors mean that it has ended. The kernel walks all its pages, which takes a
// millisecond or more, depending on its size.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(filepath.Join(host.proc, strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return Memory{}, err
	}
	m, ok := parseRollup(text)
	if !ok { // it has ended, and its parent has not noticed yet
		return Memory{}, fmt.Errorf("read the memory of process %d: %w", pid, fs.ErrNotExist)
	}
	return m, nil
}

func parseRollup(text []byte) (Memory, bool) {
	kilobytes := numbers(text)
	share, ok := kilobytes["Pss:"]
	return Memory{Share: share << 10, Own: (kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]) << 10}, ok
}
