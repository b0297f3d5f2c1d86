package worker

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// facts are what the system reports of a process at little cost.
type facts struct {
	stopped  bool // by a signal; not by a debugger
	threads  int
	resident int64 // bytes, including all shared memory
}

// factsOf returns the facts of a process; false when it is gone.
func factsOf(pid int) (facts, bool) {
	fields, ok := statOf(strconv.Itoa(pid))
	if !ok || len(fields) < 22 {
		return facts{}, false
	}
	threads, err := strconv.Atoi(fields[17])
	pages, err2 := strconv.ParseInt(fields[21], 10, 64)
	if err != nil || err2 != nil {
		return facts{}, false
	}
	return facts{stopped: fields[0] == "T", threads: threads, resident: pages * int64(os.Getpagesize())}, true
}

// statOf returns the fields of /proc/PID/stat from the third on.
func statOf(pid string) ([]string, bool) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil, false
	}
	i := bytes.LastIndex(b, []byte(") ")) // a program's name may hold anything
	if i < 0 {
		return nil, false
	}
	return strings.Fields(string(b[i+2:])), true
}

// census holds the parents and groups of all processes at one moment.
type census struct {
	parent map[int]int
	group  map[int]int
	origin map[int]int // of those whose parent has died: the worker that started them
}

// takeCensus lists the visible processes. It takes about 10 microseconds for each.
func takeCensus() *census {
	c := &census{parent: map[int]int{}, group: map[int]int{}, origin: map[int]int{}}
	dir, err := os.Open("/proc")
	if err != nil {
		return c
	}
	defer func() { _ = dir.Close() }() // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return c
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if fields, ok := statOf(name); ok && len(fields) > 2 {
			c.parent[pid], _ = strconv.Atoi(fields[1])
			c.group[pid], _ = strconv.Atoi(fields[2])
		}
	}
	return c
}

// attribute finds the workers of detached processes, whose parent is now the process that
// forks the workers.
func (c *census) attribute(service uint32, workers map[int]bool) {
	forkers := map[int]bool{}
	for pid := range workers {
		forkers[c.parent[pid]] = true
	}
	for pid, parent := range c.parent {
		if forkers[parent] && !workers[pid] {
			if worker := workerOf(pid, service); worker != 0 {
				c.origin[pid] = worker
			}
		}
	}
}

// workerOf reads the mark of a process: the worker of this service that started it, 0 for
// none. See RLIMIT_LOCKS in forks.py.
func workerOf(pid int, service uint32) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
	if err != nil {
		return 0
	}
	_, rest, found := bytes.Cut(b, []byte("\nMax file locks"))
	if !found {
		return 0
	}
	var mark uint64
	if _, err := fmt.Sscan(string(rest[:min(len(rest), 64)]), &mark); err != nil || mark>>32 != uint64(service) {
		return 0 // "unlimited", or that of another service
	}
	return int(mark & (1<<32 - 1))
}

// killDetached kills the processes of dead workers of this service, after the death of the
// process that forks workers, which otherwise does that.
func killDetached(service uint32) (ended int) {
	for pid := range takeCensus().parent {
		worker := workerOf(pid, service)
		if worker == 0 || worker == pid || syscall.Kill(worker, 0) == nil {
			continue
		}
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			ended++
		}
	}
	return ended
}

// below lists the processes that a worker has started, those that they have
// started, and all others that are in its group or come from it.
func (c *census) below(worker int) []int {
	found := c.descendants(func(pid int) bool { return pid == worker || c.group[pid] == worker || c.origin[pid] == worker })
	return slices.DeleteFunc(found, func(pid int) bool { return pid == worker })
}

// tree lists the roots that are there, and all processes that come from them.
func (c *census) tree(roots []int) []int {
	return c.descendants(func(pid int) bool { return slices.Contains(roots, pid) })
}

// descendants lists the processes that are, or of which an ancestor is, a root.
func (c *census) descendants(root func(pid int) bool) (found []int) {
	const deepest = 64 // a chain may be inconsistent: processes end while it is read
	for pid := range c.parent {
		for at, depth := pid, 0; at != 0 && depth < deepest; at, depth = c.parent[at], depth+1 {
			if root(at) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// tasksOfMachine counts the threads of all processes, also of those that we cannot see.
func tasksOfMachine() (tasks int) {
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscanf(string(b), "%f %f %f %d/%d", new(float64), new(float64), new(float64), new(int), &tasks) // 0 if it has another form
	}
	return tasks
}

// progressOf changes as long as a process does something: uses the processor,
// moves bytes, or wakes up from time to time. A process that hangs does not.
func progressOf(pid int) string {
	sign := fmt.Appendln(nil, pid)
	for _, name := range []string{"stat", "io", "status"} {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)) // gone, or io of another user
		for line := range bytes.Lines(b) {
			if name != "status" || bytes.Contains(line, []byte("ctxt_switches")) {
				sign = append(sign, line...)
			}
		}
	}
	return string(sign)
}
