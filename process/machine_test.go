package process

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// tree writes files below a new folder.
func tree(t *testing.T, files map[string]string) machine {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return machine{proc: filepath.Join(dir, "proc"), cgroup: filepath.Join(dir, "cgroup")}
}

func TestTheLeastOfAllLimitsOfMemoryHolds(t *testing.T) {
	const meminfo = "MemFree:   5 kB\nMemTotal:       16777216 kB\n" // 16 GiB
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // 0: unknown
	}{
		"the machine alone":    {map[string]string{"proc/meminfo": meminfo}, 16 << 30},
		"unknown":              {nil, 0},
		"a machine of nothing": {map[string]string{"proc/meminfo": "MemTotal: none\n"}, 0},
		"version 2, no limit":  {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "max\n"}, 16 << 30},
		"version 2":            {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/memory.max": "2147483648\n"}, 2 << 30},
		"version 2, a group above": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b/c\n",
			"cgroup/a/b/c/memory.max": "max\n", "cgroup/a/b/memory.max": "4294967296\n", "cgroup/a/memory.max": "1073741824\n",
		}, 1 << 30},
		"version 2, throttled sooner": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "2147483648\n", "cgroup/a/memory.high": "1073741824\n",
		}, 1 << 30},
		"version 2, more than the machine has": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "cgroup/memory.max": "1099511627776\n"}, 16 << 30},
		"a container's own view":               {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "cgroup/memory.max": "536870912\n"}, 512 << 20},
		"a container that sees the host's path": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/docker/0123\n", "cgroup/memory.max": "536870912\n",
		}, 512 << 20},
		"outside of its own view": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../../other\n", "cgroup/other/memory.max": "536870912\n"}, 512 << 20},
		"version 1": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/a\n1:name=systemd:/y\n", "cgroup/memory/a/memory.limit_in_bytes": "1073741824\n",
		}, 1 << 30},
		"version 1, no limit": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/a\n", "cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
		}, 16 << 30},
		"version 1 in a container": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/docker/0123\n", "cgroup/memory/memory.limit_in_bytes": "1073741824\n",
		}, 1 << 30},
		"both versions": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/a\n0::/b\n",
			"cgroup/memory/a/memory.limit_in_bytes": "2147483648\n", "cgroup/b/memory.max": "1073741824\n",
		}, 1 << 30},
		"a file of something else": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "-1\n", "cgroup/memory.max": "a lot"}, 16 << 30},
		"lines that are none":      {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "\n::\nnonsense\n0:memory\n"}, 16 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := tree(t, c.files).memoryLimit()
			if ok != (c.want != 0) || ok && got != c.want {
				t.Errorf("%d (%v), want %d", got, ok, c.want)
			}
		})
	}
}

func TestKillsForMemoryAreCountedWhereTheyAreTold(t *testing.T) {
	const events = "low 0\nhigh 7\nmax 9\noom 3\noom_kill 2\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // -1: unknown
	}{
		"unknown":                {nil, -1},
		"our group":              {map[string]string{"proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/memory.events": events, "cgroup/memory.events": "oom_kill 9\n"}, 2},
		"a container's own view": {map[string]string{"proc/self/cgroup": "0::/docker/x\n", "cgroup/memory.events": events}, 2},
		"at the root":            {map[string]string{"proc/self/cgroup": "0::/\n", "cgroup/memory.events": events}, 2},
		"the machine":            {map[string]string{"proc/self/cgroup": "5:memory:/a\n", "proc/vmstat": "oom_kill_other 1\noom_kill 4\n"}, 4},
		"no number":              {map[string]string{"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.events": "oom_kill many\n", "proc/vmstat": "oom_kill 4\n"}, 4},
		"an old kernel":          {map[string]string{"proc/vmstat": "nr_free_pages 1\n"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := tree(t, c.files).oomKills()
			if ok != (c.want >= 0) || ok && got != c.want {
				t.Errorf("%d (%v), want %d", got, ok, c.want)
			}
		})
	}
}

func TestTheLimitOfThisMachineIsKnown(t *testing.T) {
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip(err)
	}
	if limit, ok := MemoryLimit(); !ok || limit < 1<<20 || limit == math.MaxInt64 {
		t.Errorf("%d, %v", limit, ok)
	}
}

func TestWhatAProcessTakes(t *testing.T) {
	const rollup = `55d0c0a00000-7ffd1b5fe000 ---p 00000000 00:00 0                          [rollup]
Rss:               88000 kB
Pss:               20000 kB
Pss_Dirty:         10000 kB
Shared_Clean:      60000 kB
Shared_Dirty:      20000 kB
Private_Clean:      1000 kB
Private_Dirty:      7000 kB
`
	if m, ok := parseRollup([]byte(rollup)); !ok || m != (Memory{Share: 20000 << 10, Own: 8000 << 10}) {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := parseRollup([]byte("nothing\n\nRss: much kB\n")); ok {
		t.Errorf("%+v of an empty file", m)
	}
	if _, err := os.Stat("/proc/self/smaps_rollup"); err == nil {
		m, err := MemoryOf(os.Getpid())
		if err != nil || m.Own <= 0 || m.Share < m.Own {
			t.Errorf("this process uses %+v, %v", m, err)
		}
	}
	if m, err := MemoryOf(math.MaxInt32); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing process uses %+v, %v", m, err)
	}
}
