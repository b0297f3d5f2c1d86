package worker_test

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/worker"
)

// BenchmarkHop is one request to a worker and back, without HTTP: one after
// another, and from many goroutines at once.
func BenchmarkHop(b *testing.B) {
	w := newWorld(b, nil)
	body := []byte(`{"x0": 1, "x1": 2}`)
	for _, workers := range []int{1, 2} {
		g := w.start(b, fmt.Sprint("echo", workers), "echo.py", func(s *worker.Spec) { s.Workers = workers })
		b.Run(fmt.Sprintf("workers=%d/callers=1", workers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Do(b.Context(), &worker.Request{Body: body}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("workers=%d/callers=64", workers), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := g.Do(b.Context(), &worker.Request{Body: body}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkStart is a new group until its first answer, the zygote being there.
func BenchmarkStart(b *testing.B) {
	w := newWorld(b, nil)
	w.start(b, "first", "echo.py", nil)
	var slowest atomic.Int64
	for b.Loop() {
		started := time.Now()
		g := w.start(b, "echo", "echo.py", nil)
		ask(b, g, `1`)
		slowest.Store(max(slowest.Load(), int64(time.Since(started))))
		if err := g.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(slowest.Load()), "slowest-ns")
}

func TestAHopAllocatesLittle(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	body := []byte(`{"x0": 1, "x1": 2}`)
	ctx := t.Context()
	// What looks after the workers allocates in its own time, the more of it for each
	// request the slower the machine is: the least of many short rounds is without.
	got := math.Inf(1)
	for range 50 {
		got = min(got, testing.AllocsPerRun(10, func() {
			if _, err := g.Do(ctx, &worker.Request{Body: body}); err != nil {
				t.Fatal(err)
			}
		}))
	}
	if got > 4 { // the response and its body, and what the runtime does beside
		t.Errorf("%v allocations a request", got)
	}
}
