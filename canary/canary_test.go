package canary_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"
	"time"

	"clearmlserving/canary"
)

// golden is a stream of batches with the values that testdata/golden.py computes from the formulas.
type golden struct {
	Tolerance float64
	Batches   []struct {
		Share            float64
		Canary, Baseline struct {
			Requests     uint64
			Errors       uint64
			ClientErrors uint64 `json:"client_errors"`
			Latencies    map[int]uint32
		}
	}
	Rules    map[canary.Rule]float64
	Evidence float64
	Clauses  map[canary.Clause][]float64
}

func goldens(t *testing.T) (all []golden) {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (g golden) batch(i int) canary.Batch {
	b := g.Batches[i]
	spread := func(counts map[int]uint32) []uint32 {
		bins := make([]uint32, canary.Bins)
		for bin, n := range counts {
			bins[bin] = n
		}
		return bins
	}
	return canary.Batch{
		Share: b.Share, Elapsed: 100 * time.Millisecond,
		Canary:   canary.Arm{Requests: b.Canary.Requests, Errors: b.Canary.Errors, ClientErrors: b.Canary.ClientErrors, Latencies: spread(b.Canary.Latencies)},
		Baseline: canary.Arm{Requests: b.Baseline.Requests, Errors: b.Baseline.Errors, ClientErrors: b.Baseline.ClientErrors, Latencies: spread(b.Baseline.Latencies)},
	}
}

func mixture(l []float64) float64 {
	sum := 0.0
	for _, v := range l {
		sum += math.Exp(v)
	}
	return math.Log(sum / float64(len(l)))
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

func TestEvidenceIsThatOfTheFormulas(t *testing.T) {
	for n, g := range goldens(t) {
		j := canary.NewJudge(canary.Rules{Tolerance: g.Tolerance})
		for i := range g.Batches {
			j.Observe(g.batch(i))
		}
		for rule, want := range g.Rules {
			if got := j.Evidence.Rule(rule); !near(got, want) {
				t.Errorf("stream %d: rule %s: %v, want %v", n, rule, got, want)
			}
		}
		if got, _ := j.Evidence.Weigh(); !near(got, g.Evidence) {
			t.Errorf("stream %d: evidence %v, want %v", n, got, g.Evidence)
		}
		for clause, want := range g.Clauses {
			for i := range want {
				if got := mixture(j.Evidence.For[clause][i]); !near(got, want[i]) {
					t.Errorf("stream %d: clause %s within %v: %v, want %v", n, clause, clause.Deltas()[i], got, want[i])
				}
			}
		}
	}
}

func TestNoTrafficChangesNothing(t *testing.T) {
	j := canary.NewJudge(canary.Rules{})
	for range 1000 {
		j.Observe(canary.Batch{Share: 0.1, Elapsed: time.Hour})
	}
	d := canary.Decide(canary.Rules{}, j.Evidence, canary.Reached{}, 1, canary.AllClauses()...)
	if d.Verdict != canary.NotKnown || !near(d.Evidence, 0) || len(d.Missing) != len(canary.AllClauses()) {
		t.Errorf("%+v", d)
	}
}

func TestRequestsWithoutADrawAreNotCounted(t *testing.T) {
	for _, share := range []float64{0, 1, math.NaN(), -1, 2} {
		j := canary.NewJudge(canary.Rules{})
		j.Observe(canary.Batch{Share: share, Canary: canary.Arm{Requests: 1000, Errors: 1000}})
		if j.Evidence.Canary.Requests != 0 || j.Evidence.Rule(canary.Errors) != 0 {
			t.Errorf("share %v: %+v", share, j.Evidence)
		}
	}
}

// A few requests never decide: the number of errors of a canary with a clean baseline.
func TestAFewErrorsNeverDecide(t *testing.T) {
	for share, least := range map[float64]int{0.01: 2, 0.05: 3, 0.1: 3, 0.5: 9} {
		j := canary.NewJudge(canary.Rules{})
		for n := 1; ; n++ {
			j.Observe(canary.Batch{Share: share, Canary: canary.Arm{Requests: 1, Errors: 1}})
			if canary.Decide(canary.Rules{}, j.Evidence, canary.Reached{}, 1, canary.AllClauses()...).Verdict == canary.RollBack {
				if n < least || n > least+2 {
					t.Errorf("share %v: %d errors decide, want about %d", share, n, least)
				}
				break
			}
		}
	}
}

// One incident never decides: a process that dies takes all its requests with it.
func TestOneBatchNeverDecides(t *testing.T) {
	for _, share := range []float64{0.01, 0.1, 0.5} {
		j := canary.NewJudge(canary.Rules{})
		j.Observe(canary.Batch{Share: share, Canary: canary.Arm{Requests: 1000, Errors: 1000}})
		if canary.Decide(canary.Rules{}, j.Evidence, canary.Reached{}, 1, canary.AllClauses()...).Verdict == canary.RollBack {
			t.Errorf("share %v: one batch decides", share)
		}
	}
}

func TestABurstInBothArmsCancels(t *testing.T) {
	j := canary.NewJudge(canary.Rules{})
	for range 100 {
		j.Observe(canary.Batch{Share: 0.1, Canary: canary.Arm{Requests: 10, Errors: 10}, Baseline: canary.Arm{Requests: 90, Errors: 90}})
	}
	if log, _ := j.Evidence.Weigh(); log > 0 {
		t.Errorf("evidence %v", log)
	}
}

// The evidence of two instances is that of one instance with the requests of both.
func TestEvidenceOfInstancesAddsUp(t *testing.T) {
	g := goldens(t)[1]
	one := canary.NewJudge(canary.Rules{})
	parts := []*canary.Judge{canary.NewJudge(canary.Rules{}), canary.NewJudge(canary.Rules{})}
	for i := range g.Batches {
		b := g.batch(i)
		b.Canary.Latencies, b.Baseline.Latencies = nil, nil // each instance has thresholds of its own
		one.Observe(b)
		parts[i%2].Observe(b)
	}
	var sum canary.Evidence
	for _, p := range parts {
		sum.Merge(stored(t, p.Evidence))
	}
	want, _ := one.Evidence.Weigh()
	if got, _ := sum.Weigh(); !near(got, want) || sum.Canary != one.Evidence.Canary || sum.Baseline != one.Evidence.Baseline {
		t.Errorf("%v, want %v; %+v, want %+v", got, want, sum.Canary, one.Evidence.Canary)
	}
	for i := range one.Evidence.For[canary.FewErrors] {
		if !near(mixture(sum.For[canary.FewErrors][i]), mixture(one.Evidence.For[canary.FewErrors][i])) {
			t.Error("the clauses differ")
		}
	}
}

// stored is the evidence after it was written and read.
func stored(t *testing.T, e canary.Evidence) (read canary.Evidence) {
	t.Helper()
	text, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestUnusableEvidenceIsLeftOut(t *testing.T) {
	var e canary.Evidence
	e.Merge(canary.Evidence{Against: map[canary.Rule][]float64{canary.Errors: {1, 2}}})
	e.Merge(canary.Evidence{
		Against: map[canary.Rule][]float64{canary.Errors: {5}, "unknown": {1000}, canary.Slower50: {math.Inf(1), math.NaN()}},
		For:     map[canary.Clause][][]float64{canary.FewErrors: {{1000}}, "unknown": {{1}}},
	})
	log, _ := e.Weigh()
	if want := math.Log(0.3*(math.Exp(1)+math.Exp(2))/2 + 0.7); !near(log, want) {
		t.Errorf("%v, want %v", log, want)
	}
	if _, ok := e.AtMostWorse(canary.FewErrors); ok {
		t.Error("foreign evidence was taken")
	}
}

func TestStepsNeedLessThanThePromotion(t *testing.T) {
	for share, want := range map[float64]float64{0.01: .10, 0.05: .10, 0.1: .10, 0.2: .05, 0.25: .02, 0.5: .02, 0.75: .01, 1: .01} {
		if got := canary.FewErrors.Deltas()[canary.FewErrors.Needed(share)]; got != want {
			t.Errorf("share %v needs %v, want %v", share, got, want)
		}
	}
}

func TestBinsOfLatencies(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Microsecond, 100 * time.Microsecond, 101 * time.Microsecond, time.Millisecond, 50 * time.Millisecond, time.Second, time.Minute, 5 * time.Minute} {
		bin := canary.Bin(latency)
		if end := canary.BinEnd(bin); end+time.Nanosecond < latency {
			t.Errorf("%v is in bin %d, which ends at %v", latency, bin, end)
		}
		if bin > 0 && canary.BinEnd(bin-1) >= latency {
			t.Errorf("%v is in bin %d, and the one before ends at %v", latency, bin, canary.BinEnd(bin-1))
		}
	}
	if canary.Bin(24*time.Hour) != canary.Bins-1 {
		t.Error("a day is not in the last bin")
	}
}
