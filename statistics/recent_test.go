package statistics

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/serving"
)

func TestAQuantileIsThatOfTheValues(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same values at each run
	for name, draw := range map[string]func() float64{
		"one value": func() float64 { return 3e6 },
		"spread":    func() float64 { return random.Float64() * 1e8 },
		"a tail":    func() float64 { return random.ExpFloat64() * 1e7 },
		"too long":  func() float64 { return 1e13 },
	} {
		h := histogram{seconds, 0}
		counter := newCounter(h)
		var values []float64
		for range 5000 {
			v := draw()
			values = append(values, min(v, float64(seconds.bounds[len(seconds.bounds)-1])))
			counter.observe(int64(v))
		}
		slices.Sort(values)
		counts, _ := h.of(counter.block.cells)
		for _, share := range []float64{0.5, 0.95, 0.99} {
			got, want := seconds.quantile(counts, 5000, share), values[int(share*5000)-1]
			if got < want*0.9 || got > want*1.1 {
				t.Errorf("%s: quantile %v is %v, want %v", name, share, got, want)
			}
		}
	}
}

func TestRecentForgetsWhatIsOlderThanAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		m.Follow(serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{"m": {}}})
		// mark is called once a second, as in Run.
		pass := func(n int, each func()) {
			for range n {
				each()
				time.Sleep(time.Second)
				m.mark(time.Now())
			}
		}
		expect := func(when string, rate float64, p95 time.Duration) {
			t.Helper()
			gotRate, got := m.Recent("m")
			if gotRate < rate*0.9 || gotRate > rate*1.1 || got < p95*9/10 || got > p95*11/10 {
				t.Errorf("%s: %v a second, 95 of 100 within %s; want %v, %s", when, gotRate, got, rate, p95)
			}
		}
		ask := func(n int, took time.Duration) func() {
			return func() {
				for range n {
					m.Record(serving.Sample{URL: "m", Latency: took, RequestBytes: -1, AnswerBytes: -1})
				}
			}
		}
		if rate, p95 := m.Recent("nobody"); rate != 0 || p95 != 0 {
			t.Errorf("unknown: %v %s", rate, p95)
		}
		expect("at first", 0, 0)
		pass(10, ask(20, time.Second))
		expect("soon", 20, time.Second)
		pass(100, ask(5, 10*time.Millisecond))
		expect("later", 5, 10*time.Millisecond)
		pass(100, func() {})
		expect("without requests", 0, 0)
	})
}
