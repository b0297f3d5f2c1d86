package router_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// model answers nothing; it records whether it has been closed.
type model struct{ closed atomic.Bool }

func (m *model) Infer(context.Context, *engine.Request) (*engine.Response, error) {
	if m.closed.Load() {
		return nil, errors.New("used after close")
	}
	return &engine.Response{Status: 200}, nil
}
func (m *model) Status() serving.ModelReport { return serving.ModelReport{State: "ready"} }
func (m *model) Close(context.Context) error {
	m.closed.Store(true)
	return nil
}

func table(models ...*router.Live) *router.Snapshot {
	s := &router.Snapshot{Models: map[serving.EndpointURL]*router.Live{}}
	for _, m := range models {
		s.Models[m.URL] = m
	}
	return s
}

func TestBeforeTheFirstTableNothingIsSaidToBeUnknown(t *testing.T) {
	var r router.Router
	_, err := r.Acquire("anybody")
	if notReady, ok := errors.AsType[*router.NotReadyError](err); !ok || !notReady.Loading {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownUrlIsTold(t *testing.T) {
	var r router.Router
	r.Swap(&router.Snapshot{})
	if _, err := r.Acquire("nobody"); !errors.Is(err, router.ErrUnknown) {
		t.Fatalf("empty table: %v", err)
	}
	r.Swap(table(router.NewLive("a", "", &model{})))
	if _, err := r.Acquire("a/1"); !errors.Is(err, router.ErrUnknown) {
		t.Fatalf("other url: %v", err)
	}
}

func TestWaitingUrlSaysWhy(t *testing.T) {
	var r router.Router
	r.Swap(&router.Snapshot{Waiting: map[serving.EndpointURL]router.Obstacle{"a": {Code: "py_code_a", Reason: "boom"}}})
	_, err := r.Acquire("a")
	var notReady *router.NotReadyError
	if !errors.As(err, &notReady) || notReady.Reason != "boom" || notReady.Code != "py_code_a" || notReady.Loading {
		t.Fatalf("got %v", err)
	}
}

func TestCanaryHidesEndpointOfItsName(t *testing.T) {
	a, b := router.NewLive("m", "", &model{}), router.NewLive("m/1", "", &model{})
	s := table(a, b)
	s.Canaries = map[serving.EndpointURL]*router.Canary{"m": router.NewCanary("m", []*router.Live{b}, []float64{1}, "")}
	var r router.Router
	r.Swap(s)
	got, err := r.Acquire("m")
	if err != nil || got != b {
		t.Fatalf("got %v, %v", got, err)
	}
	got.Release()
}

func TestCanaryWithoutTargetsSaysWhy(t *testing.T) {
	for name, c := range map[string]*router.Canary{
		"no target":        router.NewCanary("c", nil, nil, ""),
		"weights sum to 0": router.NewCanary("c", []*router.Live{router.NewLive("m", "", &model{})}, []float64{0}, ""),
	} {
		if _, _, err := c.Draw(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestCanarySharesAreExact checks each share within 5 standard deviations of
// its binomial: a correct split fails about once in a million runs.
func TestCanarySharesAreExact(t *testing.T) {
	const n = 50_000
	for _, shares := range [][]float64{{0.1, 0.9}, {1, 1, 1}, {0.001, 0.999}, {5, 3, 2}, {1e-300, 1}, {1}} {
		var targets []*router.Live
		sum := 0.0
		for _, s := range shares {
			targets = append(targets, router.NewLive("m", "", &model{}))
			sum += s
		}
		c := router.NewCanary("c", targets, shares, "")
		counts := map[*router.Live]int{}
		for range n {
			live, _, err := c.Draw()
			if err != nil {
				t.Fatal(err)
			}
			counts[live]++
		}
		for i, s := range shares {
			p := s / sum
			bound := 5*math.Sqrt(n*p*(1-p)) + 1
			if got := float64(counts[targets[i]]); math.Abs(got-n*p) > bound {
				t.Errorf("shares %v: target %d got %v of %d, want %v ± %v", shares, i, got, n, n*p, bound)
			}
		}
	}
}

// TestDrainedModelIsNeverUsedAgain swaps models under load; a model that is used
// after its drain answers with an error.
func TestDrainedModelIsNeverUsedAgain(t *testing.T) {
	var r router.Router
	current := router.NewLive("m", "", &model{})
	r.Swap(table(current))
	var stop atomic.Bool
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for !stop.Load() {
				live, err := r.Acquire("m")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := live.Model.Infer(t.Context(), nil); err != nil {
					t.Error(err)
				}
				live.Release()
			}
		})
	}
	for range 300 {
		next := router.NewLive("m", "", &model{})
		r.Swap(table(next))
		if err := current.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := current.Model.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		current = next
	}
	stop.Store(true)
	users.Wait()
}

func TestDrainEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r router.Router
		live := router.NewLive("m", "", &model{})
		r.Swap(table(live))
		held, err := r.Acquire("m")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := live.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("drain with a request under way: %v", err)
		}
		if held.InUse() != 1 {
			t.Fatalf("in use: %d", held.InUse())
		}
		held.Release()
	})
}

