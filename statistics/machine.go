package statistics

import (
	"context"
	"sync"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
)

const (
	watchEvery = 15 * time.Second
	// watchShare bounds the time that is spent on measuring: 1 / watchShare of a core.
	watchShare = 50
)

// Watcher measures the machine and the workers.
type Watcher struct {
	Health func(context.Context) process.Health
	Usage  func(pids ...int) map[int]process.TreeUsage
}

// machine is what was measured last.
type machine struct {
	mu        sync.Mutex // guards all fields
	measured  bool
	health    process.Health
	endpoints map[serving.EndpointURL]endpointUsage
	workers   map[workerKey]time.Duration // CPU time of the present ones
}

type endpointUsage struct {
	cpu    time.Duration // also of processes that have ended, up to the last measurement
	memory int64
}

// workerKey tells workers apart, also if a process id is used again.
type workerKey struct {
	pid   int
	since time.Time
}

// Watch measures until ctx ends.
func (m *Metrics) Watch(ctx context.Context, w Watcher, status func() serving.Status) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begun := time.Now()
		m.machine.measure(ctx, w, status())
		timer.Reset(max(watchEvery, watchShare*time.Since(begun)))
	}
}

func (m *machine) measure(ctx context.Context, w Watcher, status serving.Status) {
	var pids []int
	for _, e := range status.Endpoints {
		for _, worker := range e.Model.Workers {
			pids = append(pids, worker.PID)
		}
	}
	health, usage := w.Health(ctx), w.Usage(pids...)
	m.mu.Lock()
	defer m.mu.Unlock()
	endpoints, workers := map[serving.EndpointURL]endpointUsage{}, map[workerKey]time.Duration{}
	for _, e := range status.Endpoints {
		u := endpointUsage{cpu: m.endpoints[e.URL].cpu}
		for _, worker := range e.Model.Workers {
			now, ok := usage[worker.PID]
			if !ok {
				continue
			}
			key := workerKey{worker.PID, worker.Since}
			u.memory += now.Memory
			u.cpu += max(0, now.CPU-m.workers[key]) // less: a process below it has ended
			workers[key] = max(now.CPU, m.workers[key])
		}
		endpoints[e.URL] = u
	}
	m.measured, m.health, m.endpoints, m.workers = true, health, endpoints, workers
}

// machine exposes what was measured last.
func (s scrape) machine() {
	m := &s.m.machine
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.measured {
		return
	}
	for url, u := range m.endpoints {
		s.of(workerMemory, url, float64(u.memory))
		s.of(workerCPU, url, u.cpu.Seconds())
	}
	h := m.health
	if h.CPUTotal > 0 {
		s.add(machineCPUs, float64(h.CPUs))
		s.add(machineCPU, h.CPUBusy.Seconds())
	}
	if h.MemoryTotal > 0 {
		s.add(machineMemory, float64(h.MemoryTotal))
		s.add(machineMemoryAvailable, float64(h.MemoryAvailable))
	}
	if h.DiskTotal > 0 {
		s.add(machineDisk, float64(h.DiskTotal))
		s.add(machineDiskFree, float64(h.DiskFree))
	}
	if h.CPUTotal > 0 {
		s.add(machineReceived, float64(h.Received))
		s.add(machineSent, float64(h.Sent))
		s.add(machineRead, float64(h.Read))
		s.add(machineWritten, float64(h.Written))
	}
	for _, g := range h.GPUs {
		s.add(gpuUtilization, g.Utilization/100, g.Index)
		s.add(gpuMemory, float64(g.MemoryTotal), g.Index)
		s.add(gpuMemoryUsed, float64(g.MemoryUsed), g.Index)
		if g.Temperature > 0 {
			s.add(gpuTemperature, g.Temperature, g.Index)
		}
	}
}
