// Package canary decides from counted requests whether a canary is worse than its baseline, or as
// good. The tests are sequential: their error bounds hold however often they are looked at. The
// package is pure: it counts nothing by itself and does no I/O.
//
// The router draws the arm of each request with a known probability w. If the arms are equal, an
// error belongs to the canary with probability w, however the rate of errors changes with time. A
// rule bets on these labels: its evidence is the wealth of a bettor who begins with 1. If the canary is not
// worse, the wealth ever reaches 1/alpha with a probability of at most alpha (Ville's inequality).
package canary

import (
	"math"
	"slices"
	"time"
)

// Defaults of Rules, and the constant error of promotions.
const (
	DefaultAlpha     = 0.01
	DefaultTolerance = 1
	// Beta bounds the share of promotions of a canary that is worse than the promotion allows.
	Beta = 0.05
)

// Rules are the settings of the decision.
type Rules struct {
	// Alpha bounds the probability of a rollback of a canary that is not worse, over the whole
	// rollout. 0: DefaultAlpha.
	Alpha float64
	// Tolerance is how many times the baseline's errors, or slow answers, a canary may have without a
	// rollback, at least 1. 0: DefaultTolerance.
	Tolerance float64
}

// Bound is Alpha, or its default.
func (r Rules) Bound() float64 {
	if r.Alpha <= 0 {
		return DefaultAlpha
	}
	return r.Alpha
}

func (r Rules) tolerance() float64 { return max(r.Tolerance, DefaultTolerance) }

// Arm has the requests of one arm that have ended since the batch before.
type Arm struct {
	// Requests counts all of them, Errors and ClientErrors those with such an outcome.
	Requests, Errors, ClientErrors uint64
	// Latencies counts the requests without an error by the bin of their latency; see Bin. nil: there
	// are none.
	Latencies []uint32
}

// Batch has the requests of a short time, 100 ms for example, in which the canary had a constant
// share of the draws. Only requests with a draw are counted, by the arm that was drawn.
type Batch struct {
	Share            float64 // the probability with which the canary was drawn
	Canary, Baseline Arm
	// Elapsed is the time since the batch before.
	Elapsed time.Duration
}

// Rule names a rule of the rollback.
type Rule string

// The rules, and their weights: the share of alpha that each has when the others see nothing.
const (
	Errors       Rule = "errors"        // more answers of status 500 and above, time-outs and refusals
	ClientErrors Rule = "client_errors" // more answers of user code of status 400 to 499
	Slower50     Rule = "slower_p50"    // more answers that are slower than the median of the baseline
	Slower90     Rule = "slower_p90"
	Slower99     Rule = "slower_p99"
)

// AllRules lists the rules.
func AllRules() []Rule { return []Rule{Errors, ClientErrors, Slower50, Slower90, Slower99} }

// Weight is the rule's share of alpha.
func (r Rule) Weight() float64 {
	switch r {
	case Errors:
		return 0.3
	case ClientErrors:
		return 0.2
	case Slower50:
		return 0.3
	case Slower90, Slower99:
		return 0.1
	}
	return 0
}

// slower are the rules of latency with the quantiles of the baseline that they watch.
//
//nolint:gochecknoglobals // constant tables
var (
	slower = [...]struct {
		rule     Rule
		quantile float64
	}{{Slower50, 0.50}, {Slower90, 0.90}, {Slower99, 0.99}}

	// risks are the relative risks that a rule bets on, in equal parts.
	risks = []float64{1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 6, 10, 20, 50, 200, 1000}
	// slowRisks is how many of them a rule of latency bets on.
	slowRisks = 13

	// fractions of the wealth that a promotion bets, in equal parts.
	fractions = []float64{.02, .05, .1, .2, .35, .5, .7, .9, .99}
)

// grid has the risks of a rule that exceed the tolerance.
func grid(rule Rule, tolerance float64) []float64 {
	all := risks
	if rule != Errors && rule != ClientErrors {
		all = risks[:slowRisks]
	}
	for i, r := range all {
		if r > tolerance {
			return all[i:]
		}
	}
	return nil
}

// Clause names a comparison that a promotion needs: the canary's rate exceeds the baseline's by less
// than a difference.
type Clause string

// The clauses.
const (
	FewErrors Clause = "errors" // of both kinds: a ValueError of user code is an answer of status 422
	Fast90    Clause = "slower_p90"
	Fast99    Clause = "slower_p99"
)

// AllClauses lists the clauses.
func AllClauses() []Clause { return []Clause{FewErrors, Fast90, Fast99} }

// Deltas are the differences of a clause that are tested, increasing. A difference of 0.01 is one
// request in a hundred.
func (c Clause) Deltas() []float64 {
	switch c {
	case FewErrors:
		return []float64{.001, .002, .005, .01, .02, .05, .10}
	case Fast90:
		return []float64{.05, .10, .20, .50}
	case Fast99:
		return []float64{.01, .02, .05, .10}
	}
	return nil
}

// Allowed is the difference that a promotion to all requests allows.
func (c Clause) Allowed() float64 {
	if c == Fast90 {
		return .05
	}
	return .01
}

// Needed is the index in Deltas of the difference that a step to this share needs: share times
// difference is at most what a promotion allows, so that a step puts no more requests at risk than
// the promotion.
func (c Clause) Needed(share float64) int {
	deltas := c.Deltas()
	for i, delta := range slices.Backward(deltas) {
		if share*delta <= c.Allowed()*(1+1e-9) {
			return i
		}
	}
	return 0
}

