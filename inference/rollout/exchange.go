package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"clearmlserving/canary"
	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

// record is the stored evidence of one instance: by canary and rollout.
type record map[serving.EndpointURL]recordOf

type recordOf struct {
	Rollout string `json:"rollout"`
	// State is the phase and step that the instance knows, so that a decision is seen by the others
	// before their next poll.
	State    string          `json:"state"`
	Evidence canary.Evidence `json:"evidence"`
}

func stateOf(r serving.Rollout) string { return fmt.Sprintf("%s %d", r.Phase, r.Step) }

// exchangeLoop stores the evidence of this instance and reads that of the others, while a rollout is
// active. It has its own goroutine: a slow control plane delays no decision.
func (d *Decider) exchangeLoop(ctx context.Context) {
	var trouble error
	for {
		wait := exchangeEvery
		if info, err := d.o.Client.Info(ctx); err == nil && !info.Embedded() {
			wait = exchangeSlow
		}
		if retry.Sleep(ctx, wait) != nil {
			return
		}
		if !d.Busy() {
			continue
		}
		err := d.exchange(ctx)
		if err != nil && trouble == nil && ctx.Err() == nil {
			d.o.Logger.Warn("evidence about canaries cannot be exchanged", "err", err)
		}
		trouble = err
	}
}

// exchange stores the evidence of this instance if there is more, and reads that of the others.
func (d *Decider) exchange(ctx context.Context) error {
	d.mu.Lock()
	service, task, resumed := d.serviceID, d.task, d.resumed
	d.mu.Unlock()
	if service == "" || task == "" {
		return nil // the instance has no record yet
	}
	if resumed { // what an earlier process has stored on this task is read first
		if err := d.publish(ctx, task); err != nil {
			return err
		}
	}
	all, err := d.o.Client.Evidence(ctx, service)
	if err != nil {
		return err
	}
	d.take(task, all)
	return nil
}

// publish stores the evidence if it has grown.
func (d *Decider) publish(ctx context.Context, task string) error {
	d.mu.Lock()
	own, more := record{}, false
	stored := map[*trial]string{}
	for url, t := range d.trials {
		e := t.judge.Evidence.Clone()
		own[url] = recordOf{t.rollout.ID, stateOf(t.rollout), e}
		stored[t] = fmt.Sprint(stateOf(t.rollout), e.Canary, e.Baseline)
		more = more || t.stored != stored[t]
	}
	d.mu.Unlock()
	if !more {
		return nil
	}
	text, err := json.Marshal(own)
	if err != nil {
		return fmt.Errorf("encode the evidence about canaries: %w", err)
	}
	if err := d.o.Client.ReportEvidence(ctx, task, string(text)); err != nil {
		return fmt.Errorf("store the evidence about canaries: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, mark := range stored {
		t.stored = mark
	}
	return nil
}

// take adds up the evidence of the other instances, also of those that have ended, and finds out
// whether this one decides.
func (d *Decider) take(task string, all []clearml.Instance) {
	if d.sum(task, all) && d.o.Changed != nil {
		d.o.Changed()
	}
}

// sum is take; behind reports that another instance knows another state.
func (d *Decider) sum(task string, all []clearml.Instance) (behind bool) {
	now := d.o.Client.ServerTime()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered = time.Now()
	others := map[serving.EndpointURL]*canary.Evidence{}
	first := task
	for _, i := range all {
		var r record
		if i.Report == "" || json.Unmarshal([]byte(i.Report), &r) != nil {
			continue // of another product or release
		}
		if i.TaskID != task && !i.Ended && serving.Alive(i.Seen, now) {
			first = min(first, i.TaskID)
		}
		for url, of := range r {
			t := d.trials[url]
			if t == nil || t.rollout.ID != of.Rollout {
				continue
			}
			if i.TaskID == task {
				if !d.resumed {
					t.judge.Evidence.Merge(of.Evidence)
				}
				continue
			}
			behind = behind || (!i.Ended && serving.Alive(i.Seen, now) && of.State != stateOf(t.rollout))
			if others[url] == nil {
				others[url] = &canary.Evidence{}
			}
			others[url].Merge(of.Evidence)
		}
	}
	d.resumed, d.leads = true, first == task
	for url, t := range d.trials {
		t.others = canary.Evidence{}
		if o := others[url]; o != nil {
			t.others = *o
		}
	}
	return behind
}

// lastWords stores the evidence at the end of the instance.
func (d *Decider) lastWords(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	d.mu.Lock()
	task, ready := d.task, d.resumed && d.task != "" && d.busy()
	d.mu.Unlock()
	if !ready {
		return
	}
	if err := d.publish(ctx, task); err != nil {
		d.o.Logger.Warn("the last evidence about canaries was not stored", "err", err)
	}
}

// store stores a decision, until it is stored or another one came first.
func (d *Decider) store(ctx context.Context, service string, url serving.EndpointURL, m serving.RolloutMove) {
	if m = d.permitted(ctx, url, m); m.Phase != serving.RolloutRolledBack && d.worse(url) {
		d.settled(url, false) // while the webhook was asked, it became known
		return
	}
	failures := 0
	for {
		moved, err := d.move(ctx, service, url, m)
		if err == nil {
			d.settled(url, moved)
			if moved {
				d.tell(ctx, url, m)
			}
			return
		}
		failures++
		if failures == 1 {
			d.o.Logger.Warn("canary decision is not stored yet", "canary", url, "phase", m.Phase, "err", err)
		}
		if retry.Sleep(ctx, retry.Doubled(failures, time.Second, 30*time.Second)) != nil || !d.wanted(url, m) {
			return
		}
	}
}

func (d *Decider) move(ctx context.Context, service string, url serving.EndpointURL, m serving.RolloutMove) (bool, error) {
	s, err := operations.Open(ctx, d.o.Client, service)
	if err != nil {
		return false, err
	}
	s.Author = operations.Author{Name: m.By}
	return s.MoveRollout(ctx, url, m)
}

// worse reports whether the candidate is to be rolled back.
func (d *Decider) worse(url serving.EndpointURL) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trials[url]
	return t != nil && t.last.Verdict == canary.RollBack
}

