package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clearmlserving/worker"
)

// prepare executes preprocess, which is to succeed.
func prepare(t *testing.T, ctx context.Context, g *worker.Group, question string) *worker.Prepared { //nolint:revive // t comes first in every test here
	t.Helper()
	p, r, err := g.Pre(ctx, &worker.Request{ID: "r1", Body: []byte(question), ContentType: "application/json"})
	if err != nil || r != nil {
		t.Fatalf("%s: %+v, %v", question, r, err)
	}
	return p
}

// post executes postprocess, whose answer it returns.
func post(t *testing.T, p *worker.Prepared, data worker.Value) string {
	t.Helper()
	r, err := p.Post(t.Context(), data)
	if err != nil || r.Status != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
	return string(r.Body)
}

func jsonValue(text string) worker.Value {
	return worker.Value{ContentType: "application/json", Body: []byte(text)}
}

// states counts the states that the worker of steps.py keeps.
func states(t *testing.T, g *worker.Group) string {
	t.Helper()
	p := prepare(t, t.Context(), g, `{"do":"count"}`)
	defer p.Drop()
	return string(p.Data.Body)
}

func TestAWorkerKeepsTheStatesOfManyRequestsAndIsFreeMeanwhile(t *testing.T) {
	w := newWorld(t, nil)
	for engine, file := range map[string]string{"custom": "steps.py", "custom_async": "steps_async.py"} {
		t.Run(engine, func(t *testing.T) {
			g := w.start(t, engine, file, func(s *worker.Spec) { s.Engine, s.Limits.MaxQueue = engine, 40 })
			var all []*worker.Prepared
			for i := range 40 {
				p := prepare(t, t.Context(), g, fmt.Sprintf(`{"x":%d}`, i))
				if want := fmt.Sprintf(`{"for":%d}`, i); p.Data.ContentType != "application/json" || string(p.Data.Body) != want {
					t.Fatalf("%s %s, want %s", p.Data.ContentType, p.Data.Body, want)
				}
				all = append(all, p)
			}
			if _, _, err := g.Pre(t.Context(), &worker.Request{Body: []byte(`{}`)}); !errors.Is(err, worker.ErrOverloaded) {
				t.Errorf("err = %v, want ErrOverloaded", err)
			}
			if n := g.Status().Workers[0].InFlight; n != 0 {
				t.Errorf("%d requests are in flight", n)
			}
			pid := g.Status().Workers[0].PID
			for i, p := range slices.Backward(all) {
				want := fmt.Sprintf(`{"x":%d,"got":[%d],"pid":%d}`, i, i*i, pid)
				if got := post(t, p, jsonValue(fmt.Sprintf(`[%d]`, i*i))); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			if _, err := all[0].Post(t.Context(), jsonValue("1")); err == nil || !strings.Contains(err.Error(), "before") {
				t.Errorf("a second Post: %v", err)
			}
		})
	}
}

func TestArraysCrossAsTheirBuffers(t *testing.T) {
	w := newWorld(t, nil)
	installed(t, "numpy")
	g := w.start(t, "steps", "steps.py", nil)
	f32 := func(n ...byte) (b []byte) {
		for _, n := range n { // 0, 1, 2 ... as float32
			b = append(b, 0, 0, map[byte]byte{0: 0, 1: 0x80, 2: 0, 3: 0x40, 4: 0x80, 5: 0xa0}[n], map[byte]byte{0: 0, 1: 0x3f, 2: 0x40, 3: 0x40, 4: 0x40, 5: 0x40}[n])
		}
		return b
	}
	for do, c := range map[string]struct {
		value worker.Value
		got   string
	}{
		"one": {
			worker.Value{Layout: worker.OneArray, Tensors: []worker.Tensor{{DType: "<f4", Shape: []int64{2, 3}, Data: f32(0, 1, 2, 3, 4, 5)}}},
			`["float32",[[1.0,2.0,3.0],[4.0,5.0,6.0]]]`,
		},
		"dict": {
			worker.Value{Layout: worker.DictOfArrays, Tensors: []worker.Tensor{
				{Name: "a", DType: "<i8", Shape: []int64{2, 1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}},
				{Name: "b", DType: "<U2", Shape: []int64{2}, Data: []byte{'x', 0, 0, 0, 0, 0, 0, 0, 'y', 0, 0, 0, 'z', 0, 0, 0}},
				{Name: "c", DType: "<f8", Shape: []int64{0, 4}, Data: []byte{}},
			}},
			`{"a":["int64",[[1],[2]]],"b":["<U2",["x","yz"]],"c":["float64",[]]}`,
		},
		"list": {
			worker.Value{Layout: worker.ListOfArrays, Tensors: []worker.Tensor{
				{DType: "<f8", Shape: []int64{}, Data: []byte{0, 0, 0, 0, 0, 0, 4, 0x40}}, {DType: "|b1", Shape: []int64{2}, Data: []byte{1, 0}},
			}},
			`[["float64",2.5],["bool",[true,false]]]`,
		},
	} {
		p := prepare(t, t.Context(), g, fmt.Sprintf(`{"x":7,"do":%q}`, do))
		if !reflect.DeepEqual(p.Data, c.value) {
			t.Errorf("%s: %+v, want %+v", do, p.Data, c.value)
		}
		if got := post(t, p, p.Data); !strings.HasPrefix(got, `{"x":7,"got":`+c.got+`,"pid":`) {
			t.Errorf("%s: %s, want %s", do, got, c.got)
		}
	}
}

func TestBytesCrossAsTheyAreAlsoFromLentMemory(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "steps", "steps.py", nil)
	const size = 1 << 20
	req := &worker.Request{ContentType: "application/octet-stream", Body: bytes.Repeat([]byte("b"), size)}
	if l := g.Lend(size); l != nil {
		defer l.Release()
		copy(l.Bytes(), req.Body)
		req.Loan, req.Body = l, l.Bytes()[:size]
	}
	p, _, err := g.Pre(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if p.Data.ContentType != "application/octet-stream" || len(p.Data.Body) != size {
		t.Errorf("%s, %d bytes", p.Data.ContentType, len(p.Data.Body))
	}
	if got := post(t, p, p.Data); !strings.HasPrefix(got, fmt.Sprintf(`{"x":%d,"got":%d,`, size, size)) {
		t.Error(got)
	}
}

func TestAFailedPreprocessIsTheAnswer(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "steps", "steps.py", nil)
	for do, status := range map[string]int{"refuse": 422, "odd": 500} {
		p, r, err := g.Pre(t.Context(), &worker.Request{Body: fmt.Appendf(nil, `{"do":%q}`, do)})
		if err != nil || p != nil || r == nil || r.Status != status {
			t.Errorf("%s: %+v, %+v, %v", do, p, r, err)
		}
	}
	if n := states(t, g); n != "0" {
		t.Errorf("%s states are kept", n)
	}
}

