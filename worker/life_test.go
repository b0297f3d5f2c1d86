package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// diesOf asks a question of which the worker is to die, and returns why it did.
func diesOf(t *testing.T, g *worker.Group, question string) error {
	t.Helper()
	err := askErr(t.Context(), g, question)
	if _, ok := errors.AsType[*worker.DiedError](err); !ok {
		t.Fatalf("err = %v, want a *DiedError", err)
	}
	return err
}

func TestAWorkerThatTakesTooMuchIsKilledAndToldWhy(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxProcesses: 20, MaxThreads: 30}) })
	for name, tc := range map[string]struct {
		question, want string
		change         func(*worker.Spec)
	}{
		"memory":    {`{"do":"hold","bytes":200000000,"stay":true}`, "memory limit 150.0 MiB exceeded (", func(s *worker.Spec) { s.Limits.Memory = 150 << 20 }},
		"processes": {`{"do":"fork","count":100}`, "processes, more than the limit of 20", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "memory" {
				measurable(t)
			}
			g := w.start(t, name, "greedy.py", tc.change)
			before := ask(t, g, `{"do":"pid"}`)
			if err := diesOf(t, g, tc.question); !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v lacks %q", err, tc.want)
			}
			if after := ask(t, g, `{"do":"pid"}`); after == before {
				t.Error("the killed worker answers")
			}
			if s := g.Status(); !strings.Contains(s.LastDeath, tc.want) || s.Restarts != 1 {
				t.Errorf("status = %+v", s)
			}
		})
	}
	t.Run("threads", func(t *testing.T) {
		g := w.start(t, "threads", "greedy.py", nil)
		before := ask(t, g, `{"do":"pid"}`)
		_ = askErr(t.Context(), g, `{"do":"threads","count":50}`) // the kill may come before the answer
		eventually(t, "it is replaced", func() bool {
			r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"do":"pid"}`)})
			return err == nil && string(r.Body) != before
		})
		w.log.waitFor(t, "threads, more than the limit of 30")
	})
}

func TestAStoppedWorkerIsReplacedWithoutARequest(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stopped", "greedy.py", nil)
	before := ask(t, g, `{"do":"pid"}`)
	if err := syscall.Kill(g.Status().Workers[0].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is dead", func() bool { return !alive(before) })
	if after := ask(t, g, `{"do":"pid"}`); after == before {
		t.Error("the stopped worker answers")
	}
	w.log.waitFor(t, "was stopped by a signal")
}

func TestAStoppedZygoteGoesOnWhenItIsNeeded(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "waits", "greedy.py", nil)
	other := w.start(t, "other", "greedy.py", nil)
	pid, stays := ask(t, g, `{"do":"pid"}`), ask(t, other, `{"do":"pid"}`)
	if err := syscall.Kill(parentOf(t, pid), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(g.Status().Workers[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another answers", func() bool {
		r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"do":"pid"}`)})
		return err == nil && string(r.Body) != pid
	})
	if after := ask(t, other, `{"do":"pid"}`); after != stays {
		t.Error("another endpoint's worker was replaced")
	}
}

func TestAWorkerDeafToSignalsIsKilledAfterItsDeadline(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "deaf", "greedy.py", nil)
	replacedAfter(t, g, `{"do":"deaf"}`)
}

func TestAWorkerThatClosesItsOutputGoesOn(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "mute", "greedy.py", nil)
	before := ask(t, g, `{"do":"close"}`)
	for range 3 {
		if after := ask(t, g, `{"do":"pid"}`); after != before {
			t.Error("it was replaced")
		}
	}
}

func TestWorkersComeWithWaitingRequestsAndGoWithoutAny(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "elastic", "echo.py", func(s *worker.Spec) {
		s.Workers, s.Elastic, s.Limits.IdleTimeout = 3, 2, 0.3
	})
	if s := g.Status(); len(s.Workers) != 1 || s.State != serving.StateReady || s.MinWorkers != 1 || s.MaxWorkers != 3 {
		t.Errorf("status = %+v", s)
	}
	question, open := gate(t)
	var all sync.WaitGroup
	for range 9 {
		all.Go(func() { ask(t, g, question) })
	}
	eventually(t, "there are three", func() bool { return len(g.Status().Workers) == 3 })
	open()
	all.Wait()
	eventually(t, "one is left", func() bool { return len(g.Status().Workers) == 1 && g.Status().State == serving.StateReady })
	ask(t, g, `1`)
	if s := g.Status(); s.Restarts != 0 {
		t.Errorf("leaving counts as dying: %+v", s)
	}
}

