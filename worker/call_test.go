package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"clearmlserving/worker"
)

// nest wraps a question into calls: a, b, a, b, …
func nest(depth int, names ...string) string {
	q := `{"leaf":true}`
	for i := depth - 1; i >= 0; i-- {
		q = fmt.Sprintf(`{"do":"call","to":%q,"data":%s}`, names[i%len(names)], q)
	}
	return q
}

func TestEndpointsCallEachOtherWithOneWorkerEach(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "echo.py", nil)
	w.start(t, "b", "echo.py", nil)
	for _, depth := range []int{1, 2, 3, 8} {
		if got := ask(t, a, nest(depth, "b", "a")); got != `{"leaf":true}` {
			t.Errorf("depth %d: %s", depth, got)
		}
	}
	if got := ask(t, a, nest(4, "a")); got != `{"leaf":true}` { // itself
		t.Errorf("an endpoint that calls itself: %s", got)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 20 {
				if got := ask(t, a, nest(5, "b", "a")); got != `{"leaf":true}` {
					t.Errorf("many at once: %s", got)
				}
			}
		})
	}
	all.Wait()
}

func TestThreadsOfUserCodeMayCall(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "echo.py", nil)
	w.start(t, "b", "echo.py", nil)
	q := fmt.Sprintf(`{"do":"calls","width":12,"to":"b","data":%s}`, nest(2, "a", "b"))
	want := "[" + strings.TrimSuffix(strings.Repeat(`{"leaf":true},`, 12), ",") + "]"
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				if got := ask(t, a, q); got != want {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	all.Wait()
}

func TestCallsThatNeverEndAreEnded(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxReentry: 6}) })
	a := w.start(t, "a", "echo.py", nil)
	b := w.start(t, "b", "echo.py", nil)
	r := do(t, a, nest(30, "b", "a"))
	if r.Status != 200 || string(r.Body) != "null" { // as the original: None for a call that failed
		t.Errorf("answered %d %s", r.Status, r.Body)
	}
	w.log.waitFor(t, "wait for each other in this worker")
	if got := ask(t, b, `1`); got != "1" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestACallThatFailsTellsUserCode(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "echo.py", nil)
	if got := ask(t, a, `{"do":"call","to":"nobody","data":1}`); got != "null" {
		t.Errorf("got %s", got)
	}
	r := do(t, a, `{"do":"call","to":"nobody","data":1,"strict":true}`)
	if r.Status != 500 || !strings.Contains(string(r.Body), "unknown endpoint") {
		t.Errorf("answered %d %s", r.Status, r.Body)
	}
}

func TestACallEndsWithItsRequest(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "echo.py", nil)
	b := w.start(t, "b", "echo.py", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	// Both have the same deadline: the inner one may just be able to tell.
	if err := askErr(ctx, a, `{"do":"call","to":"b","data":{"do":"spin"}}`); err != nil && !errors.Is(err, worker.ErrDeadline) {
		t.Fatalf("err = %v", err)
	}
	for _, g := range []*worker.Group{a, b} {
		if got := ask(t, g, `1`); got != "1" {
			t.Errorf("afterwards: %s", got)
		}
	}
}

func TestADeathInACallReachesTheCaller(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "echo.py", nil)
	w.start(t, "b", "echo.py", nil)
	r := do(t, a, `{"do":"call","to":"b","data":{"do":"exit","code":5},"strict":true}`)
	if r.Status != 500 || !strings.Contains(string(r.Body), "exited with code 5") {
		t.Errorf("answered %d %s", r.Status, r.Body)
	}
}

func TestAsyncCodeCalls(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, "a", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" })
	w.start(t, "b", "echo.py", nil)
	if !a.Async() {
		t.Error("not taken for async")
	}
	if got := ask(t, a, nest(7, "b", "a")); got != `{"leaf":true}` {
		t.Errorf("got %s", got)
	}
}

func TestAsyncRequestsRunTogetherAndAreCancelled(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{KillGrace: patience}) }) // what is cancelled late is not killed
	g := w.start(t, "a", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" })
	pid := ask(t, g, `{"do":"pid"}`)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { ask(t, g, `{"do":"meet","of":100}`) }) // none is answered before all are there
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := askErr(ctx, g, `{"do":"sleep","seconds":1000}`); !errors.Is(err, worker.ErrDeadline) {
		t.Errorf("err = %v", err)
	}
	eventually(t, "the task is cancelled", func() bool { return g.Status().Workers[0].InFlight == 0 })
	if after := ask(t, g, `{"do":"pid"}`); after != pid {
		t.Error("a request that could be cancelled cost a worker")
	}
}

