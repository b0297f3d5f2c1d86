package batch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// numbers are rows of one INT64 each.
func numbers(rows ...int64) []engine.Tensor {
	t := engine.Tensor{Name: "x", Datatype: engine.Int64, Shape: []int64{int64(len(rows)), 1}}
	for _, n := range rows {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(n))
	}
	return []engine.Tensor{t}
}

func rowsIn(tensors []engine.Tensor) (rows []int64) {
	for data := tensors[0].Data; len(data) > 0; data = data[8:] {
		rows = append(rows, int64(binary.LittleEndian.Uint64(data)))
	}
	return rows
}

// doubler doubles numbers. It fails for a batch with 13, panics for one with 14, and returns
// too few rows for one with 15.
type doubler struct {
	mu      sync.Mutex
	batches [][]int64
	gate    chan struct{} // if set, the first computation waits for it
}

func (d *doubler) compute(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	rows := rowsIn(in)
	d.mu.Lock()
	gate := d.gate
	d.gate = nil
	d.batches = append(d.batches, slices.Clone(rows))
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	switch {
	case slices.Contains(rows, 13):
		return nil, errors.New("13 is unlucky")
	case slices.Contains(rows, 14):
		panic("14 breaks it")
	case slices.Contains(rows, 15):
		return numbers(), nil
	}
	for i := range rows {
		rows[i] *= 2
	}
	return numbers(rows...), nil
}

// together computes requests that all wait while the only executor is busy. Each
// request is a list of rows; the results are texts.
func together(t *testing.T, o Options, requests ...[]int64) (results []string, batches [][]int64) {
	t.Helper()
	d := &doubler{gate: make(chan struct{})}
	open := d.gate
	o.Compute = d.compute
	b := New(o)
	defer b.Close()
	results = make([]string, len(requests))
	var all sync.WaitGroup
	all.Go(func() { _, _ = b.Do(t.Context(), numbers(0)) })
	synctest.Wait()
	for i, rows := range requests {
		all.Go(func() {
			out, err := b.Do(t.Context(), numbers(rows...))
			if err != nil {
				results[i], _, _ = strings.Cut(err.Error(), "\n")
				return
			}
			results[i] = fmt.Sprint(rowsIn(out))
		})
		synctest.Wait()
	}
	close(open)
	all.Wait()
	return results, d.batches[1:]
}

func TestWhatWaitsIsComputedTogetherUpToTheRowsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results, batches := together(t, Options{Batching: serving.Batching{MaxRows: 4}}, []int64{1}, []int64{2, 3}, []int64{4, 5}, []int64{6}, []int64{1, 2, 3, 4, 5})
		if want := []string{"[2]", "[4 6]", "[8 10]", "[12]", "[2 4 6 8 10]"}; !slices.Equal(results, want) {
			t.Errorf("%v, want %v", results, want)
		}
		if want := [][]int64{{1, 2, 3}, {4, 5, 6}, {1, 2, 3, 4, 5}}; !reflect.DeepEqual(batches, want) {
			t.Errorf("batches %v, want %v", batches, want)
		}
	})
}

func TestInABatchEachRequestFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results, batches := together(t, Options{Batching: serving.Batching{MaxRows: 16}}, []int64{1}, []int64{13}, []int64{3}, []int64{14}, []int64{15}, []int64{6}, []int64{7}, []int64{8})
		for i, want := range []string{"[2]", "13 is unlucky", "[6]", "panicked: 14 breaks it", `output "x" has the shape`, "[12]", "[14]", "[16]"} {
			if !strings.Contains(results[i], want) {
				t.Errorf("request %d: %s, want %s", i, results[i], want)
			}
		}
		if !slices.ContainsFunc(batches, func(rows []int64) bool { return slices.Equal(rows, []int64{7, 8}) }) {
			t.Errorf("batches %v: those that do not fail stay together", batches)
		}
	})
}

func TestADelayWaitsForOthersUntilABatchIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &doubler{}
		b := New(Options{Batching: serving.Batching{MaxRows: 3, Delay: time.Second}, Compute: d.compute})
		defer b.Close()
		var all sync.WaitGroup
		ask := func(n int64) time.Duration {
			begun := time.Now()
			if _, err := b.Do(t.Context(), numbers(n)); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		}
		if took := ask(1); took != time.Second {
			t.Errorf("a single request waited %s", took)
		}
		for n := range int64(3) {
			all.Go(func() {
				if took := ask(n); took != 0 {
					t.Errorf("a full batch waited %s", took)
				}
			})
		}
		all.Wait()
		if len(d.batches) != 2 {
			t.Errorf("batches %v", d.batches)
		}
	})
}

