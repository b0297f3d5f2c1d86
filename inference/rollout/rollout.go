// Package rollout decides about canaries with steps. Each instance counts its own requests, judges
// them with package canary, and stores the evidence on its task. The instance with the smallest task id
// among those alive adds the evidence of all instances up and stores the decisions. A decision names the
// state that it is about, so that two deciders do no harm.
package rollout

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/canary"
	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Querier evaluates PromQL; timeseries.Querier has this method.
type Querier interface {
	Query(ctx context.Context, expr string, at time.Time) (model.Vector, error)
}

// Options of a Decider.
type Options struct {
	Client *clearml.Client
	// Query evaluates guards. nil: guards are not known.
	Query Querier
	// HTTP calls webhooks. nil: they fail.
	HTTP *http.Client
	// Changed is called after a decision was stored, nil for none.
	Changed func()
	Logger  *slog.Logger
}

// Decider is the part of one instance. It is a follower of the plan.
type Decider struct {
	o       Options
	running sync.WaitGroup // stores of decisions

	mu        sync.Mutex // guards the rest
	arms      func() map[serving.EndpointURL]*router.Arms
	serviceID string
	task      string // of this instance, "" until it is known
	leads     bool
	answered  time.Time // when the control plane answered last
	trials    map[serving.EndpointURL]*trial
	resumed   bool // the evidence of an earlier process on the same task has been read
}

// trial is one rollout with its evidence.
type trial struct {
	rollout  serving.Rollout
	judge    *canary.Judge
	arms     []*router.Arms // the last one is drawn from now
	others   canary.Evidence
	shown    canary.Reached
	guards   guardState
	guarded  time.Time // when the guards were evaluated
	last     canary.Decision
	all      canary.Evidence // of all instances
	observed time.Time
	stored   string    // a mark of the evidence that is on the task
	storing  bool      // a decision is being stored, or the plan does not have it yet
	retry    time.Time // no decision before
}

const (
	tick = 100 * time.Millisecond
	// exchangeEvery is the time between two exchanges of evidence with an embedded server;
	// exchangeSlow with others.
	exchangeEvery = time.Second
	exchangeSlow  = 3 * time.Second
	// alone is how long an instance waits for the control plane until it judges by itself.
	alone = 10 * time.Second
	// maxArms is how many sets of arms of a rollout are read: requests of a former share may still end.
	maxArms = 8
)

// New returns a Decider. Arms must be called before Run.
func New(o Options) *Decider {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Decider{o: o, trials: map[serving.EndpointURL]*trial{}}
}

// Arms sets where the counts are.
func (d *Decider) Arms(arms func() map[serving.EndpointURL]*router.Arms) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arms = arms
}

// Opened sets the instance's task.
func (d *Decider) Opened(task string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.task = task
}

// Planned implements reconcile.Follower.
func (d *Decider) Planned(state *reconcile.State, plan serving.Plan, _ bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serviceID = state.ServiceID
	maps.DeleteFunc(d.trials, func(url serving.EndpointURL, t *trial) bool {
		r, ok := plan.Rollouts[url]
		return !ok || r.ID != t.rollout.ID
	})
	for url, r := range plan.Rollouts {
		t := d.trials[url]
		if t == nil {
			t = &trial{judge: canary.NewJudge(rules(r)), shown: canary.Reached{}, observed: time.Now()}
			if conditional(r) { // after a restart, the evidence alone would permit a step, or end a freeze
				t.guards = guardState{unknown: "the conditions have not been evaluated yet", unasked: true}
			}
			d.trials[url] = t
		}
		if t.rollout.Phase != r.Phase || t.rollout.Step != r.Step {
			t.storing = false
		}
		t.rollout = r
	}
}

// StatusChanged implements reconcile.Follower.
func (d *Decider) StatusChanged(func() serving.Status) {}

func rules(r serving.Rollout) canary.Rules {
	return canary.Rules{Alpha: r.Alpha, Tolerance: r.Tolerance}
}

// Busy reports whether a rollout is active.
func (d *Decider) Busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.busy()
}

func (d *Decider) busy() bool {
	for _, t := range d.trials {
		if t.rollout.Active() {
			return true
		}
	}
	return false
}

