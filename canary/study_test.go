package canary_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/canary"
)

// scenario is a kind of rollout of the simulation.
type scenario struct {
	name             string
	rate             float64 // requests per second, of both arms
	share            float64
	canary, baseline float64 // rates of errors
	slower           float64 // factor of the canary's latencies; 0: latencies are not simulated
	tail             float64 // factor of the slowest 5 % of the canary's latencies; 0: 1
	bursts           bool    // both arms: 30 points more errors for 20 s in 10 minutes, and a common load
	horizon          time.Duration
	// What must hold: the share of rollouts that are rolled back or promoted, the median of the
	// canary's requests until the rollback.
	rolledBack, promoted, median float64
	rollback                     bool // it is worse: every rollout is rolled back
	promotion                    bool // promotions are looked at, until the horizon
}

// The common rates of errors and the spread of latencies: lognormal, median 50 ms, sigma 0.5.
const (
	medianLatency = 0.05
	sigma         = 0.5
	alpha         = 0.01
)

func scenarios() []scenario {
	var all []scenario
	for _, r := range []struct {
		rate    float64
		horizon time.Duration
	}{{1, 6 * time.Hour}, {10, time.Hour}, {1000, 15 * time.Minute}} {
		for _, p := range []float64{0.001, 0.01, 0.05} {
			all = append(all, scenario{name: "equal", rate: r.rate, share: 0.1, canary: p, baseline: p, horizon: r.horizon, rolledBack: alpha})
		}
		all = append(all, scenario{name: "equal, bursts of errors in both", rate: r.rate, share: 0.1, canary: 0.001, baseline: 0.001, bursts: true, horizon: r.horizon, rolledBack: alpha})
	}
	for _, r := range []struct {
		rate    float64
		horizon time.Duration
	}{{1, 2 * time.Hour}, {10, 30 * time.Minute}, {1000, 30 * time.Second}} {
		all = append(all, scenario{name: "equal, with latencies", rate: r.rate, share: 0.1, canary: 0.01, baseline: 0.01, slower: 1, horizon: r.horizon, rolledBack: alpha})
	}
	all = append(all, scenario{name: "equal, with latencies, bursts of errors and of load in both", rate: 10, share: 0.1, canary: 0.01, baseline: 0.01, slower: 1, bursts: true, horizon: 30 * time.Minute, rolledBack: alpha})
	for _, rate := range []float64{1, 10, 100} {
		all = append(all,
			scenario{name: "worse", rate: rate, share: 0.1, canary: 0.06, baseline: 0.01, horizon: 24 * time.Hour, rollback: true, median: 200},
			scenario{name: "worse", rate: rate, share: 0.1, canary: 0.03, baseline: 0.01, horizon: 48 * time.Hour, rollback: true, median: 800},
			scenario{name: "median latency ×1.5", rate: rate, share: 0.1, canary: 0.01, baseline: 0.01, slower: 1.5, horizon: 2 * time.Hour, rollback: true, median: 60},
		)
	}
	all = append(all,
		scenario{name: "slowest 5 % of answers ×2", rate: 10, share: 0.1, canary: 0.01, baseline: 0.01, slower: 1, tail: 2, horizon: 6 * time.Hour, rollback: true, median: 500},
		scenario{name: "broken", rate: 10, share: 0.1, canary: 0.5, baseline: 0.001, horizon: time.Hour, rollback: true, median: 15},
	)
	for _, p := range []float64{0, 0.001, 0.01, 0.05} {
		all = append(all, scenario{name: "one point worse: promoted?", rate: 10, share: 0.1, canary: p + 0.0101, baseline: p, horizon: 2 * time.Hour, promotion: true, promoted: canary.Beta})
	}
	all = append(all, scenario{name: "equal: promoted?", rate: 10, share: 0.1, canary: 0.001, baseline: 0.001, horizon: 2 * time.Hour, promotion: true, promoted: 1})
	return all
}

// outcome is the result of one simulated rollout.
type outcome struct {
	rolledBack, promoted bool
	requests             uint64 // of the canary, until the decision
}