func TestASleepingEndpointHoldsItsFirstRequests(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "sleeper", "echo.py", func(s *worker.Spec) {
		s.Workers, s.Elastic, s.Limits.IdleTimeout = 1, 1, 0.05
	})
	for range 3 {
		eventually(t, "it sleeps", func() bool { return len(g.Status().Workers) == 0 })
		if s := g.Status(); !s.Asleep || s.State != serving.StateReady {
			t.Errorf("status = %+v", s)
		}
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { ask(t, g, `1`) })
		}
		all.Wait()
	}
	if s := g.Status(); s.Restarts != 0 || s.Answered != 15 {
		t.Errorf("status = %+v", s)
	}
}

func TestRecyclingLosesNoRequest(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*worker.Spec){
		"requests": func(s *worker.Spec) { s.Limits.RecycleRequests = 20 },
		"memory":   func(s *worker.Spec) { s.Limits.RecycleMemory = 150 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "memory" {
				measurable(t)
			}
			g := w.start(t, name, "greedy.py", change)
			first := ask(t, g, `{"do":"pid"}`)
			ask(t, g, `{"do":"hold","bytes":200000000}`)
			var all sync.WaitGroup
			var done atomic.Bool
			for range 4 {
				all.Go(func() {
					for !done.Load() {
						ask(t, g, `{"do":"nap","seconds":0.002}`)
					}
				})
			}
			eventually(t, "another answers", func() bool { return ask(t, g, `{"do":"pid"}`) != first })
			eventually(t, "the first has gone", func() bool { return !alive(first) })
			done.Store(true)
			all.Wait()
			if s := g.Status(); s.Restarts != 0 || s.State != serving.StateReady {
				t.Errorf("status = %+v", s)
			}
			w.log.waitFor(t, "worker recycled")
		})
	}
}

func TestACrashLoopIsDegradedAndSaysWhatTheWorkerWrote(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxBackoff: time.Minute}) })
	g := w.start(t, "crash", "echo.py", nil)
	for range 2 {
		if err := diesOf(t, g, `{"do":"segv"}`); !strings.Contains(err.Error(), "it wrote last: ") {
			t.Errorf("err = %v", err)
		}
	}
	eventually(t, "a worker is back", func() bool { return g.Status().State == serving.StateDegraded })
	s := g.Status()
	if !strings.Contains(s.Reason, "again and again") || !strings.Contains(s.Reason, "SIGSEGV") || len(s.LastLines) == 0 {
		t.Errorf("status = %+v", s)
	}
}

// leftBy has a worker start a process in its group and one that detaches itself.
func leftBy(t *testing.T, g *worker.Group) (started []int) {
	t.Helper()
	if err := json.Unmarshal([]byte(ask(t, g, `{"do":"leave"}`)), &started); err != nil {
		t.Fatal(err)
	}
	for _, pid := range started {
		if !alive(strconv.Itoa(pid)) {
			t.Fatalf("process %d is not there", pid)
		}
	}
	return started
}

func TestWhatHasDetachedItselfEndsWithItsWorkerAndNoOther(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*worker.Spec){
		"from the zygote": nil,
		"from a template": func(s *worker.Spec) { s.Workers = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			g := w.start(t, name, "greedy.py", change)
			other := w.start(t, "other "+name, "greedy.py", change)
			stays := leftBy(t, other)
			started := leftBy(t, g)
			for _, wk := range g.Status().Workers {
				if err := syscall.Kill(wk.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "what it has started is gone", func() bool {
				return !alive(strconv.Itoa(started[0])) && !alive(strconv.Itoa(started[1]))
			})
			for _, pid := range stays {
				if !alive(strconv.Itoa(pid)) {
					t.Error("another endpoint's process was ended")
				}
			}
			if err := other.Close(t.Context()); err != nil {
				t.Error(err)
			}
			eventually(t, "the other's are gone when it is closed", func() bool {
				return !alive(strconv.Itoa(stays[0])) && !alive(strconv.Itoa(stays[1]))
			})
		})
	}
}

func TestProcessesThatDetachThemselvesAreCounted(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxProcesses: 20}) })
	g := w.start(t, "hidden", "greedy.py", nil)
	if err := diesOf(t, g, `{"do":"hide","count":100}`); !strings.Contains(err.Error(), "processes, more than the limit of 20") {
		t.Error(err)
	}
}

func TestAnEndpointThatAnswersNobodyIsNotReady(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxBackoff: time.Millisecond}) })
	g := w.start(t, "fatal", "echo.py", nil)
	_ = diesOf(t, g, `{"do":"segv"}`)
	const nobody = "each request ends with its worker"
	var s serving.ModelReport
	eventually(t, "a worker is back", func() bool {
		s = g.Status()
		return s.State == serving.StateReady || s.State == serving.StateDegraded || strings.Contains(s.Reason, nobody)
	})
	if s.State == serving.StateFailed {
		t.Errorf("after one death it is %+v", s)
	}
	g.LostSince(11 * time.Second)
	if s := g.Status(); s.State != serving.StateFailed || !strings.Contains(s.Reason, nobody) {
		t.Errorf("when each request dies it is %+v", s)
	}
	ask(t, g, `1`)
	if s := g.Status(); s.State == serving.StateFailed {
		t.Errorf("when it answers it is %+v", s)
	}
}

