package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/serving"
	"clearmlserving/worker"
)

func batched(b serving.Batching) func(*worker.Spec) {
	return func(s *worker.Spec) { s.Batch = b }
}

// together has the questions executed in one batch: they are asked while the only
// worker is busy with another request.
func together(t *testing.T, g *worker.Group, questions ...string) []*worker.Response {
	t.Helper()
	question, open := gate(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = g.Do(t.Context(), &worker.Request{Body: []byte(question)}) })
	eventually(t, "the worker is busy", g.Busy)
	answers := make([]*worker.Response, len(questions))
	for i, q := range questions {
		all.Go(func() {
			r, err := g.Do(t.Context(), &worker.Request{ID: fmt.Sprint(i), Body: []byte(q), ContentType: "application/json", Sampled: true})
			if err != nil {
				r = &worker.Response{Body: []byte(err.Error())}
			}
			answers[i] = r
		})
		eventually(t, "the question waits", func() bool { return waitingOrSent(g) == i+2 })
	}
	open()
	all.Wait()
	return answers
}

func inFlight(g *worker.Group) (n int) {
	for _, w := range g.Status().Workers {
		n += w.InFlight
	}
	return n
}

func waitingOrSent(g *worker.Group) int { return g.Status().Queued + inFlight(g) }

type stacked struct {
	X      any
	Of     int
	Called any
}

func parse(t *testing.T, r *worker.Response) (s stacked) {
	t.Helper()
	if err := json.Unmarshal(r.Body, &s); r.Status != 200 || err != nil {
		t.Fatalf("%d %s: %v", r.Status, r.Body, err)
	}
	return s
}

func TestWhatWaitsIsExecutedTogetherUpToTheRowsAllowed(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 3}))
	if got := parse(t, do(t, g, `{"x":"alone"}`)); got.Of != 1 {
		t.Errorf("an idle worker waited for others: %+v", got)
	}
	answers := together(t, g, `{"x":0}`, `{"x":1}`, `{"x":2}`, `{"x":3}`)
	for i, r := range answers {
		got := parse(t, r)
		want := 3
		if i == 3 {
			want = 1
		}
		if got.X != float64(i) || got.Of != want {
			t.Errorf("question %d: %+v, want it in a batch of %d", i, got, want)
		}
		if want := fmt.Sprintf(`{"seen":%d}`, i); string(r.Stats) != want {
			t.Errorf("question %d: variables %s, want %s", i, r.Stats, want)
		}
	}
	s := g.Status().Batching
	if s == nil || s.Batches < 3 || s.LastRows != 1 || s.LastRequests != 1 || s.MeanRows < 1 || s.PerRowUS+s.PerBatchUS <= 0 || s.Limit != 3 || s.LimitedBy == "" {
		t.Errorf("batching = %+v", s)
	}
}

func TestInABatchEachRequestFailsAlone(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 16}))
	answers := together(t, g,
		`{"x":0}`, `{"x":1,"do":"refuse"}`, `not json`, `{"x":3,"do":"spoil"}`, `{"x":4,"do":"fail"}`, `{"x":5,"do":"short"}`, `{"x":6}`)
	for i, want := range []struct {
		status int
		says   string
	}{
		{200, `"x":0`}, {422, "refused 1"}, {422, "JSON decode error"}, {500, "spoilt by 3"}, {500, "no 4"}, {500, "returned 0 results"}, {200, `"x":6`},
	} {
		if r := answers[i]; r.Status != want.status || !strings.Contains(string(r.Body), want.says) {
			t.Errorf("question %d: %d %s", i, r.Status, r.Body)
		}
	}
}

func TestADeathInABatchTakesWhatHasBegunAndNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 2}))
	answers := together(t, g, `{"x":0}`, `{"x":1,"do":"die"}`, `{"x":2}`, `{"x":3}`)
	for i, r := range answers {
		died := strings.Contains(string(r.Body), "worker died")
		if died != (i < 2) || (!died && parse(t, r).X != float64(i)) {
			t.Errorf("question %d: %s", i, r.Body)
		}
	}
}