// poisson draws a number with this mean.
func poisson(r *rand.Rand, mean float64) int {
	if mean > 30 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())))
	}
	limit, product, n := math.Exp(-mean), r.Float64(), 0
	for product > limit {
		product *= r.Float64()
		n++
	}
	return n
}

// binomial draws how many of n have an event of probability p, by the gaps between events.
func binomial(r *rand.Rand, n int, p float64) uint64 {
	if p <= 0 || n == 0 {
		return 0
	}
	k, at := uint64(0), 0
	for {
		at += int(math.Log(1-r.Float64())/math.Log1p(-p)) + 1
		if at > n {
			return k
		}
		k++
	}
}

// run simulates one rollout in steps of 100 ms with the code of the product.
func (s scenario) run(seed uint64) outcome {
	const tick = 100 * time.Millisecond
	r := rand.New(rand.NewPCG(seed, 2))
	rules := canary.Rules{Alpha: alpha}
	j := canary.NewJudge(rules)
	shown := canary.Reached{}
	if s.slower > 0 { // the baseline has a history before the canary begins
		j.Observe(canary.Batch{Share: 0.5, Baseline: canary.Arm{Latencies: latencies(r, 600, 1, 0)}})
	}
	burst, load := false, 0.0
	elapsed := time.Duration(0)
	for at := time.Duration(0); at < s.horizon; at += tick {
		elapsed += tick
		if s.bursts {
			if burst {
				burst = r.Float64() > tick.Seconds()/20
			} else {
				burst = r.Float64() < tick.Seconds()/600
			}
			load += -load*tick.Seconds()/60 + 0.4*math.Sqrt(2*tick.Seconds()/60)*r.NormFloat64()
		}
		n := poisson(r, s.rate*tick.Seconds())
		if n == 0 {
			continue
		}
		more := 0.0
		if burst {
			more = 0.3
		}
		c := int(binomial(r, n, s.share))
		b := canary.Batch{Share: s.share, Elapsed: elapsed}
		elapsed = 0
		b.Canary = canary.Arm{Requests: uint64(c), Errors: binomial(r, c, s.canary+more)}
		b.Baseline = canary.Arm{Requests: uint64(n - c), Errors: binomial(r, n-c, s.baseline+more)}
		if s.slower > 0 {
			common := math.Exp(load)
			b.Canary.Latencies = latencies(r, int(b.Canary.Requests-b.Canary.Errors), s.slower*common, s.tail)
			b.Baseline.Latencies = latencies(r, int(b.Baseline.Requests-b.Baseline.Errors), common, 0)
		}
		j.Observe(b)
		if s.promotion {
			// The clause of errors alone decides: latencies can only delay a promotion.
			shown.Update(j.Evidence)
			if delta, ok := shown[canary.FewErrors]; ok && delta <= canary.FewErrors.Allowed() {
				return outcome{promoted: true, requests: j.Evidence.Canary.Requests}
			}
			continue
		}
		if b.Canary.Errors+b.Baseline.Errors == 0 && s.slower == 0 {
			continue // the evidence against the canary is that of before
		}
		if log, _ := j.Evidence.Weigh(); log >= -math.Log(alpha) {
			return outcome{rolledBack: true, requests: j.Evidence.Canary.Requests}
		}
	}
	return outcome{requests: j.Evidence.Canary.Requests}
}

// latencies draws n latencies by their bins. The slowest 5 % are tail times as long.
func latencies(r *rand.Rand, n int, factor, tail float64) []uint32 {
	bins := make([]uint32, canary.Bins)
	for range n {
		z := r.NormFloat64()
		seconds := medianLatency * factor * math.Exp(sigma*z)
		if tail > 0 && z > 1.645 {
			seconds *= tail
		}
		bins[canary.Bin(time.Duration(seconds*1e9))]++
	}
	return bins
}