func TestABlockedEventLoopIsReplaced(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "a", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" })
	replacedAfter(t, g, `{"do":"block","seconds":1000}`)
}

func TestStreams(t *testing.T) {
	w := newWorld(t, nil)
	for name, g := range map[string]*worker.Group{
		"sync":  w.start(t, "sync", "echo.py", nil),
		"async": w.start(t, "async", "awaits.py", func(s *worker.Spec) { s.Engine = "custom_async" }),
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{0, 1, 15, 16, 17, 200} {
				r := do(t, g, fmt.Sprintf(`{"do":"stream","pieces":%d,"width":10}`, size))
				got, err := drain(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				var want strings.Builder
				for i := range size {
					fmt.Fprintf(&want, "%d:zzzzzzzzzz\n", i)
				}
				if got != want.String() {
					t.Errorf("%d pieces: got %d bytes, want %d", size, len(got), want.Len())
				}
			}
			r := do(t, g, `{"do":"stream","pieces":3,"width":300000}`) // larger than a piece may be
			if got, err := drain(t.Context(), r); err != nil || len(got) != 3*300_003 {
				t.Errorf("large pieces: %d bytes, %v", len(got), err)
			}
			pid := ask(t, g, `{"do":"pid"}`)
			r = do(t, g, `{"do":"stream","pieces":1000000000,"width":1000}`)
			if _, err := r.Stream.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Stream.Close(); err != nil {
				t.Error(err)
			}
			if err := r.Stream.Close(); err != nil {
				t.Errorf("a second Close: %v", err)
			}
			if after := ask(t, g, `{"do":"pid"}`); after != pid {
				t.Error("a stream that was left cost a worker")
			}
		})
	}
}

func TestAStreamThatBreaksSaysSo(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	r := do(t, g, `{"do":"stream","pieces":5,"width":1,"fail":2}`)
	got, err := drain(t.Context(), r)
	var broken *worker.StreamError
	if !errors.As(err, &broken) || !strings.Contains(err.Error(), "stream broke") || strings.Count(got, "\n") != 2 {
		t.Errorf("got %q, err = %v", got, err)
	}
	r = do(t, g, `{"do":"stream","pieces":5,"width":1,"die":3}`)
	_, err = drain(t.Context(), r)
	if _, ok := errors.AsType[*worker.DiedError](err); !ok {
		t.Errorf("err = %v, want a *DiedError", err)
	}
	if got := ask(t, g, `1`); got != "1" {
		t.Errorf("afterwards: %s", got)
	}
}

func drain(ctx context.Context, r *worker.Response) (string, error) {
	if r.Stream == nil {
		return string(r.Body), nil
	}
	defer func() { _ = r.Stream.Close() }()
	var b strings.Builder
	for {
		piece, err := r.Stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		b.Write(piece)
	}
}

// heldCall is a Caller that answers when its request has ended.
type heldCall struct {
	called chan struct{}
	reused chan struct{} // closed when the memory of the request was reused
	ids    chan string
}

func (c *heldCall) Call(_ context.Context, r worker.CallRequest) (worker.CallResponse, error) {
	close(c.called)
	<-c.reused
	c.ids <- r.RequestID
	return worker.CallResponse{Status: 200}, nil
}

func TestACallKeepsTheIDOfARequestThatHasEnded(t *testing.T) {
	held := &heldCall{make(chan struct{}), make(chan struct{}), make(chan string, 1)}
	w := newWorld(t, func(o *worker.Options) { o.Caller = held })
	a := w.start(t, "a", "echo.py", nil)
	id := []byte("the request")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := a.Do(ctx, &worker.Request{ID: unsafe.String(&id[0], len(id)), Body: []byte(`{"do":"call","to":"b","data":1}`), ContentType: "application/json"})
		ended <- err
	}()
	<-held.called
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	copy(id, "another one") // as a listener does with the memory of its connection
	close(held.reused)
	if got := <-held.ids; got != "the request" {
		t.Errorf("the call is of %q", got)
	}
}