func TestStreamsAndLargeAnswersOfABatchArriveWhole(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 16}))
	question, open := gate(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = g.Do(t.Context(), &worker.Request{Body: []byte(question)}) })
	eventually(t, "the worker is busy", g.Busy)
	for i, x := range []string{"stream", "large", "slow", "stream", "plain", "large"} {
		all.Go(func() {
			r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"x":"` + x + `"}`)})
			if err != nil {
				t.Errorf("%s: %v", x, err)
				return
			}
			if r.Stream == nil {
				if x == "stream" || !strings.Contains(string(r.Body), `"x":"`+x) || (x == "large") != (len(r.Body) > 300<<10) {
					t.Errorf("%s: %d bytes", x, len(r.Body))
				}
				return
			}
			defer func() { _ = r.Stream.Close() }()
			lines := 0
			for {
				piece, err := r.Stream.Next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				lines += strings.Count(string(piece), "\n")
			}
			if lines != 40 {
				t.Errorf("%d lines of a stream", lines)
			}
		})
		eventually(t, "the question waits", func() bool { return waitingOrSent(g) == i+2 })
	}
	open()
	all.Wait()
}

func TestCodeOfABatchMayAskOtherEndpointsAndItself(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 16}))
	w.start(t, "echo", "echo.py", nil)
	answers := together(t, g,
		`{"x":0,"do":"call","to":"echo","data":[1]}`, `{"x":1,"do":"call","to":"stacked","data":{"x":"inner"}}`, `{"x":2}`)
	for i, want := range []string{`[1]`, `{"called":null,"of":1,"x":"inner"}`, `null`} {
		got := parse(t, answers[i])
		if b, err := json.Marshal(got.Called); err != nil || string(b) != want || got.Of != 3 {
			t.Errorf("question %d: of %d, %s, %v", i, got.Of, b, err)
		}
	}
}

// TestUserCodeRunsOnTheMainThread: signals and handles that are bound to their thread
// work in every method, with max_batch_size as without.
func TestUserCodeRunsOnTheMainThread(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct {
		file    string
		rows    int
		batches bool
	}{
		"one by one":                {"main_thread.py", 0, false},
		"with process_batch":        {"main_thread_batch.py", 8, true},
		"batch size without method": {"main_thread.py", 8, false},
	} {
		g := w.start(t, name, c.file, batched(serving.Batching{MaxRows: c.rows, Delay: time.Millisecond}))
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				want := fmt.Sprintf(`{"x":%d}`, i)
				if r := do(t, g, want); r.Status != 200 || string(r.Body) != want {
					t.Errorf("%s, request %d: %d %s", name, i, r.Status, r.Body)
				}
			})
		}
		all.Wait()
		s := g.Status()
		on, warnings := s.Batching != nil, strings.Join(s.Warnings, "\n")
		if on != c.batches || (c.rows > 1 && !c.batches) != strings.Contains(warnings, "max_batch_size=8 has no effect") {
			t.Errorf("%s: batching %v, warnings %q", name, on, warnings)
		}
	}
	w.log.waitFor(t, "max_batch_size=8 has no effect")
}

func TestWhoeverGivesUpInABatchLeavesTheOthersTheirAnswers(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 16}))
	question, open := gate(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = g.Do(t.Context(), &worker.Request{Body: []byte(question)}) })
	eventually(t, "the worker is busy", g.Busy)
	inner, openInner := gate(t) // holds the batch that the others are in
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 4 {
		all.Go(func() {
			q, c := fmt.Sprintf(`{"x":%d}`, i), t.Context()
			switch i {
			case 1:
				c = ctx
			case 3:
				q = inner
			}
			r, err := g.Do(c, &worker.Request{Body: []byte(q)})
			if i == 1 != errors.Is(err, context.Canceled) || (i != 1 && (err != nil || parse(t, r).Of < 3)) { // 3: it gave up before the batch began
				t.Errorf("question %d: %v, %v", i, r, err)
			}
		})
		eventually(t, "the question waits", func() bool { return waitingOrSent(g) == i+2 })
	}
	open()
	eventually(t, "the batch is at the worker", func() bool { return g.Status().Queued == 0 && inFlight(g) == 4 })
	cancel()
	openInner()
	all.Wait()
	if got := parse(t, do(t, g, `{"x":9}`)); got.X != 9.0 {
		t.Errorf("the next one: %+v", got)
	}
}

