package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"clearmlserving/statistics"
)

// The share of throughput that statistics cost on an endpoint that only echoes: two instances answer in turns,
// one with statistics in a file, one without. Each iteration is a pair of turns, and reports are medians of pairs:
//
//	go test ./cmd/clearml-serving -run '^$' -bench StatisticsCost -benchtime 200x
func BenchmarkStatisticsCost(b *testing.B) {
	kept := statistics.Open(filepath.Join(b.TempDir(), "statistics"), slog.New(slog.DiscardHandler))
	b.Cleanup(func() {
		if err := kept.Close(); err != nil {
			b.Error(err)
		}
	})
	const connections, each = 4, 250
	connectAll := func(addr net.Addr) (all []*hotPath) {
		for range connections {
			all = append(all, connect(b, addr, "plain"))
		}
		return all
	}
	with, without := connectAll(newHotPath(b, kept)), connectAll(newHotPath(b, nil))
	turn := func(all []*hotPath) time.Duration {
		begun := time.Now()
		var asks sync.WaitGroup
		for _, h := range all {
			asks.Go(func() {
				for range each {
					if err := h.ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		asks.Wait()
		return time.Since(begun)
	}
	turn(with)
	turn(without)
	var costs, times []float64
	for n := 0; b.Loop(); n++ {
		var on, off time.Duration
		if n%2 == 0 {
			on, off = turn(with), turn(without)
		} else {
			off, on = turn(without), turn(with)
		}
		costs = append(costs, 100*(float64(on)/float64(off)-1))
		times = append(times, float64(off.Microseconds())/(connections*each))
	}
	slices.Sort(costs)
	slices.Sort(times)
	b.ReportMetric(costs[len(costs)/2], "%cost")
	b.ReportMetric(costs[len(costs)/4], "%cost-p25")
	b.ReportMetric(costs[len(costs)*3/4], "%cost-p75")
	b.ReportMetric(times[len(times)/2], "us/request")
}
