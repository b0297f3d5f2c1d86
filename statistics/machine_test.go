package statistics

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
)

func TestTheMachineAndTheWorkersOfEachEndpointAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		var mu sync.Mutex // guards usage and status
		start := time.Now()
		usage := map[int]process.TreeUsage{
			1: {CPU: 2 * time.Second, Memory: 100}, 2: {CPU: time.Second, Memory: 50}, 3: {CPU: 10 * time.Second, Memory: 7},
		}
		status := serving.Status{Endpoints: []serving.EndpointReport{
			{URL: "m/1", Model: serving.ModelReport{Workers: []serving.WorkerReport{{PID: 1, Since: start}, {PID: 2, Since: start}}}},
			{URL: "other", Model: serving.ModelReport{Workers: []serving.WorkerReport{{PID: 3, Since: start}, {PID: 4}}}}, // 4 has just ended
		}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.Watch(ctx, Watcher{
			Health: func(context.Context) process.Health {
				return process.Health{
					CPUs: 4, CPUBusy: 30 * time.Second, CPUTotal: time.Minute, MemoryTotal: 1000, MemoryAvailable: 400, DiskTotal: 5000, DiskFree: 500,
					Received: 1, Sent: 2, Read: 3, Written: 4, GPUs: []process.GPU{{Index: "0", Utilization: 37, MemoryTotal: 10, MemoryUsed: 5, Temperature: 60}},
				}
			},
			Usage: func(...int) map[int]process.TreeUsage {
				mu.Lock()
				defer mu.Unlock()
				return usage
			},
		}, func() serving.Status {
			mu.Lock()
			defer mu.Unlock()
			return status
		})
		synctest.Wait()
		has(t, m,
			`worker_memory_bytes{endpoint="m",version="1"} 150`,
			`worker_cpu_seconds_total{endpoint="m",version="1"} 3`,
			`worker_memory_bytes{endpoint="other",version=""} 7`,
			`machine_cpus 4`, `machine_cpu_seconds_total 30`, `machine_memory_bytes 1000`, `machine_memory_available_bytes 400`,
			`machine_disk_bytes 5000`, `machine_disk_free_bytes 500`, `machine_network_received_bytes_total 1`, `machine_network_sent_bytes_total 2`,
			`machine_disk_read_bytes_total 3`, `machine_disk_written_bytes_total 4`,
			`gpu_utilization_ratio{gpu="0"} 0.37`, `gpu_memory_bytes{gpu="0"} 10`, `gpu_memory_used_bytes{gpu="0"} 5`, `gpu_temperature_celsius{gpu="0"} 60`,
		)
		// A worker is replaced by one with the same process id: the counter goes on.
		mu.Lock()
		usage = map[int]process.TreeUsage{1: {CPU: 4 * time.Second, Memory: 100}, 2: {CPU: 500 * time.Millisecond, Memory: 60}}
		status = serving.Status{Endpoints: []serving.EndpointReport{
			{URL: "m/1", Model: serving.ModelReport{Workers: []serving.WorkerReport{{PID: 1, Since: start}, {PID: 2, Since: start.Add(time.Second)}}}},
		}}
		mu.Unlock()
		time.Sleep(watchEvery + time.Second)
		synctest.Wait()
		has(t, m, `worker_memory_bytes{endpoint="m",version="1"} 160`)
		m.machine.mu.Lock()
		defer m.machine.mu.Unlock()
		if got := m.machine.endpoints["m/1"].cpu; got != 5500*time.Millisecond || len(m.machine.endpoints) != 1 {
			t.Errorf("%v of %d endpoints", got, len(m.machine.endpoints))
		}
	})
}