func TestAcquireDoesNotAllocate(t *testing.T) {
	var r router.Router
	a, b := router.NewLive("m/1", "", &model{}), router.NewLive("m/2", "", &model{})
	s := table(a, b)
	s.Canaries = map[serving.EndpointURL]*router.Canary{"c": router.NewCanary("c", []*router.Live{a, b}, []float64{1, 3}, "")}
	r.Swap(s)
	for _, url := range []serving.EndpointURL{"m/1", "c"} {
		allocs := testing.AllocsPerRun(1000, func() {
			live, err := r.Acquire(url)
			if err != nil {
				t.Fatal(err)
			}
			live.Release()
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", url, allocs)
		}
	}
}

func BenchmarkAcquire(b *testing.B) {
	var r router.Router
	r.Swap(table(router.NewLive("m/1", "", &model{})))
	b.ReportAllocs()
	for b.Loop() {
		live, err := r.Acquire("m/1")
		if err != nil {
			b.Fatal(err)
		}
		live.Release()
	}
}

func TestWhatIsToldOfACanaryIsOfItsLargestShare(t *testing.T) {
	a, b, c := router.NewLive("a", "", &model{}), router.NewLive("b", "", &model{}), router.NewLive("c", "", &model{})
	s := table(a, b, c)
	s.Canaries = map[serving.EndpointURL]*router.Canary{
		"x": router.NewCanary("x", []*router.Live{a, b, c}, []float64{0.1, 0.6, 0.3}, ""),
		"y": router.NewCanary("y", []*router.Live{c, a}, []float64{1, 1}, ""),
		"z": router.NewCanary("z", nil, nil, ""),
	}
	var r router.Router
	r.Swap(s)
	for url, want := range map[serving.EndpointURL]*router.Live{"x": b, "y": c, "a": a} {
		for range 20 {
			if live, err := r.Main(url); err != nil || live != want {
				t.Fatalf("%s: %v %v", url, live, err)
			} else {
				live.Release()
			}
		}
	}
	if _, err := r.Main("z"); err == nil {
		t.Error("a canary without a target")
	}
	if _, err := r.Main("nobody"); !errors.Is(err, router.ErrUnknown) {
		t.Error(err)
	}
}

// signed tells a signature that may change.
type signed struct {
	model

	source string
}

func (m *signed) Signature() engine.Signature { return engine.Signature{Source: m.source} }

func TestTheReportOfASignatureIsMadeOnce(t *testing.T) {
	live := router.NewLive("m", "", &signed{source: "test"})
	made := 0
	report := func() string {
		return live.SignatureReport(func(s engine.Signature) *serving.SignatureReport {
			made++
			return &serving.SignatureReport{Source: s.Source}
		}).Source
	}
	live.Describe(engine.Signature{Source: "first"}, nil)
	for range 3 {
		if got := report(); got != "first" || made != 1 {
			t.Errorf("%s, made %d times", got, made)
		}
	}
	live.Describe(engine.Signature{Source: "second"}, nil)
	if got := report(); got != "second" || made != 2 {
		t.Errorf("%s, made %d times", got, made)
	}
}
