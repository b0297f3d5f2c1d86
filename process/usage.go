package process

import (
	"os"
	"time"
)

// Stat is what the system reports of a process at little cost.
type Stat struct {
	Parent, Group int
	Stopped       bool // by a signal; not by a debugger
	Threads       int
	Resident      int64         // bytes, including all shared memory
	CPU           time.Duration // without its ended children
}

// Table has the processes that this one can see, by their ids.
type Table map[int]Stat

// Below lists the processes that are roots, or of which an ancestor is one.
func (t Table) Below(root func(pid int) bool) (found []int) {
	const deepest = 64 // a chain may be inconsistent: processes end while it is read
	for pid := range t {
		for at, depth := pid, 0; at != 0 && depth < deepest; at, depth = t[at].Parent, depth+1 {
			if root(at) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// TreeUsage is the resource usage of a process and all its descendants.
type TreeUsage struct {
	CPU       time.Duration // since their starts, without ended processes
	Memory    int64         // bytes
	Processes int
}

// Usage is the present usage of this process and all its descendants; ok is false if it is unknown.
// Shared memory is counted once, divided among the processes.
func Usage() (u TreeUsage, ok bool) {
	own, all := os.Getpid(), All()
	for _, pid := range all.Below(func(pid int) bool { return pid == own }) {
		m, _ := MemoryOf(pid) // it may have ended
		u.Processes++
		u.CPU += all[pid].CPU
		u.Memory += m.Share
	}
	return u, u.Memory > 0
}
