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

// facts are what the system says of a process at little cost.
type facts struct {
	stopped  bool // by a signal; not by a debugger
	threads  int
	resident int64 // bytes, with all that it shares
}

// factsOf asks for the facts of a process; false when it is gone.
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

// census is who is whose child, at one moment.
type census struct {
	parent map[int]int
	group  map[int]int
	origin map[int]int // of those whose parent has died: the worker that they come from
}

// takeCensus counts the processes that we see: some 10 microseconds for each.
func takeCensus() *census {
	c := &census{parent: map[int]int{}, group: map[int]int{}, origin: map[int]int{}}
	dir, err := os.Open("/proc")
	if err != nil {
		return c
	}
	defer func() { _ = dir.Close() }() // it was only read
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

// attribute finds out from which workers those come that have detached themselves:
// the process that forks the workers has inherited them.
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

// workerOf reads the mark of a process: the worker of this service that it comes
// from, 0 for none. See RLIMIT_LOCKS in forks.py.
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

// endOrphans kills what comes from workers of this service that are dead. It finds
// what the process that forks them would, had it not died itself.
func endOrphans(service uint32) (ended int) {
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
	const deepest = 64 // a chain may be torn while it is read
	var found []int
	for pid := range c.parent {
		if pid == worker {
			continue
		}
		at, member := pid, false
		for range deepest {
			if at == worker || c.group[at] == worker || c.origin[at] == worker {
				member = true
				break
			}
			up, ok := c.parent[at]
			if !ok {
				break
			}
			at = up
		}
		if member {
			found = append(found, pid)
		}
	}
	return found
}

// tree lists the roots that are there, and all processes that come from them.
func (c *census) tree(roots []int) (found []int) {
	const deepest = 64 // a chain may be torn while it is read
	for pid := range c.parent {
		at := pid
		for range deepest {
			if slices.Contains(roots, at) {
				found = append(found, pid)
				break
			}
			at = c.parent[at] // 0 above the first of all
		}
	}
	return found
}

// tasksOfMachine counts the threads of all processes, those that we cannot see too.
func tasksOfMachine() int {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var a, c, d float64
	var running, all int
	if _, err := fmt.Sscanf(string(b), "%f %f %f %d/%d", &a, &c, &d, &running, &all); err != nil {
		return 0
	}
	return all
}
