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
	u = UsageOf(os.Getpid())[os.Getpid()]
	return u, u.Memory > 0
}

// UsageOf is the present usage of some processes, each with all its descendants. Those that have ended are not in it.
func UsageOf(roots ...int) map[int]TreeUsage {
	parents, cpu := map[int]int{}, map[int]time.Duration{}
	files, _ := filepath.Glob(filepath.Join(host.proc, "[0-9]*/stat"))
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
	wanted := map[int]bool{}
	for _, root := range roots {
		wanted[root] = true
	}
	all := map[int]TreeUsage{}
	for pid := range parents {
		above := rootsOf(parents, pid, wanted)
		if len(above) == 0 {
			continue
		}
		m, _ := MemoryOf(pid) // it may have ended
		for _, root := range above {
			u := all[root]
			u.Processes++
			u.CPU += cpu[pid]
			u.Memory += m.Share
			all[root] = u
		}
	}
	return all
}

// rootsOf are the wanted ones among a process and those above it. It bounds the walk upwards, because data from different
// times may contain a cycle.
func rootsOf(parents map[int]int, pid int, wanted map[int]bool) (roots []int) {
	for range 64 {
		up, ok := parents[pid]
		if !ok {
			return roots
		}
		if wanted[pid] {
			roots = append(roots, pid)
		}
		pid = up
	}
	return roots
}
