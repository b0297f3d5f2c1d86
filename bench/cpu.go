package main

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

// cpuMeter takes the time that a server and all its processes used, and what the
// rest of the machine used meanwhile: that is what makes a measurement doubtful.
type cpuMeter struct {
	begun  time.Time
	before map[int]time.Duration // of every process there is
	self   time.Duration
	busy   time.Duration
}

func (c *cpuMeter) begin() {
	*c = cpuMeter{begun: time.Now(), before: everyCPU(nil), self: ownCPU(), busy: busyCPU()}
}

// end is what the server used since begin, the share of the machine that went to
// others, and the name of the one of them that used the most. All are zero when
// begin was never called.
func (c *cpuMeter) end(pid int) (server time.Duration, others float64, worst string) {
	if c.before == nil {
		return 0, 0, ""
	}
	parents := map[int]int{}
	var most time.Duration
	for id, after := range everyCPU(parents) {
		used := after - c.before[id]
		switch {
		case isBelow(parents, id, pid):
			server += used
		case id != os.Getpid() && used > most:
			most, worst = used, commandOf(id)
		}
	}
	rest := busyCPU() - c.busy - server - (ownCPU() - c.self)
	return server, max(0, rest.Seconds()/time.Since(c.begun).Seconds()/float64(runtime.NumCPU())), worst
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

// busyCPU is the time that all cores together were not idle.
func busyCPU() time.Duration {
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

// everyCPU is the time of every process, by its id, and notes its parent in
// parents unless that is nil. Processes that end meanwhile are left out.
func everyCPU(parents map[int]int) map[int]time.Duration {
	times := map[int]time.Duration{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// The name in parentheses may hold anything, so the fields count from its end.
		_, rest, ok := cutLast(string(data), ")")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 13 {
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
	for range 64 { // the depth of any tree of ours, and an end for a loop in what was read piecemeal
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

func cutLast(s, separator string) (before, after string, ok bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// median is the middle of the values; the mean of the middle two of an even number.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
