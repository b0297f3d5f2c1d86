package worker

import (
	"fmt"
	"slices"
	"time"

	"clearmlserving/serving"
)

// Status describes the group as it is now.
func (g *Group) Status() serving.ModelReport {
	s, d := g.seats, g.dispatch
	var st serving.ModelReport
	if t := &s.template; s.spec.Workers > 1 && t.mu.TryLock() { // held while a template loads
		if st.Shared = t.f != nil; st.Shared || t.refused {
			st.SharedReason = t.why
		}
		t.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	st.Queued, st.Restarts, st.Answered = d.queue.len(), s.restarts, d.served
	if st.Warnings = s.warnings; d.policy != nil {
		st.Batching = d.policy.Report()
	}
	if !s.lastEnd.IsZero() {
		st.LastDeath, st.LastLines = s.lastEnd.String(), s.lastEnd.LastLines
	}
	st.MinWorkers, st.MaxWorkers, st.MaxQueue = s.least(), s.spec.Workers, d.maxQueue
	for _, w := range d.workers {
		ws := serving.WorkerReport{PID: w.pid, Since: w.since, InFlight: len(w.flights), Requests: w.served, State: "idle"}
		switch {
		case w.state == leaving:
			ws.State = "leaving"
		case len(w.calls) > 0:
			ws.State = "calling"
		case len(w.flights) > 0:
			ws.State = "busy"
		}
		st.Workers = append(st.Workers, ws)
	}
	st.State, st.Reason = g.state(time.Now())
	st.Asleep = st.State == serving.StateReady && len(s.seats) == 0
	switch {
	case st.State == serving.StateReady || st.State == serving.StateClosed:
	case s.lastLoad != nil:
		st.Reason += ": " + s.lastLoad.Error()
	case st.LastDeath != "":
		st.Reason += ": the last one " + st.LastDeath
	}
	return st
}

const (
	// withoutBound is the time without a worker after which the endpoint counts as failed. A
	// worker that dies is replaced in some milliseconds.
	withoutBound = time.Second
	// stallBound is how long requests may wait without any being answered.
	stallBound = 10 * time.Second
)

// state is the state of the group as its clients see it. Both locks are held.
func (g *Group) state(now time.Time) (state serving.State, reason string) {
	s, d := g.seats, g.dispatch
	answering, seats := d.ready(), len(s.seats)
	dying := slices.ContainsFunc(s.seats, func(one *seat) bool {
		return one.deaths > 1 && (one.w == nil || now.Sub(one.w.since) < s.o.maxBackoff)
	})
	without := time.Duration(0)
	if !s.without.IsZero() {
		without = now.Sub(s.without)
	}
	stalled := now.Sub(d.moved)
	if d.served != d.seen { // answers since the last Look
		stalled = 0
	}
	switch {
	case d.closed:
		return serving.StateClosed, ""
	case !s.started:
		return serving.StateLoading, "a worker is being started"
	case d.pending > max(answering, 1) && !d.async && stalled > stallBound:
		return serving.StateFailed, fmt.Sprintf("no answer for %s, and %d requests wait", stalled.Round(time.Second), d.pending-answering)
	case d.onlyDies(now):
		return serving.StateFailed, fmt.Sprintf("no answer for %s: each request ends with its worker", now.Sub(d.lostFirst).Round(time.Second))
	case seats == 0 && d.queue.len() == 0:
		return serving.StateReady, "" // it sleeps
	case answering >= seats && answering > 0 && !dying:
		return serving.StateReady, ""
	case answering > 0 && dying:
		return serving.StateDegraded, "its workers die again and again"
	case answering > 0:
		return serving.StateDegraded, fmt.Sprintf("%d of %d workers answer", answering, seats)
	case d.unavailable() != nil: // a request would be refused
		return serving.StateFailed, "no worker answers"
	case without > withoutBound:
		return serving.StateFailed, fmt.Sprintf("no worker for %s: one is being started", without.Round(time.Second))
	}
	return serving.StateLoading, "a worker is being started"
}
