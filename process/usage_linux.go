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

// Usage is what this process and all below it use now; ok is false where that
// cannot be known. What processes share is counted once, divided among them.
func Usage() (u TreeUsage, ok bool) {
	parents, cpu := map[int]int{}, map[int]time.Duration{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// The name in parentheses may hold anything, so the fields count from its end.
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

// isBelow bounds the way up: what was read piecemeal may hold a circle.
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