// settled ends the storing of a decision. A decision that another one has preceded is undone.
func (d *Decider) settled(url serving.EndpointURL, moved bool) {
	if d.o.Changed != nil {
		d.o.Changed()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trials[url]
	if t == nil || moved {
		return // the plan says that it is stored
	}
	t.storing = false
	if t.last.Verdict == canary.RollBack {
		return // it is decided again at once
	}
	t.retry = time.Now().Add(2 * time.Second)
	for _, a := range t.arms {
		a.Restore()
	}
}

// wanted reports whether a decision is still about the present state.
func (d *Decider) wanted(url serving.EndpointURL, m serving.RolloutMove) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trials[url]
	if t == nil || m.From == nil {
		return false
	}
	same := t.rollout.ID == m.From.ID && t.rollout.Phase == m.From.Phase && t.rollout.Step == m.From.Step
	if !same {
		t.storing = false
	}
	return same
}

const guardsEvery = 10 * time.Second

// conditional reports whether a rollout has expressions.
func conditional(r serving.Rollout) bool { return len(r.Guards)+len(r.Freeze) > 0 }

// guardLoop evaluates the expressions. It has its own goroutine: time series that do not answer delay no
// exchange.
func (d *Decider) guardLoop(ctx context.Context) {
	for retry.Sleep(ctx, time.Second) == nil {
		d.askGuards(ctx)
	}
}

// askGuards evaluates the expressions of the rollouts.
func (d *Decider) askGuards(ctx context.Context) {
	type question struct {
		t *trial
		r serving.Rollout
	}
	d.mu.Lock()
	var due []question
	for _, t := range d.trials {
		r := t.rollout
		if r.Active() && conditional(r) && time.Since(t.guarded) >= guardsEvery {
			due = append(due, question{t, r})
		}
	}
	d.mu.Unlock()
	for _, q := range due {
		g := d.guards(ctx, q.r)
		d.mu.Lock()
		q.t.guarded, q.t.guards = time.Now(), g
		d.mu.Unlock()
	}
}

// guards evaluates the expressions of a rollout.
func (d *Decider) guards(ctx context.Context, r serving.Rollout) (g guardState) {
	if d.o.Query == nil {
		return guardState{unknown: "conditions cannot be evaluated: the instance has no time series"}
	}
	ctx, cancel := context.WithTimeout(ctx, guardsEvery)
	defer cancel()
	holds := func(list []string) string {
		i := slices.IndexFunc(list, func(expr string) bool {
			result, err := d.o.Query.Query(ctx, expr, time.Now())
			if err != nil {
				g.unknown = cmp.Or(g.unknown, fmt.Sprintf("condition %s: %v", expr, err))
			}
			return err == nil && len(result) > 0
		})
		if i < 0 {
			return ""
		}
		return list[i]
	}
	g.frozen, g.bad = holds(r.Freeze), holds(r.Guards)
	return g
}
