package instance_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/instance"
	"clearmlserving/process"
)

func TestTheMachineIsReportedUnderTheNamesOfTheSDK(t *testing.T) {
	api := &apiServer{}
	server := httptest.NewServer(api)
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{
		API: clearml.Setting{Value: server.URL}, AccessKey: clearml.Setting{Value: "a"}, SecretKey: clearml.NewSecret("s", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	now := process.Health{
		CPUs: 2, CPUBusy: time.Second, CPUTotal: 10 * time.Second, MemoryTotal: 8 << 30, MemoryAvailable: 3 << 30, DiskTotal: 100, DiskUsed: 60, DiskFree: 20,
		Received: 1 << 20, Sent: 1 << 20, Read: 1 << 20, Written: 1 << 20, Temperature: 50,
		GPUs: []process.GPU{{Index: "0", Utilization: 37, MemoryTotal: 4 << 30, MemoryUsed: 1 << 30, Temperature: 61}},
	}
	r := instance.New(instance.Options{Client: client, Machine: func(context.Context) process.Health { return now }})
	var m instance.Monitor
	begun := time.Now()
	report := func(after time.Duration) {
		t.Helper()
		if err := m.Report(t.Context(), r, "I", 2<<30, begun.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	report(0)
	report(5 * time.Second)
	if api.count("events.add_batch") != 0 {
		t.Error("reported before there is a rate")
	}
	now.CPUBusy, now.CPUTotal = now.CPUBusy+15*time.Second, now.CPUTotal+60*time.Second
	now.Received, now.Sent, now.Read, now.Written = 31<<20, 61<<20, 4<<20, 0 // a device is gone
	report(30 * time.Second)
	report(35 * time.Second)
	if api.count("events.add_batch") != 1 {
		t.Fatalf("%d reports", api.count("events.add_batch"))
	}
	got := map[string]float64{}
	for _, call := range api.calls {
		lines, ok := strings.CutPrefix(call, "events.add_batch ")
		if !ok {
			continue
		}
		for line := range strings.Lines(lines) {
			var e clearml.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if e.Type != clearml.EventScalar || e.Task != "I" || *e.Iter != 30 {
				t.Errorf("%s", line)
			}
			got[e.Metric+" "+e.Variant] = *e.Value
		}
	}
	want := map[string]float64{
		":monitor:machine cpu_usage": 25, ":monitor:machine memory_used_gb": 2, ":monitor:machine memory_free_gb": 3,
		":monitor:machine disk_free_percent": 25, ":monitor:machine cpu_temperature": 50,
		":monitor:machine network_tx_mbs": 2, ":monitor:machine network_rx_mbs": 1, ":monitor:machine io_read_mbs": 0.1, ":monitor:machine io_write_mbs": 0,
		":monitor:gpu gpu_0_temperature": 61, ":monitor:gpu gpu_0_utilization": 37, ":monitor:gpu gpu_0_mem_usage": 25,
		":monitor:gpu gpu_0_mem_free_gb": 3, ":monitor:gpu gpu_0_mem_used_gb": 1,
	}
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s: %v, want %v", name, v, value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series: %v", len(got), got)
	}
}