func TestAnEndpointIsReadyAsSoonAsItAnswersAgain(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "hangs", "echo.py", nil)
	ctx, end := context.WithCancel(t.Context())
	var hung sync.WaitGroup
	defer hung.Wait()
	defer end()
	answered := make(chan error, 1)
	go func() { answered <- askErr(ctx, g, `{"do":"sleep","seconds":1}`) }()
	eventually(t, "the first request is executed", g.Busy)
	for range 3 {
		hung.Go(func() { _ = askErr(ctx, g, `{"do":"sleep","seconds":1000}`) })
	}
	eventually(t, "all requests are there", func() bool { return g.Status().Queued+g.Status().Workers[0].InFlight >= 4 })
	g.StalledFor(11 * time.Second)
	if s := g.Status(); s.State != serving.StateFailed || !strings.Contains(s.Reason, "no answer for 11s") {
		t.Errorf("without answers it is %+v", s)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if s := g.Status(); s.State == serving.StateFailed {
		t.Errorf("at the moment of an answer it is %+v", s)
	}
}

func TestAKilledZygoteLeavesNothingOfWhatUserCodeStarted(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "leaves", "greedy.py", nil)
	pid := ask(t, g, `{"do":"pid"}`)
	started := leftBy(t, g)
	if err := syscall.Kill(parentOf(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it is gone", func() bool {
		return !alive(strconv.Itoa(started[0])) && !alive(strconv.Itoa(started[1]))
	})
}

func TestTheEndOfAPoolEndsWhatUserCodeStarted(t *testing.T) {
	env := installed(t)
	pool := worker.New(worker.Options{Environment: env, RuntimeDir: t.TempDir(), Preload: []string{}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(ctx) }()
	g, err := pool.Start(t.Context(), worker.Spec{Endpoint: "leaves", Engine: "custom", CodePath: code("greedy.py")})
	if err != nil {
		t.Fatal(err)
	}
	var started []int
	if err := json.Unmarshal([]byte(ask(t, g, `{"do":"leave"}`)), &started); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for i, pid := range started {
		eventually(t, fmt.Sprintf("process %d of user code is dead", i), func() bool { return !alive(strconv.Itoa(pid)) })
	}
}

func TestAQueueOfItsOwnBoundsAnEndpoint(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "short", "echo.py", func(s *worker.Spec) { s.Limits.MaxQueue = 2 })
	question, open := gate(t)
	var all sync.WaitGroup
	var refused atomic.Int32
	for range 20 {
		all.Go(func() {
			if err := askErr(t.Context(), g, question); errors.Is(err, worker.ErrOverloaded) {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the others are refused", func() bool { return refused.Load() >= 20-2-4 })
	open()
	all.Wait()
	if s := g.Status(); s.MaxQueue != 2 {
		t.Errorf("status = %+v", s)
	}
}

func TestAFloodOfOneEndpointDoesNotStarveAnother(t *testing.T) {
	w := newWorld(t, nil)
	flooded := w.start(t, "flooded", "echo.py", func(s *worker.Spec) { s.Limits.MaxQueue = 50 })
	other := w.start(t, "other", "echo.py", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for range 200 {
		flood.Go(func() {
			for ctx.Err() == nil {
				_ = askErr(ctx, flooded, `{"do":"sleep","seconds":0.05}`)
			}
		})
	}
	eventually(t, "its queue is full", func() bool { return flooded.Status().Queued == 50 })
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := askErr(ctx, other, fmt.Sprint(i)); err != nil {
			t.Errorf("the other endpoint: %v", err)
		}
		cancel()
	}
	cancel()
	flood.Wait()
}

func TestAnAnswerShowsWhatADeadWorkerWroteButNoStack(t *testing.T) {
	died := &worker.DiedError{Endpoint: "e", Death: process.Death{Signal: syscall.SIGSEGV, At: time.Now(), LastLines: []string{
		"warming up", "Fatal Python error: Segmentation fault", "", "Current thread 0x00007f (most recent call first):",
		`  File "/code/preprocess.py", line 3 in process`, "Extension modules: numpy (total: 1)",
	}}}
	text := died.Error()
	if !strings.HasSuffix(text, "it wrote last: warming up | Fatal Python error: Segmentation fault") {
		t.Error(text)
	}
}
