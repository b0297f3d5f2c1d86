package process

import (
	"os"
	"strconv"
	"strings"
)

// OOMWatch remembers how often the kernel had killed for memory when it was
// made, so that a SIGKILL can be told from a person's.
type OOMWatch struct{ before int64 }

// WatchOOM starts to watch. It costs one small read.
func WatchOOM() *OOMWatch {
	n, _ := oomKills()
	return &OOMWatch{before: n}
}

// Struck says whether the kernel has killed a process for memory since the watch
// was made, or since Struck last said yes. It says no where that cannot be known.
func (w *OOMWatch) Struck() bool {
	if w == nil {
		return false
	}
	n, ok := oomKills()
	if !ok || n <= w.before {
		return false
	}
	w.before = n
	return true
}

func oomKnown() bool {
	_, ok := oomKills()
	return ok
}

// oomKills reads the counter of our own control group, which also counts kills
// for lack of memory of the whole machine; where there is none, the machine's.
func oomKills() (int64, bool) {
	if group, ok := controlGroup(); ok {
		if n, ok := counter("/sys/fs/cgroup"+group+"/memory.events", "oom_kill"); ok {
			return n, true
		}
	}
	if n, ok := counter("/sys/fs/cgroup/memory.events", "oom_kill"); ok { // a container's own view
		return n, true
	}
	return counter("/proc/vmstat", "oom_kill")
}

// controlGroup is our path in the unified hierarchy.
func controlGroup() (string, bool) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.TrimSuffix(path, "/"), true
		}
	}
	return "", false
}

func counter(path, key string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name != key {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		return n, err == nil
	}
	return 0, false
}
