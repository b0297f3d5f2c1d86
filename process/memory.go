package process

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Memory is what one process takes in bytes.
type Memory struct {
	// Share is what it has for itself, and its share of what it has together with
	// others: the shares of all processes add up to what they take.
	Share int64
	// Own is what it has for itself alone: what comes back when it ends.
	Own int64
}

// MemoryOf asks what a process takes. The error is fs.ErrPermission where the system
// does not tell us; others mean that it has ended. The kernel looks at all its pages:
// that takes a millisecond or more, the longer the larger it is.
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

func parseRollup(text []byte) (m Memory, ok bool) {
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kilobytes, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			continue // the head, an address
		}
		switch string(fields[0]) {
		case "Pss:":
			m.Share, ok = kilobytes<<10, true
		case "Private_Clean:", "Private_Dirty:":
			m.Own += kilobytes << 10
		}
	}
	return m, ok
}
