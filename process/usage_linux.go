package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc/<pid>/stat on Linux.
const clockTick = 10 * time.Millisecond

// Usage is the present usage of this process and all its descendants; ok is false if it is unknown.
// Shared memory is counted once, divided among the processes.
func Usage() (u TreeUsage, ok bool) {
	parents, cpu := map[int]int{}, map[int]time.Duration{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// The name in parentheses may contain anything, so fields are counted after its end.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		cpu[pid] = time.Duration(user+system) * clockTick
	}
	own := os.Getpid()
	for pid := range parents {
		if isBelow(parents, pid, own) {
			u.Processes++
			u.CPU += cpu[pid]
			m, _ := MemoryOf(pid) // it may have ended
			u.Memory += m.Share
		}
	}
	return u, u.Memory > 0
}

// isBelow bounds the walk upwards, because data from different times may contain a cycle.
func isBelow(parents map[int]int, pid, root int) bool {
	for range 64 {
		if pid == root {
			return true
		}
		up, ok := parents[pid]
		if !ok {
			return false
		}
		pid = up
	}
	return false
}
