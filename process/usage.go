package process

import (
	"iter"
	"os"
	"time"
)

// Stat is what the system reports of a process at little cost.
type Stat struct {
	Parent, Group int
	Stopped       bool // by a signal; not by a debugger
	Dead          bool // ended, and not waited for yet
	Threads       int
	Resident      int64         // bytes, including all shared memory
	CPU           time.Duration // without its ended children
}

// Table has the processes that this one can see, by their ids.
type Table map[int]Stat

// Below lists the processes that are roots, or of which an ancestor is one.
func (t Table) Below(root func(pid int) bool) (found []int) {
	for pid := range t {
		for at := range t.upwards(pid) {
			if root(at) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// upwards yields a process and its ancestors.
func (t Table) upwards(pid int) iter.Seq[int] {
	const deepest = 64 // a chain may be inconsistent: processes end while it is read
	return func(yield func(int) bool) {
		for depth := 0; pid != 0 && depth < deepest && yield(pid); depth++ {
			pid = t[pid].Parent
		}
	}
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
	u = UsageOf(os.Getpid())[os.Getpid()]
	return u, u.Memory > 0
}

// UsageOf is the present usage of some processes, each with all its descendants. Those that have ended are not in it.
func UsageOf(roots ...int) map[int]TreeUsage {
	wanted, usage, all := map[int]bool{}, map[int]TreeUsage{}, All()
	for _, root := range roots {
		_, wanted[root] = all[root]
	}
	for _, pid := range all.Below(func(pid int) bool { return wanted[pid] }) {
		m, _ := MemoryOf(pid) // it may have ended
		for at := range all.upwards(pid) {
			if !wanted[at] {
				continue
			}
			u := usage[at]
			u.Processes++
			u.CPU += all[pid].CPU
			u.Memory += m.Share
			usage[at] = u
		}
	}
	return usage
}
