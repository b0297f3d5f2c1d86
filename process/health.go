package process

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Health is the present state of the machine. Unknown values are 0; times and bytes of devices are
// sums since the start of the machine.
type Health struct {
	CPUs              int
	CPUBusy, CPUTotal time.Duration // of all CPUs together
	// MemoryAvailable is what processes can still get, without swapping.
	MemoryTotal, MemoryAvailable int64
	// DiskTotal, DiskUsed and DiskFree are of the file system of a folder. A part of it may be neither used nor
	// free: it is reserved for root.
	DiskTotal, DiskUsed, DiskFree int64
	Received, Sent                uint64 // bytes of all networks
	Read, Written                 uint64 // bytes of all disks
	// Temperature is that of the hottest processor core in degrees Celsius.
	Temperature float64
	GPUs        []GPU
}

// GPU is the present state of one.
type GPU struct {
	Index                   string
	Utilization             float64 // percent
	MemoryTotal, MemoryUsed int64
	Temperature             float64 // in degrees Celsius, 0: unknown
}

// HealthMeter measures the machine.
type HealthMeter struct {
	folder  string
	command []string // that lists the GPUs
	env     []string

	mu   sync.Mutex // guards the fields below
	gpus []GPU
	at   time.Time // of gpus
	fail int       // how often command has failed
}

// NewHealthMeter returns a meter of the machine and of the disk of a folder. env is the environment of the program that
// measures GPUs, nvidia-smi, if there is one.
func NewHealthMeter(folder string, env []string) *HealthMeter {
	return &HealthMeter{folder: folder, command: gpuCommand(env), env: env}
}

const (
	gpuEvery   = 10 * time.Second // its program takes long
	gpuTimeout = 10 * time.Second
	gpuGrace   = time.Second // for the end of the program after it was killed
	gpuFails   = 3           // then there is no GPU to measure
)

// Measure returns the state of the machine.
func (m *HealthMeter) Measure(ctx context.Context) Health {
	h := health(m.folder)
	h.GPUs = m.measureGPUs(ctx)
	return h
}

func (m *HealthMeter) measureGPUs(ctx context.Context) []GPU {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.command) == 0 || m.fail >= gpuFails || (!m.at.IsZero() && time.Since(m.at) < gpuEvery) {
		return m.gpus
	}
	lines, ok := output(ctx, m.command, m.env)
	if m.at, m.gpus = time.Now(), parseGPUs(lines); ok {
		m.fail = 0
	} else if ctx.Err() == nil {
		m.fail++
	}
	return m.gpus
}

// output runs a program and returns its lines.
func output(ctx context.Context, command, env []string) (lines []string, ok bool) {
	var mu sync.Mutex // guards lines: two streams call LogLine
	child, err := Start(ctx, Spec{Path: command[0], Args: command[1:], Env: env, LogLine: func(stream Stream, line []byte) {
		mu.Lock()
		defer mu.Unlock()
		if stream == Stdout && len(lines) < 1000 {
			lines = append(lines, string(line))
		}
	}})
	if err != nil {
		return nil, false
	}
	late := time.NewTimer(gpuTimeout)
	defer late.Stop()
	select {
	case <-child.Done():
	case <-late.C:
	case <-ctx.Done():
	}
	_ = child.Kill() // usually it has ended
	late.Reset(gpuGrace)
	select {
	case <-child.Done():
	case <-late.C: // it waits in its driver, where no signal ends it
		return nil, false
	}
	death := child.Death()
	mu.Lock()
	defer mu.Unlock()
	return lines, death.Code == 0 && death.Signal == 0
}

// gpuFields are what nvidia-smi is asked for.
const gpuFields = "index,utilization.gpu,memory.total,memory.used,temperature.gpu"

// parseGPUs reads the answer of nvidia-smi. What it cannot measure is a text in brackets.
func parseGPUs(lines []string) (gpus []GPU) {
	for _, line := range lines {
		fields := strings.Split(line, ",")
		if len(fields) != strings.Count(gpuFields, ",")+1 {
			continue
		}
		value := func(i int) float64 {
			f, _ := strconv.ParseFloat(strings.TrimSpace(fields[i]), 64)
			return f
		}
		gpus = append(gpus, GPU{
			Index: strings.TrimSpace(fields[0]), Utilization: value(1),
			MemoryTotal: int64(value(2)) << 20, MemoryUsed: int64(value(3)) << 20, Temperature: value(4),
		})
	}
	return gpus
}
