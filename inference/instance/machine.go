package instance

import (
	"context"
	"math"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/process"
)

// machineEvery is the time between two reports of the machine, as in the SDK.
const machineEvery = 30 * time.Second

// The titles of the SDK's resource monitor.
const (
	titleMachine = ":monitor:machine"
	titleGPU     = ":monitor:gpu"
)

// monitor reports the state of the machine to the instance's task, as the SDK's resource monitor does.
type monitor struct {
	start  time.Time
	before process.Health
	at     time.Time // of before
}

// report sends the state of the machine, with rates since the last one. An iteration is a second since the
// start of the instance.
func (m *monitor) report(ctx context.Context, r *Task, task string, memory int64, now time.Time) error {
	if r.o.Machine == nil || task == "" || (!m.at.IsZero() && now.Sub(m.at) < machineEvery) {
		return nil
	}
	h := r.o.Machine(ctx)
	before, took := m.before, now.Sub(m.at).Seconds()
	first := m.at.IsZero()
	if first {
		m.start = now
	}
	m.before, m.at = h, now
	if first || h.CPUTotal == 0 {
		return nil // there is no rate yet, or the system is unknown
	}
	iteration := int64(now.Sub(m.start).Seconds())
	var events []clearml.Event
	add := func(title, series string, value float64) {
		value = math.Round(value*1000) / 1000
		events = append(events, clearml.Event{Type: clearml.EventScalar, Task: task, Metric: title, Variant: series, Iter: &iteration, Value: &value})
	}
	rate := func(now, before uint64) float64 { return float64(now-min(before, now)) / (1 << 20) / took }
	if busy, all := h.CPUBusy-before.CPUBusy, h.CPUTotal-before.CPUTotal; all > 0 {
		add(titleMachine, "cpu_usage", 100*max(0, busy.Seconds()/all.Seconds()))
	}
	add(titleMachine, "memory_used_gb", float64(memory)/(1<<30))
	add(titleMachine, "memory_free_gb", float64(h.MemoryAvailable)/(1<<30))
	if h.DiskUsed+h.DiskFree > 0 {
		add(titleMachine, "disk_free_percent", 100*float64(h.DiskFree)/float64(h.DiskUsed+h.DiskFree))
	}
	if h.Temperature > 0 {
		add(titleMachine, "cpu_temperature", h.Temperature)
	}
	add(titleMachine, "network_tx_mbs", rate(h.Sent, before.Sent))
	add(titleMachine, "network_rx_mbs", rate(h.Received, before.Received))
	add(titleMachine, "io_read_mbs", rate(h.Read, before.Read))
	add(titleMachine, "io_write_mbs", rate(h.Written, before.Written))
	for _, g := range h.GPUs {
		name := "gpu_" + g.Index + "_"
		if g.Temperature > 0 {
			add(titleGPU, name+"temperature", g.Temperature)
		}
		add(titleGPU, name+"utilization", g.Utilization)
		if g.MemoryTotal > 0 {
			add(titleGPU, name+"mem_usage", 100*float64(g.MemoryUsed)/float64(g.MemoryTotal))
		}
		add(titleGPU, name+"mem_free_gb", float64(g.MemoryTotal-g.MemoryUsed)/(1<<30))
		add(titleGPU, name+"mem_used_gb", float64(g.MemoryUsed)/(1<<30))
	}
	return r.o.Client.AddEvents(ctx, events)
}