// Evidence is what a rollout has learnt of a canary. The evidence of several instances is the
// sum of theirs: each instance compares its arms with each other, and latencies with the quantiles of its own
// baseline. The zero value has learnt nothing.
type Evidence struct {
	// Against has, for each rule, the logarithm of the wealth for each relative risk.
	Against map[Rule][]float64 `json:"against,omitempty"`
	// For has, for each clause and each difference, the logarithm of the wealth for each fraction.
	For map[Clause][][]float64 `json:"for,omitempty"`
	// Canary and Baseline count the requests.
	Canary   Totals `json:"canary"`
	Baseline Totals `json:"baseline"`
}

// Totals are the counted requests of one arm.
type Totals struct {
	Requests     uint64 `json:"requests"`
	Errors       uint64 `json:"errors,omitempty"`
	ClientErrors uint64 `json:"client_errors,omitempty"`
}

func (t *Totals) add(requests, errors, clientErrors uint64) {
	t.Requests += requests
	t.Errors += errors
	t.ClientErrors += clientErrors
}

// Merge adds the evidence of another instance, or of an earlier time. Evidence of another form, of
// another release or other rules, is left out; its requests are counted.
func (e *Evidence) Merge(o Evidence) {
	e.Canary.add(o.Canary.Requests, o.Canary.Errors, o.Canary.ClientErrors)
	e.Baseline.add(o.Baseline.Requests, o.Baseline.Errors, o.Baseline.ClientErrors)
	for rule, of := range o.Against {
		addTo(e.wealth(rule, len(of)), of)
	}
	for clause, of := range o.For {
		mine := e.clause(clause)
		if len(of) != len(mine) {
			continue
		}
		for i := range of {
			addTo(mine[i], of[i])
		}
	}
}

// Clone returns a copy.
func (e Evidence) Clone() Evidence {
	var c Evidence
	c.Merge(e)
	return c
}

func addTo(to, from []float64) {
	if len(to) != len(from) {
		return
	}
	for i, v := range from {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		to[i] += v
	}
}

func (e *Evidence) wealth(rule Rule, n int) []float64 {
	if e.Against == nil {
		e.Against = map[Rule][]float64{}
	}
	if e.Against[rule] == nil {
		e.Against[rule] = make([]float64, n)
	}
	return e.Against[rule]
}

func (e *Evidence) clause(c Clause) [][]float64 {
	if e.For == nil {
		e.For = map[Clause][][]float64{}
	}
	if e.For[c] == nil {
		all := make([][]float64, len(c.Deltas()))
		for i := range all {
			all[i] = make([]float64, len(fractions))
		}
		e.For[c] = all
	}
	return e.For[c]
}

// Rule is the logarithm of the evidence of one rule against the canary.
func (e Evidence) Rule(rule Rule) float64 {
	l := e.Against[rule]
	if len(l) == 0 {
		return 0
	}
	return logSumExp(l) - math.Log(float64(len(l)))
}

// Weigh is the logarithm of the evidence of all rules against the canary, and the rule with the
// largest part.
func (e Evidence) Weigh() (log float64, culprit Rule) {
	var parts []float64
	most := math.Inf(-1)
	for _, rule := range AllRules() {
		part := e.Rule(rule) + math.Log(rule.Weight())
		parts = append(parts, part)
		if part > most {
			most, culprit = part, rule
		}
	}
	return logSumExp(parts), culprit
}

// AtMostWorse is the smallest difference of a clause for which it is shown, with an error of Beta, that the
// canary is worse by less. ok is false if there is none yet.
func (e Evidence) AtMostWorse(c Clause) (delta float64, ok bool) {
	for i, l := range e.For[c] {
		if len(l) > 0 && logSumExp(l)-math.Log(float64(len(l))) >= math.Log(1/Beta) && i < len(c.Deltas()) {
			return c.Deltas()[i], true
		}
	}
	return 0, false
}

// logSumExp is the logarithm of the sum of exp(l).
func logSumExp(l []float64) float64 {
	most := slices.Max(l)
	sum := 0.0
	for _, v := range l {
		sum += math.Exp(v - most)
	}
	return most + math.Log(sum)
}

// Verdict is an answer of Decide.
type Verdict string

// The answers.
const (
	NotKnown Verdict = "not known yet"
	RollBack Verdict = "roll back"
	GoOn     Verdict = "go on"
)

// Decision is an answer with its reasons.
type Decision struct {
	Verdict Verdict
	// Evidence is the logarithm of the evidence against the canary; Culprit is the rule with the
	// largest part.
	Evidence float64
	Culprit  Rule
	// Missing are the clauses that the step still needs, for NotKnown.
	Missing []Clause
}

// Reached are the claims that have been shown once: a claim that held stays shown, because the
// error of a sequential test is that of its first success. Keys are clauses, values the smallest differences.
type Reached map[Clause]float64

// Update adds what the evidence shows now.
func (r Reached) Update(e Evidence) {
	for _, c := range AllClauses() {
		if delta, ok := e.AtMostWorse(c); ok {
			if before, ok := r[c]; !ok || delta < before {
				r[c] = delta
			}
		}
	}
}

// Decide answers whether the canary is to be rolled back, or may get the next share, 1 for all
// requests, if these clauses hold. e has the evidence of all instances.
func Decide(rules Rules, e Evidence, shown Reached, next float64, clauses ...Clause) Decision {
	log, culprit := e.Weigh()
	d := Decision{Verdict: NotKnown, Evidence: log, Culprit: culprit}
	if log >= -math.Log(rules.Bound()) {
		d.Verdict = RollBack
		return d
	}
	shown.Update(e)
	for _, c := range clauses {
		needed := c.Deltas()[c.Needed(next)]
		if delta, ok := shown[c]; !ok || delta > needed {
			d.Missing = append(d.Missing, c)
		}
	}
	if len(d.Missing) == 0 && e.Canary.Requests > 0 && e.Baseline.Requests > 0 {
		d.Verdict = GoOn
	}
	return d
}
