//go:build linux

package process

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestTheHealthOfAMachineIsWhatItsKernelTells(t *testing.T) {
	dir := t.TempDir()
	before := host
	host = machine{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys")}
	defer func() { host = before }()
	for path, text := range map[string]string{
		"proc/stat":                          "cpu  100 20 30 1000 50 6 4 10 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
		"proc/meminfo":                       "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  400 kB\n",
		"proc/net/dev":                       "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets\n    lo: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  eth0:1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n",
		"proc/diskstats":                     "   8       0 sda 5 0 100 4 5 0 200 8 0 0 0\n   8       1 sda1 5 0 100 4 5 0 200 8 0 0 0\n nonsense\n",
		"sys/block/sda/size":                 "1",
		"sys/class/hwmon/hwmon1/name":        "coretemp\n",
		"sys/class/hwmon/hwmon1/temp1_input": "41000\n",
		"sys/class/hwmon/hwmon1/temp2_input": "52500\n",
		"sys/class/hwmon/hwmon2/name":        "nvme\n",
		"sys/class/hwmon/hwmon2/temp1_input": "90000\n",
	} {
		write(t, filepath.Join(dir, path), text, 0o644)
	}
	h := health(dir)
	if h.CPUTotal != 1220*clockTick || h.CPUBusy != 170*clockTick {
		t.Errorf("CPU: %v of %v", h.CPUBusy, h.CPUTotal)
	}
	if h.MemoryTotal != 1000<<10 || h.MemoryAvailable != 400<<10 {
		t.Errorf("memory: %d of %d", h.MemoryAvailable, h.MemoryTotal)
	}
	if h.Received != 1010 || h.Sent != 2020 {
		t.Errorf("network: %d, %d", h.Received, h.Sent)
	}
	if h.Read != 100*512 || h.Written != 200*512 {
		t.Errorf("disk: %d, %d", h.Read, h.Written)
	}
	if h.DiskFree <= 0 || h.DiskFree > h.DiskTotal || h.Temperature != 52.5 || h.CPUs < 1 {
		t.Errorf("%+v", h)
	}
	host = machine{proc: "/nonexistent", sys: "/nonexistent"}
	if h := health("/nonexistent"); h.CPUTotal != 0 || h.MemoryTotal != 0 || h.DiskTotal != 0 || h.Received != 0 {
		t.Errorf("unknown: %+v", h)
	}
}

func TestGPUsAreMeasuredByTheirProgram(t *testing.T) {
	dir := t.TempDir()
	program, count := filepath.Join(dir, "nvidia-smi"), filepath.Join(dir, "count")
	write(t, program, "#!/bin/sh\necho x >>"+count+"\ncase \"$*\" in *utilization.gpu*noheader*) ;; *) exit 1 ;; esac\necho '0, 37, 24576, 1024, 61'\necho '1, [N/A], 24576, 0, 30'\necho failure of the driver >&2\n", 0o755)
	m := NewHealthMeter(dir, []string{"PATH=/nonexistent:" + dir})
	for range 3 { // it is not called each time
		got := m.Measure(t.Context()).GPUs
		want := []GPU{{"0", 37, 24576 << 20, 1024 << 20, 61}, {"1", 0, 24576 << 20, 0, 30}}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%+v", got)
		}
	}
	if text, _ := os.ReadFile(count); len(text) != 2 {
		t.Errorf("called %d times", len(text)/2)
	}
	// One that fails is not called for ever.
	write(t, program, "#!/bin/sh\necho x >>"+count+"\nexit 9\n", 0o755)
	for range 10 {
		m.at = time.Time{}
		if got := m.Measure(t.Context()).GPUs; len(got) != 0 {
			t.Errorf("%+v", got)
		}
	}
	if text, _ := os.ReadFile(count); len(text) != 2*(1+gpuFails) {
		t.Errorf("called %d times", len(text)/2)
	}
	if got := NewHealthMeter(dir, []string{"PATH=/nonexistent"}).Measure(t.Context()).GPUs; got != nil {
		t.Errorf("without the program: %+v", got)
	}
}