func TestRequestsOfAnotherFormWaitForTheNextBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var batches []int64
		open := make(chan struct{})
		b := New(Options{Batching: serving.Batching{MaxRows: 8}, Compute: func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
			<-open
			mu.Lock()
			defer mu.Unlock()
			batches = append(batches, in[0].Shape[0])
			return in, nil
		}})
		defer b.Close()
		var all sync.WaitGroup
		for i, text := range []string{"gate", "aa", "b", "cc", "d", "e"} {
			in := []engine.Tensor{{Name: "x", Datatype: engine.Uint8, Shape: []int64{1, int64(len(text))}, Data: []byte(text)}}
			all.Go(func() {
				out, err := b.Do(t.Context(), in)
				if err != nil || string(out[0].Data) != text {
					t.Errorf("request %d: %v, %v", i, out, err)
				}
			})
			synctest.Wait()
		}
		close(open)
		all.Wait()
		if want := []int64{1, 2, 3}; !slices.Equal(batches, want) {
			t.Errorf("batches of %v requests, want %v", batches, want)
		}
	})
}

func TestACancelledRequestIsNotComputedUnlessOthersNeedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun [][]int64
		b := New(Options{Batching: serving.Batching{MaxRows: 8}, Compute: func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
			begun = append(begun, rowsIn(in))
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		defer b.Close()
		var all sync.WaitGroup
		late := func(after time.Duration, n int64) {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			all.Go(func() {
				defer cancel()
				started := time.Now()
				_, err := b.Do(ctx, numbers(n))
				if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDeadline || time.Since(started) != after {
					t.Errorf("%d: %v after %s", n, err, time.Since(started))
				}
			})
			synctest.Wait()
		}
		late(4*time.Second, 0)
		late(1*time.Second, 1) // ends while it waits
		late(5*time.Second, 2)
		late(9*time.Second, 3)
		all.Wait()
		if want := [][]int64{{0}, {2, 3}}; !reflect.DeepEqual(begun, want) {
			t.Errorf("computed %v, want %v", begun, want)
		}
	})
}

func TestTheMemoryOfARequestThatHasEndedMayBeUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open, seen := make(chan struct{}), []int64(nil)
		b := New(Options{Batching: serving.Batching{MaxRows: 8}, Compute: func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
			<-open
			seen = append(seen, rowsIn(in)...)
			return in, nil
		}})
		defer b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		in := numbers(7)
		if _, err := b.Do(ctx, in); err == nil {
			t.Error("answered")
		}
		clear(in[0].Data)
		close(open)
		synctest.Wait()
		if !slices.Equal(seen, []int64{7}) {
			t.Errorf("computed %v", seen)
		}
	})
}

func TestRowsWithoutElementsAreNotCounted(t *testing.T) {
	b := New(Options{
		Batching: serving.Batching{MaxRows: 4},
		Compute:  func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) { return in, nil },
	})
	defer b.Close()
	out, err := b.Do(t.Context(), []engine.Tensor{{Name: "x", Datatype: engine.FP32, Shape: []int64{1 << 40, 0}}})
	if err != nil || out[0].Shape[0] != 1<<40 {
		t.Errorf("%v, %v", out, err)
	}
	if r := b.Report(); r.Rows != 1 {
		t.Errorf("%d rows", r.Rows)
	}
}

func TestAFullQueueAndAClosedBatcherRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{URL: "toy", Batching: serving.Batching{MaxRows: 8}, MaxQueue: 1, Compute: func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		var all sync.WaitGroup
		for range 2 { // one is computed, one waits
			all.Go(func() {
				if _, err := b.Do(t.Context(), numbers(1)); err == nil {
					t.Error("answered after Close")
				}
			})
			synctest.Wait()
		}
		if n := b.Queued(); n != 1 {
			t.Errorf("%d wait", n)
		}
		_, err := b.Do(t.Context(), numbers(1))
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindOverloaded || !strings.Contains(err.Error(), "'toy'") {
			t.Errorf("a third one: %v", err)
		}
		b.Close()
		all.Wait()
		if _, err := b.Do(t.Context(), numbers(1)); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestRowsOfAnyTypeAreStackedAndSplit(t *testing.T) {
	text := func(rows ...string) engine.Tensor {
		out := engine.Tensor{Name: "s", Datatype: engine.Bytes, Shape: []int64{int64(len(rows)), 1}}
		for _, row := range rows {
			out.Data = append(binary.LittleEndian.AppendUint32(out.Data, uint32(len(row))), row...)
		}
		return out
	}
	a := append(numbers(1, 2), text("one", ""))
	b := append(numbers(3), text("three"))
	if !stackable(a, b) || stackable(a, numbers(1)) || stackable(a, append(numbers(1), text())) {
		t.Error("what can be stacked is judged wrongly")
	}
	before := bytes.Clone(a[0].Data)
	stacked := stack([][]engine.Tensor{a, b})
	if want := append(numbers(1, 2, 3), text("one", "", "three")); !reflect.DeepEqual(stacked, want) {
		t.Errorf("stacked %v, want %v", stacked, want)
	}
	parts, err := unstack(stacked, []int64{2, 1})
	if err != nil || !reflect.DeepEqual(parts, [][]engine.Tensor{a, b}) || !bytes.Equal(a[0].Data, before) || a[0].Shape[0] != 2 {
		t.Errorf("split %v, %v", parts, err)
	}
	for name, t1 := range map[string]engine.Tensor{
		"short numbers": {Datatype: engine.Int64, Shape: []int64{3}, Data: make([]byte, 23)},
		"short text":    {Datatype: engine.Bytes, Shape: []int64{3}, Data: []byte{1, 0, 0, 0, 'x', 9}},
		"cut text":      {Datatype: engine.Bytes, Shape: []int64{3}, Data: []byte{9, 0, 0, 0, 'x'}},
		"other rows":    {Datatype: engine.Int8, Shape: []int64{4}, Data: make([]byte, 4)},
		"a scalar":      {Datatype: engine.Int8, Data: make([]byte, 1)},
	} {
		if _, err := unstack([]engine.Tensor{t1}, []int64{2, 1}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// toyEngine computes in this process, many requests at once.
type toyEngine struct{}

func (toyEngine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	m := &toyModel{}
	m.Batcher = New(Options{URL: spec.URL, Batching: serving.Batching{MaxRows: 16}, AtOnce: 2, Compute: func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
		if spec.URL == "waits" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return in, nil
	}})
	if ctx.Err() != nil {
		m.Batcher.Close()
		return nil, ctx.Err()
	}
	return m, nil
}

type toyModel struct{ *Batcher }

func (m *toyModel) Status() serving.ModelReport {
	return serving.ModelReport{State: serving.StateReady}
}

func (m *toyModel) Close(context.Context) error {
	m.Batcher.Close()
	return nil
}

func (m *toyModel) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	in := req.Tensors
	if in == nil {
		in = []engine.Tensor{{Name: "body", Datatype: engine.Uint8, Shape: []int64{1, int64(len(req.Body))}, Data: req.Body}}
	}
	for _, t := range in {
		if t.Datatype.Size() == 0 {
			return nil, &engine.Error{Kind: engine.KindBadRequest, Text: "unknown type"}
		}
	}
	out, err := m.Do(ctx, in)
	switch {
	case err != nil:
		return nil, err
	case req.Tensors != nil:
		return &engine.Response{Status: 200, Tensors: out}, nil
	}
	return &engine.Response{Status: 200, Body: out[0].Data}, nil
}

func TestANativeEngineThatBatchesFulfilsTheContractOfEngines(t *testing.T) {
	at := func(url string) enginetest.Endpoint {
		e := enginetest.Endpoint{
			Request: func(i int) *engine.Request { return &engine.Request{Body: fmt.Append(nil, i)} },
			Want:    func(i int) string { return fmt.Sprint(i) },
		}
		e.Spec.URL = "answers"
		if url != "" {
			e.Spec.URL = "waits"
		}
		return e
	}
	waits, tensors := at("waits"), at("")
	tensors.Request = func(int) *engine.Request { return &engine.Request{Tensors: numbers(1, 2)} }
	enginetest.Run(t, enginetest.Engine{Loader: toyEngine{}, Answers: at(""), Waits: &waits, Tensors: &tensors})
}
