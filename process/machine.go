package process

import (
	"bytes"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// machine is where the kernel describes the system.
type machine struct{ proc, cgroup, sys string }

var host = machine{proc: "/proc", cgroup: "/sys/fs/cgroup", sys: "/sys"}

// MemoryLimit is the number of bytes that all processes together may use: the machine's memory, or
// less in a control group or container. ok is false if it is unknown.
func MemoryLimit() (limit int64, ok bool) { return host.memoryLimit() }

func (m machine) memoryLimit() (int64, bool) {
	limit := int64(math.MaxInt64)
	if kilobytes, ok := counter(filepath.Join(m.proc, "meminfo"), "MemTotal:"); ok && kilobytes > 0 {
		limit = kilobytes << 10
	}
	for _, file := range m.limitFiles() {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the root has none, and a container sees only its own
		}
		// "max" is not a number; version 1 has a number beyond every machine.
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	return limit, limit < math.MaxInt64
}

// limitFiles are the files that may limit our memory: those of our control group and its parents,
// in both versions of the hierarchy.
func (m machine) limitFiles() (files []string) {
	for _, v := range []struct {
		controller, root string
		names            []string
	}{
		{"", m.cgroup, []string{"memory.max", "memory.high"}},
		{"memory", filepath.Join(m.cgroup, "memory"), []string{"memory.limit_in_bytes"}},
	} {
		group, _ := m.controlGroup(v.controller)
		for {
			for _, name := range v.names {
				files = append(files, filepath.Join(v.root, group, name))
			}
			if group == "" || group == "/" {
				break // in a container its limit is here
			}
			group = path.Dir(group)
		}
	}
	return files
}

// oomKills reads the counter of this process's control group, which also counts kills because of a lack of
// memory of the whole machine; if there is none, it reads the machine's.
func (m machine) oomKills() (int64, bool) {
	if group, ok := m.controlGroup(""); ok {
		if n, ok := counter(filepath.Join(m.cgroup, group, "memory.events"), "oom_kill"); ok {
			return n, true
		}
	}
	if n, ok := counter(filepath.Join(m.cgroup, "memory.events"), "oom_kill"); ok { // in a container
		return n, true
	}
	return counter(filepath.Join(m.proc, "vmstat"), "oom_kill")
}

// controlGroup is our path in a controller's hierarchy, "" for the unified one. It begins with a
// slash and never leads upwards.
func (m machine) controlGroup(controller string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(m.proc, "self", "cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy, controllers, path
		if len(parts) != 3 || controller == "" && parts[0] != "0" {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller {
				return path.Clean("/" + parts[2]), true
			}
		}
	}
	return "", false
}

// counter reads the number of a key from a file.
func counter(file, key string) (int64, bool) {
	text, _ := os.ReadFile(file) // a missing file has no numbers
	n, ok := numbers(text)[key]
	return n, ok
}

// numbers reads lines of the form "key number", with or without a unit. Other lines are skipped.
func numbers(text []byte) map[string]int64 {
	all := map[string]int64{}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			all[string(fields[0])] = n
		}
	}
	return all
}