func TestARequestWhoseClientLeavesDuringPreprocessIsNotPredicted(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "stacked", "stacked.py", batched(serving.Batching{MaxRows: 16}))
	question, open := gate(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = g.Do(t.Context(), &worker.Request{Body: []byte(question)}) })
	eventually(t, "the worker is busy", g.Busy)
	stay, openStay := gate(t)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- askErr(ctx, g, strings.Replace(stay, `"wait"`, `"stay"`, 1)) }()
	eventually(t, "it waits", func() bool { return waitingOrSent(g) == 2 })
	all.Go(func() {
		if got := parse(t, do(t, g, `{"x":1}`)); got.Of != 1 {
			t.Errorf("predicted with %d others, one of whom nobody waits for", got.Of-1)
		}
	})
	eventually(t, "both wait", func() bool { return waitingOrSent(g) == 3 })
	open()
	eventually(t, "they are preprocessed", func() bool { return g.Status().Queued == 0 && inFlight(g) == 2 && g.Busy() })
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) { // its worker has been told by now
		t.Errorf("err = %v", err)
	}
	openStay()
	all.Wait()
}

func TestADelayWaitsForOthersAndNoLongerThanItSays(t *testing.T) {
	w := newWorld(t, nil)
	never := w.start(t, "long", "stacked.py", batched(serving.Batching{MaxRows: 8, Delay: patience, Preferred: []int{2, 4}}))
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			if got := parse(t, do(t, never, fmt.Sprintf(`{"x":%d}`, i))); got.Of != 2 {
				t.Errorf("a preferred size was not made: %+v", got)
			}
		})
		if i == 0 {
			eventually(t, "the first waits", func() bool { return never.Status().Queued == 1 && inFlight(never) == 0 })
		}
	}
	all.Wait()
	soon := w.start(t, "short", "stacked.py", batched(serving.Batching{MaxRows: 8, Delay: time.Millisecond}))
	if got := parse(t, do(t, soon, `{"x":1}`)); got.Of != 1 {
		t.Errorf("%+v", got)
	}
	// One that is given up while it waits for others is forgotten.
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := askErr(ctx, never, `{"x":1}`); !errors.Is(err, worker.ErrDeadline) {
		t.Errorf("err = %v", err)
	}
}

func TestBatchingOfAnAsyncEndpointIsALoadError(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.tryStart("async", "awaits.py", func(s *worker.Spec) { s.Engine, s.Batch = "custom_async", serving.Batching{MaxRows: 8} })
	var failed *worker.LoadError
	if !errors.As(err, &failed) || !strings.Contains(failed.Text, "side by side") || !strings.Contains(failed.Text, "max_batch_size=8") {
		t.Error(err)
	}
}

// TestManyWorkersAndCallersAnswerEachItsOwn is the traffic of every day: the answers
// must not be mixed up, whatever is executed together.
func TestManyWorkersAndCallersAnswerEachItsOwn(t *testing.T) {
	w := newWorld(t, nil)
	for name, b := range map[string]serving.Batching{"stacked.py": {MaxRows: 16}, "preferred/stacked.py": {MaxRows: 16, Delay: 200 * time.Microsecond, Preferred: []int{4, 8}}} {
		g := w.start(t, name, path.Base(name), func(s *worker.Spec) { s.Batch, s.Workers = b, 2 })
		var all sync.WaitGroup
		for caller := range 32 {
			all.Go(func() {
				for i := range 30 {
					x := caller*1000 + i
					if got := parse(t, do(t, g, fmt.Sprintf(`{"x":%d}`, x))); got.X != float64(x) || got.Of > 16 {
						t.Errorf("asked %d, got %+v", x, got)
					}
				}
			})
		}
		all.Wait()
		if s := g.Status().Batching; s.MeanRows < 1 || s.LastRows > 16 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
