// Package proc reads from Linux's /proc the resources of a server and all its processes: time,
// memory, and the process of a connection. It changes nothing.
package proc

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of the times in /proc/<pid>/stat on Linux.
const clockTick = 10 * time.Millisecond

// Meter measures the CPU time of a server and all its processes, and of the rest of the machine,
// which makes a measurement doubtful.
type Meter struct {
	begun  time.Time
	before map[int]time.Duration // of all processes
	self   time.Duration
	busy   time.Duration
}

// Usage is the result of a Meter.
type Usage struct {
	Server time.Duration
	Others float64 // share of the machine that other programs used
	Worst  string  // the command among them that used the most
}

// Begin starts the measurement.
func (m *Meter) Begin() {
	*m = Meter{begun: time.Now(), before: everyCPU(nil), self: ownCPU(), busy: Busy()}
}

// End returns the usage since Begin by the processes below server, and by others: all but this
// program and those below the ours. It is zero if Begin was never called.
func (m *Meter) End(server int, ours ...int) Usage {
	if m.before == nil {
		return Usage{}
	}
	var u Usage
	var known, most time.Duration
	parents := map[int]int{}
	for id, after := range everyCPU(parents) {
		used := after - m.before[id]
		switch {
		case isBelow(parents, id, server):
			u.Server += used
		case slices.ContainsFunc(ours, func(pid int) bool { return isBelow(parents, id, pid) }):
			known += used
		case id != os.Getpid() && used > most:
			most, u.Worst = used, commandOf(id)
		}
	}
	rest := Busy() - m.busy - u.Server - known - (ownCPU() - m.self)
	u.Others = max(0, rest.Seconds()/time.Since(m.begun).Seconds()/float64(runtime.NumCPU()))
	return u
}

// Busy is the time that all cores together were not idle.
func Busy() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var busy time.Duration
	for i, field := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal guest…: guest is in user already
		if n, err := strconv.Atoi(field); err == nil && i <= 8 && i != 4 && i != 5 {
			busy += time.Duration(n) * clockTick
		}
	}
	return busy
}

// Tree is a process and all below it; empty when it has ended.
func Tree(pid int) []int {
	parents := map[int]int{}
	var tree []int
	for id := range everyCPU(parents) {
		if isBelow(parents, id, pid) {
			tree = append(tree, id)
		}
	}
	slices.Sort(tree)
	return tree
}

// commandOf is the beginning of a process's command line.
func commandOf(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return "" // it has ended
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	return line[:min(len(line), 100)]
}

// ownCPU is the time of this process, the load generator.
func ownCPU() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// everyCPU is the time of every process, by its id, and stores its parent in parents unless that is
// nil. Processes that end meanwhile are omitted.
func everyCPU(parents map[int]int) map[int]time.Duration {
	times := map[int]time.Duration{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// The name in parentheses may contain anything, so fields are counted after its end.
		end := strings.LastIndex(string(data), ")")
		fields := strings.Fields(string(data[end+1:]))
		if end < 0 || len(fields) < 13 {
			continue
		}
		if parents != nil {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		times[pid] = time.Duration(user+system) * clockTick
	}
	return times
}

func isBelow(parents map[int]int, pid, root int) bool {
	for range 64 { // the maximum depth of our trees; ends a cycle in data from different times
		if pid == root {
			return true
		}
		pid = parents[pid]
		if pid <= 1 {
			return false
		}
	}
	return false
}
