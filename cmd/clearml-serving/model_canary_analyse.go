package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"clearmlserving/canary"
	"clearmlserving/serving"
)

// analysis is what the rules of a canary make of recorded requests.
type analysis struct {
	candidate, baseline serving.EndpointURL
	rules               canary.Rules
	judge               *canary.Judge
	shown               canary.Reached
	other               int       // requests that other endpoints have answered
	first, last         time.Time // of the requests
	back                *decided  // nil: it would not have been taken back
}

// decided is the moment of a decision.
type decided struct {
	at       time.Time
	decision canary.Decision
	evidence canary.Evidence
}

// analyseCanary tells what the rules would have done with recorded requests. Recordings have no latencies,
// and not the share with which the router drew: the observed share of each second takes its place.
func (a *app) analyseCanary(file string, c serving.Canary, rules canary.Rules) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	exchanges, err := serving.ParseExchanges(data)
	if err != nil {
		return hint(fmt.Errorf("%s: %w", file, err), "Try: clearml-serving model record --endpoint %s   (records the requests to a canary)", firstOf(c.Endpoint, "CANARY"))
	}
	an := analysis{rules: rules, judge: canary.NewJudge(rules), shown: canary.Reached{}}
	if err := an.arms(c, exchanges); err != nil {
		return err
	}
	slices.SortStableFunc(exchanges, func(x, y serving.Exchange) int { return x.Time.Compare(y.Time) })
	an.run(exchanges)
	return a.printAnalysis(&an)
}

// arms finds out who candidate and baseline are: as named, else the two endpoints that have answered,
// the newer one first.
func (an *analysis) arms(c serving.Canary, exchanges []serving.Exchange) error {
	names := c.LoadEndpoints
	if len(names) == 0 {
		found := map[serving.EndpointURL]bool{}
		for _, e := range exchanges {
			found[cmp.Or(e.AnsweredBy, e.Endpoint)] = true
		}
		for _, url := range serving.NewestFirst(keys(found)) {
			names = append(names, string(url))
		}
	}
	if len(names) != 2 {
		return hint(fmt.Errorf("%d endpoints have answered the recorded requests, and two are compared", len(names)), "Try: --input-endpoints CANDIDATE BASELINE")
	}
	an.candidate, an.baseline = serving.CleanURL(names[0]), serving.CleanURL(names[1])
	return nil
}

// run gives the requests to the rules, second by second.
func (an *analysis) run(exchanges []serving.Exchange) {
	var b canary.Batch
	flush := func(at time.Time) {
		c, base := b.Canary.Requests, b.Baseline.Requests
		if c == 0 || base == 0 {
			return // carried over: the observed share must leave a draw
		}
		b.Share = float64(c) / float64(c+base)
		an.judge.Observe(b)
		b = canary.Batch{}
		d := canary.Decide(an.rules, an.judge.Evidence, an.shown, 1, canary.FewErrors)
		if d.Verdict == canary.RollBack && an.back == nil {
			an.back = &decided{at, d, an.judge.Evidence.Clone()}
		}
	}
	for _, e := range exchanges {
		if !an.last.IsZero() && !e.Time.Truncate(time.Second).Equal(an.last.Truncate(time.Second)) {
			flush(an.last)
		}
		arm := &b.Canary
		switch cmp.Or(e.AnsweredBy, e.Endpoint) {
		case an.candidate:
		case an.baseline:
			arm = &b.Baseline
		default:
			an.other++
			continue
		}
		if an.first.IsZero() {
			an.first = e.Time
		}
		an.last = e.Time
		arm.Requests++
		switch {
		case e.Status >= 500:
			arm.Errors++
		case e.Status >= 400:
			arm.ClientErrors++
		}
	}
	flush(an.last)
}

func (a *app) printAnalysis(an *analysis) error {
	e := an.judge.Evidence
	log, rule := e.Weigh()
	verdict, reason := string(canary.NotKnown), ""
	delta, known := an.shown[canary.FewErrors]
	switch {
	case an.back != nil:
		verdict = string(canary.RollBack)
		reason = fmt.Sprintf("after %s and %d requests of the candidate: rule %s", an.back.at.Sub(an.first).Round(time.Second), an.back.evidence.Canary.Requests, an.back.decision.Culprit)
	case known && delta <= canary.FewErrors.Allowed():
		verdict = string(canary.GoOn)
	}
	a.print.table([]string{"", "REQUESTS", "ERRORS", "CLIENT ERRORS"}, [][]string{
		{"candidate " + string(an.candidate), fmt.Sprint(e.Canary.Requests), fmt.Sprint(e.Canary.Errors), fmt.Sprint(e.Canary.ClientErrors)},
		{"baseline " + string(an.baseline), fmt.Sprint(e.Baseline.Requests), fmt.Sprint(e.Baseline.Errors), fmt.Sprint(e.Baseline.ClientErrors)},
	})
	a.print.line("\n%s", joinNotes([]string{"Verdict: " + verdict, reason}))
	a.print.line("Evidence against the candidate: %.0f %% of what a rollback needs", max(0, 100*log/-math.Log(an.rules.Bound())))
	worse := any(nil)
	if known {
		worse = delta
		a.print.line("The candidate has at most %s more requests with an error, with 95 %% confidence", percentOf(delta))
	} else {
		a.print.line("How many more errors the candidate has at most is not known yet")
	}
	if an.other > 0 {
		a.print.notice("Notice: %s of other endpoints not counted", plural(an.other, "request"))
	}
	a.print.line("Recordings have no latencies: they are not compared")
	result := object{
		{"candidate", string(an.candidate)},
		{"baseline", string(an.baseline)},
		{"verdict", verdict},
		{"candidate_requests", e.Canary.Requests},
		{"candidate_errors", e.Canary.Errors},
		{"candidate_client_errors", e.Canary.ClientErrors},
		{"baseline_requests", e.Baseline.Requests},
		{"baseline_errors", e.Baseline.Errors},
		{"baseline_client_errors", e.Baseline.ClientErrors},
		{"evidence", log},
		{"evidence_limit", -math.Log(an.rules.Bound())},
		{"rule", string(rule)},
		{"at_most_worse", worse},
	}
	if an.back != nil {
		result = append(result, field{"at", stamp(an.back.at)}, field{"after_candidate_requests", an.back.evidence.Canary.Requests})
	}
	return a.print.result(result)
}