// simulate runs a scenario many times.
func (s scenario) simulate(rollouts int) (back, promoted, median, p95 float64) {
	results := make([]outcome, rollouts)
	var wait sync.WaitGroup
	const workers = 2
	for w := range workers {
		wait.Go(func() {
			for i := w; i < rollouts; i += workers {
				results[i] = s.run(uint64(i + 1))
			}
		})
	}
	wait.Wait()
	requests := make([]float64, rollouts)
	for i, o := range results {
		requests[i] = math.Inf(1)
		if o.rolledBack {
			back++
		}
		if o.promoted {
			promoted++
		}
		if o.rolledBack || o.promoted {
			requests[i] = float64(o.requests)
		}
	}
	slices.Sort(requests)
	return back / float64(rollouts), promoted / float64(rollouts), requests[rollouts/2], requests[rollouts*95/100]
}

// violation says which promise a scenario breaks, "" for none. slack is for a small number of rollouts.
func (s scenario) violation(back, promoted, median, slack float64) string {
	switch {
	case s.rollback && (back < 1 || median > s.median):
		return fmt.Sprintf("rolled back %.1f %%, median %v canary requests, promised %v", 100*back, median, s.median)
	case s.promotion && promoted > s.promoted+slack:
		return fmt.Sprintf("promoted %.1f %%, promised at most %.1f %%", 100*promoted, 100*s.promoted)
	case !s.rollback && !s.promotion && back > s.rolledBack+slack:
		return fmt.Sprintf("rolled back %.1f %%, promised at most %.1f %%", 100*back, 100*s.rolledBack)
	}
	return ""
}

// TestStudy simulates rollouts. With CANARY_STUDY=1000 it does so as often for each scenario, and
// writes the table of docs/canary.md; else a few times, for a shorter time.
func TestStudy(t *testing.T) {
	rollouts, slack := 20, 0.10
	full := os.Getenv("CANARY_STUDY") != ""
	if full {
		n, err := strconv.Atoi(os.Getenv("CANARY_STUDY"))
		if err != nil || n < 1 {
			t.Fatal("CANARY_STUDY is not a number of rollouts")
		}
		rollouts, slack = n, 0
	}
	var table strings.Builder
	table.WriteString("| canary | requests/s | errors: baseline → canary | rolled back | promoted | canary requests until then: median / 95th percentile | promised |\n|---|---|---|---|---|---|---|\n")
	for _, s := range scenarios() {
		if !full && !s.rollback {
			s.horizon = min(s.horizon, time.Duration(10_000/s.rate*float64(time.Second)))
		}
		back, promoted, median, p95 := s.simulate(rollouts)
		if why := s.violation(back, promoted, median, slack); why != "" {
			t.Errorf("%s, %v requests/s, errors %v -> %v: %s", s.name, s.rate, s.baseline, s.canary, why)
		}
		row := s.row(back, promoted, median, p95)
		t.Log(strings.TrimSpace(row))
		table.WriteString(row)
	}
	if full {
		writeTable(t, rollouts, table.String())
	}
}

func (s scenario) row(back, promoted, median, p95 float64) string {
	percent := func(v float64) string { return strconv.FormatFloat(math.Round(v*1e4)/1e2, 'f', -1, 64) + " %" }
	back1, promoted1, until, promised := percent(back), "", "", ""
	switch {
	case s.rollback:
		until, promised = fmt.Sprintf("%.0f / %.0f", median, p95), fmt.Sprintf("median at most %.0f", s.median)
	case s.promotion:
		back1, promoted1 = "", percent(promoted)
		if s.promoted < 1 {
			promised = "promoted at most " + percent(s.promoted)
		} else {
			until = fmt.Sprintf("%.0f / %.0f", median, p95)
		}
	default:
		promised = "rolled back at most " + percent(s.rolledBack)
	}
	return fmt.Sprintf("| %s | %v | %s → %s | %s | %s | %s | %s |\n", s.name, s.rate, percent(s.baseline), percent(s.canary), back1, promoted1, until, promised)
}

const (
	tableBegin = "<!-- The table is written by: make canary-study -->"
	tableEnd   = "<!-- end of the table -->"
)

func writeTable(t *testing.T, rollouts int, table string) {
	t.Helper()
	const file = "../docs/canary.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	next := fmt.Sprintf("%s%s\n\n%d rollouts in each row.\n\n%s\n%s%s", before, tableBegin, rollouts, table, tableEnd, after)
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
}
