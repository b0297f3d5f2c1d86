package worker

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"clearmlserving/process"
)

// census holds all processes at one moment.
type census struct {
	process.Table
	origin map[int]int // of those whose parent has died: the worker that started them
}

func takeCensus() *census { return &census{process.All(), map[int]int{}} }

// attribute finds the workers of detached processes, whose parent is now the process that
// forks the workers.
func (c *census) attribute(service uint32, workers map[int]bool) {
	forkers := map[int]bool{}
	for pid := range workers {
		forkers[c.Table[pid].Parent] = true
	}
	for pid, stat := range c.Table {
		if forkers[stat.Parent] && !workers[pid] {
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
	for pid := range process.All() {
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
	found := c.Below(func(pid int) bool { return pid == worker || c.Table[pid].Group == worker || c.origin[pid] == worker })
	return slices.DeleteFunc(found, func(pid int) bool { return pid == worker })
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
// moves bytes, or wakes up from time to time. A process that hangs does not. It is "" where that is
// not known, so that a load is not taken for hung there.
func progressOf(pid int) string {
	var sign []byte
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

// progressBelow is progressOf the processes that a worker has started: it may wait for one of them, such as a
// program that downloads or unpacks its model.
func progressBelow(worker int) string {
	var signs strings.Builder
	for _, pid := range slices.Sorted(slices.Values(takeCensus().below(worker))) {
		signs.WriteString(progressOf(pid))
	}
	return signs.String()
}
