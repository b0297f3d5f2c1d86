package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// gpuCommand is the program that lists the GPUs, nil if there is none.
func gpuCommand(env []string) []string {
	for _, setting := range env {
		list, ok := strings.CutPrefix(setting, "PATH=")
		if !ok {
			continue
		}
		for _, folder := range filepath.SplitList(list) {
			if path, err := exec.LookPath(filepath.Join(folder, "nvidia-smi")); err == nil && filepath.IsAbs(path) {
				return []string{path, "--query-gpu=" + gpuFields, "--format=csv,noheader,nounits"}
			}
		}
	}
	return nil
}

// health measures the machine, as psutil does for the ClearML SDK.
func health(folder string) (h Health) {
	h.CPUs = runtime.NumCPU()
	for line := range lines(filepath.Join(host.proc, "stat")) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[0] != "cpu" {
			continue
		}
		for i, field := range fields[1:min(len(fields), 9)] { // the rest is in these already
			n, _ := strconv.ParseInt(field, 10, 64)
			t := time.Duration(n) * clockTick
			h.CPUTotal += t
			if i != 3 && i != 4 { // idle, and idle while a disk works
				h.CPUBusy += t
			}
		}
		break
	}
	if text, err := os.ReadFile(filepath.Join(host.proc, "meminfo")); err == nil {
		kilobytes := numbers(text)
		h.MemoryTotal, h.MemoryAvailable = kilobytes["MemTotal:"]<<10, kilobytes["MemAvailable:"]<<10
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(folder, &disk); err == nil {
		h.DiskTotal, h.DiskUsed, h.DiskFree = int64(disk.Blocks)*disk.Bsize, int64(disk.Blocks-disk.Bfree)*disk.Bsize, int64(disk.Bavail)*disk.Bsize
	}
	for line := range lines(filepath.Join(host.proc, "net/dev")) {
		_, values, ok := strings.Cut(line, ":")
		if fields := strings.Fields(values); ok && len(fields) > 8 {
			received, _ := strconv.ParseUint(fields[0], 10, 64)
			sent, _ := strconv.ParseUint(fields[8], 10, 64)
			h.Received, h.Sent = h.Received+received, h.Sent+sent
		}
	}
	for line := range lines(filepath.Join(host.proc, "diskstats")) {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			continue
		}
		if _, err := os.Stat(filepath.Join(host.sys, "block", strings.ReplaceAll(fields[2], "/", "!"))); err != nil {
			continue // a part of another one
		}
		const sector = 512 // whatever the disk's is
		read, _ := strconv.ParseUint(fields[5], 10, 64)
		written, _ := strconv.ParseUint(fields[9], 10, 64)
		h.Read, h.Written = h.Read+read*sector, h.Written+written*sector
	}
	h.Temperature = coreTemperature()
	return h
}

// coreTemperature is that of the hottest core, 0 if it is unknown.
func coreTemperature() (most float64) {
	names, _ := filepath.Glob(filepath.Join(host.sys, "class/hwmon/hwmon*/name"))
	for _, name := range names {
		if text, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(text)) != "coretemp" {
			continue
		}
		inputs, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "temp*_input"))
		for _, input := range inputs {
			text, _ := os.ReadFile(input)
			if milli, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil {
				most = max(most, milli/1000)
			}
		}
	}
	return most
}

func lines(path string) func(func(string) bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return func(func(string) bool) {}
	}
	return strings.Lines(string(text))
}