func TestAStateIsDroppedWithItsRequest(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "steps", "steps.py", nil)
	stays := prepare(t, t.Context(), g, `{"x":1}`)
	dropped := prepare(t, t.Context(), g, `{"x":2}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := prepare(t, ctx, g, `{"x":3}`)
	if n := states(t, g); n != "3" {
		t.Errorf("%s states are kept", n)
	}
	dropped.Drop()
	dropped.Drop()
	cancel()
	eventually(t, "two states are dropped", func() bool { return states(t, g) == "1" })
	if _, err := cancelled.Post(ctx, jsonValue("1")); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	post(t, stays, jsonValue("1"))
	eventually(t, "no state is kept", func() bool { return states(t, g) == "0" })

	ctx, cancel = context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, _, err := g.Pre(ctx, &worker.Request{Body: []byte(`{"do":"sleep","seconds":0.2}`)})
		left <- err
	}()
	eventually(t, "the worker is busy", g.Busy)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	eventually(t, "what was prepared for nobody is dropped", func() bool { return states(t, g) == "0" })
}

func TestARestThatIsCancelledBeforeItsTurnLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "steps", "steps.py", nil)
	p := prepare(t, t.Context(), g, `{"x":1}`)
	var busy sync.WaitGroup
	busy.Go(func() { ask(t, g, `{"do":"sleep","seconds":0.3}`) })
	eventually(t, "the worker is busy", g.Busy)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := p.Post(ctx, jsonValue("1"))
		left <- err
	}()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	busy.Wait()
	eventually(t, "no state is kept", func() bool { return states(t, g) == "0" })
}

// twoSteps answers send_request of user code by Pre and Post.
type twoSteps struct{ group *worker.Group }

func (c *twoSteps) Call(ctx context.Context, call worker.CallRequest) (worker.CallResponse, error) {
	p, r, err := c.group.Pre(ctx, &worker.Request{Body: call.Body, ContentType: call.ContentType, Depth: call.Depth})
	if err == nil && p != nil {
		r, err = p.Post(ctx, p.Data)
	}
	if err != nil {
		return worker.CallResponse{}, err
	}
	return worker.CallResponse{Status: r.Status, ContentType: r.ContentType, Body: r.Body}, nil
}

func TestBothStepsOfANestedRequestRunWhileItsCallerWaits(t *testing.T) {
	caller := &twoSteps{}
	w := newWorld(t, func(o *worker.Options) { o.Caller = caller })
	caller.group = w.start(t, "steps", "steps.py", nil) // of one worker, which asks itself
	p := prepare(t, t.Context(), caller.group, `{"x":1,"do":"ask"}`)
	if got := string(p.Data.Body); !strings.HasPrefix(got, `{"x":"nested","got":{"for":"nested"},`) {
		t.Errorf("preprocess returned %s", got)
	}
	if got := post(t, p, jsonValue("2")); !strings.HasPrefix(got, `{"x":1,"got":2,`) {
		t.Error(got)
	}
}

func TestAStateDiesWithItsWorker(t *testing.T) {
	w := newWorld(t, nil)
	for engine, file := range map[string]string{"custom": "steps.py", "custom_async": "steps_async.py"} {
		g := w.start(t, engine, file, func(s *worker.Spec) { s.Engine = engine })
		p := prepare(t, t.Context(), g, `{"x":1}`)
		pid := g.Status().Workers[0].PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_, err := p.Post(t.Context(), jsonValue("1")) // it may be seen to die before or after
		if _, ok := errors.AsType[*worker.DiedError](err); !ok {
			t.Errorf("err = %v, want a *DiedError", err)
		}
		if again := prepare(t, t.Context(), g, `{"x":2}`); !strings.HasPrefix(post(t, again, jsonValue("1")), `{"x":2,"got":1,`) {
			t.Error("the next worker does not answer")
		}
		p.Drop()
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestClosingWaitsForWhatIsPrepared(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "steps", "steps.py", nil)
	p := prepare(t, t.Context(), g, `{"x":1}`)
	closed := make(chan error, 1)
	go func() { closed <- g.Close(t.Context()) }()
	eventually(t, "it takes nothing new", func() bool {
		return errors.Is(askErr(t.Context(), g, `{}`), worker.ErrClosed)
	})
	select {
	case err := <-closed:
		t.Errorf("closed before the request was over: %v", err)
	default:
	}
	post(t, p, jsonValue("1"))
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
