package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// measurable skips where the system does not tell what processes take.
func measurable(t *testing.T) {
	t.Helper()
	if _, err := process.MemoryOf(os.Getpid()); err != nil {
		t.Skip("the system does not tell what processes take")
	}
}

// withBudget makes a world whose workers share a budget.
func withBudget(t *testing.T, limit int64, change func(*worker.Options)) (*world, *worker.Budget) {
	t.Helper()
	measurable(t)
	log := &record{}
	b := worker.NewBudget(limit, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("the budget's log:\n%s", log)
		}
		if n := strings.Count(log.String(), "memory is short"); n > 1 {
			t.Errorf("it is said %d times that memory is short", n)
		}
	})
	return newWorld(t, func(o *worker.Options) {
		o.Budget = b
		if change != nil {
			change(o)
		}
	}), b
}

func TestMemoryComesBackFromThoseIdleForLongestAndNoRequestIsLost(t *testing.T) {
	w, b := withBudget(t, 300<<20, nil)
	endpoint := func(name string, least int) *worker.Group {
		return w.start(t, name, "greedy.py", func(s *worker.Spec) {
			s.Workers, s.Elastic, s.Limits.IdleTimeout = 1, 1-least, 3600
		})
	}
	// Four of these are too much by themselves: what else is counted, above all the
	// share of files that other programs map as well, is the machine's.
	const hold = `{"do":"hold","bytes":75497472}`
	needed := endpoint("needed", 1) // the one that has been idle for longest is ended
	ask(t, needed, hold)
	stays := ask(t, needed, `{"do":"pid"}`)
	var all []*worker.Group
	for i := range 3 {
		g := endpoint(fmt.Sprint("sleeper ", i), 0)
		ask(t, g, hold)
		all = append(all, g)
	}
	eventually(t, "the first of those that may sleep does", func() bool { return all[0].Status().Asleep })
	if s := b.Status(); s.EndedEarly == 0 || !s.Short || s.Taken == 0 {
		t.Errorf("status = %+v", s)
	}
	if all[2].Status().Asleep {
		t.Error("so does the one that was asked last")
	}
	if again := ask(t, needed, `{"do":"pid"}`); again != stays {
		t.Error("a worker was ended that its endpoint must have")
	}
	for _, g := range all { // those that sleep are held until another has been forked
		ask(t, g, `{"do":"pid"}`)
	}
	for _, g := range append(all, needed) {
		if s := g.Status(); s.Restarts != 0 || s.State != serving.StateReady {
			t.Errorf("status = %+v", s)
		}
	}
}

func TestABudgetThatIsAlwaysExceededLosesNoRequest(t *testing.T) {
	w, b := withBudget(t, 1<<20, nil)
	var all []*worker.Group
	for i := range 4 {
		all = append(all, w.start(t, fmt.Sprint("tight ", i), "echo.py", func(s *worker.Spec) { s.Workers, s.Elastic = 2, 2 }))
	}
	var done atomic.Bool
	var clients sync.WaitGroup
	for _, g := range all {
		for range 3 {
			clients.Go(func() {
				for i := 0; !done.Load(); i++ {
					if got := ask(t, g, fmt.Sprint(i)); got != fmt.Sprint(i) {
						t.Errorf("%d is answered %s", i, got)
					}
					for i%20 == 19 && !done.Load() && !g.Status().Asleep {
						time.Sleep(10 * time.Millisecond)
					}
				}
			})
		}
	}
	eventually(t, "workers have been ended early", func() bool { return b.Status().EndedEarly >= 8 })
	if !b.Status().Exceeded && !b.Status().Short {
		t.Errorf("status = %+v", b.Status())
	}
	done.Store(true)
	clients.Wait()
	for _, g := range all {
		if s := g.Status(); s.Restarts != 0 {
			t.Errorf("status = %+v", s)
		}
	}
}