// Run counts and decides until ctx ends.
func (d *Decider) Run(ctx context.Context, _ func() serving.Status) error {
	d.running.Go(func() { d.exchangeLoop(ctx) })
	d.running.Go(func() { d.guardLoop(ctx) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			d.running.Wait()
			d.observe(time.Now()) // the last requests
			d.lastWords(ctx)
			return nil
		case now := <-ticker.C:
			d.observe(now)
			d.decideAll(ctx)
		}
	}
}

// observe takes the counts since the last time.
func (d *Decider) observe(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.arms == nil || !d.busy() {
		return
	}
	present := d.arms()
	for url, t := range d.trials {
		if !t.rollout.Active() {
			t.arms = nil
			continue
		}
		if a := present[url]; a != nil && a.Rollout == t.rollout.ID && !slices.Contains(t.arms, a) {
			t.arms = append(t.arms, a)
			t.arms = t.arms[max(0, len(t.arms)-maxArms):]
		}
		elapsed := now.Sub(t.observed)
		t.observed = now
		for _, a := range t.arms {
			c, b := a.Take()
			t.judge.Observe(canary.Batch{Share: a.Share, Canary: c, Baseline: b, Elapsed: elapsed})
			elapsed = 0
		}
		t.all = t.others.Clone()
		t.all.Merge(t.judge.Evidence)
		next, _ := t.rollout.Next()
		clauses := canary.AllClauses()
		if t.rollout.Step == serving.MirrorStep {
			clauses = []canary.Clause{canary.FewErrors} // copies wait in a queue of their own
		}
		t.last = canary.Decide(rules(t.rollout), t.all, t.shown, next, clauses...)
	}
}

// decideAll begins to store the decisions that are due.
func (d *Decider) decideAll(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if !d.leads && now.Sub(d.answered) < alone {
		return
	}
	for url, t := range d.trials {
		if t.storing && t.last.Verdict == canary.RollBack && t.guards.frozen == "" && len(t.arms) > 0 {
			t.arms[len(t.arms)-1].Withdraw() // a webhook is being asked about a step
		}
		if t.storing || now.Before(t.retry) {
			continue
		}
		m := decide(t.rollout, t.last, t.guards, d.o.Client.ServerTime())
		if m == nil {
			continue
		}
		t.storing = true
		if m.Phase == serving.RolloutRolledBack && len(t.arms) > 0 {
			t.arms[len(t.arms)-1].Withdraw() // at once: the control plane may be slow, or away
		}
		d.o.Logger.Info("canary decision", "canary", url, "phase", m.Phase, "step", m.Step, "reason", m.Note,
			"candidate_requests", t.all.Canary.Requests, "candidate_errors", t.all.Canary.Errors,
			"baseline_requests", t.all.Baseline.Requests, "baseline_errors", t.all.Baseline.Errors)
		service := d.serviceID
		d.running.Go(func() { d.store(ctx, service, url, *m) })
	}
}

// Report describes the rollout of a canary, nil if it has none.
func (d *Decider) Report(url serving.EndpointURL) *serving.RolloutReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trials[url]
	if t == nil {
		return nil
	}
	r := t.rollout
	report := &serving.RolloutReport{
		Candidate: r.Candidate, Baseline: r.Baseline, Phase: r.Phase, Step: r.Step + 1, Steps: r.Steps, Share: r.Share(), Since: r.Since,
		Verdict: string(t.last.Verdict), Evidence: t.last.Evidence, Limit: -math.Log(rules(r).Bound()), Rule: string(t.last.Culprit),
		Rules: map[string]float64{}, AtMostWorse: map[string]float64{},
		Requests: t.all.Canary.Requests, Errors: t.all.Canary.Errors, BaselineRequests: t.all.Baseline.Requests, BaselineErrors: t.all.Baseline.Errors,
		Decides: d.leads, Note: note(t),
	}
	if report.Verdict == "" {
		report.Verdict = string(canary.NotKnown)
	}
	for _, rule := range canary.AllRules() {
		report.Rules[string(rule)] = t.all.Rule(rule)
	}
	for c, delta := range t.shown {
		report.AtMostWorse[string(c)] = delta
	}
	for _, c := range t.last.Missing {
		report.Missing = append(report.Missing, string(c))
	}
	return report
}

// note says what a person should know about a rollout.
func note(t *trial) string {
	if len(t.rollout.Events) > 0 && t.rollout.Phase != serving.RolloutRunning {
		return t.rollout.Events[len(t.rollout.Events)-1].Note
	}
	return waits(t.last, t.guards)
}
