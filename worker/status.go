package worker

import (
	"fmt"
	"time"

	"clearmlserving/serving"
)

// Status describes the group as it is now.
func (g *Group) Status() serving.ModelReport {
	var s serving.ModelReport
	if t := &g.template; g.spec.Workers > 1 && t.mu.TryLock() { // held while a template loads
		if s.Shared = t.f != nil; s.Shared || t.refused {
			s.SharedReason = t.why
		}
		t.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Queued, s.Restarts, s.Answered = g.queue.waiting, g.restarts, g.served
	s.Warnings, s.Batching = g.warnings, g.batch.report()
	if !g.lastEnd.IsZero() {
		s.LastDeath, s.LastLines = g.lastEnd.String(), g.lastEnd.LastLines
	}
	s.MinWorkers, s.MaxWorkers, s.MaxQueue = g.spec.Workers-g.spec.Elastic, g.spec.Workers, g.spec.Limits.MaxQueue
	answering := 0
	for _, w := range g.workers {
		ws := serving.WorkerReport{PID: w.pid, Since: w.since, InFlight: len(w.flights), Requests: w.served, State: "idle"}
		switch {
		case w.state == leaving:
			ws.State = "leaving"
		case len(w.calls) > 0:
			ws.State = "calling"
		case len(w.flights) > 0:
			ws.State = "busy"
		}
		if w.state == ready {
			answering++
		}
		s.Workers = append(s.Workers, ws)
	}
	s.State, s.Reason = g.state(answering, time.Now())
	s.Asleep = s.State == serving.StateReady && len(g.seats) == 0
	switch {
	case s.State == serving.StateReady || s.State == serving.StateClosed:
	case g.lastLoad != nil:
		s.Reason += ": " + g.lastLoad.Error()
	case s.LastDeath != "":
		s.Reason += ": the last one " + s.LastDeath
	}
	return s
}

const (
	// A worker that dies is replaced in some milliseconds. After this time without
	// any, requests are refused.
	withoutBound = time.Second
	// stallBound is how long requests may wait without any being answered.
	stallBound = 10 * time.Second
)

// state judges the group by what clients see of it. mu is held.
func (g *Group) state(answering int, now time.Time) (state serving.State, reason string) {
	dying := false
	for _, s := range g.seats {
		if s.deaths > 1 && (s.w == nil || now.Sub(s.w.since) < g.o.maxBackoff) {
			dying = true
		}
	}
	without := time.Duration(0)
	if !g.without.IsZero() {
		without = now.Sub(g.without)
	}
	stalled := now.Sub(g.moved)
	switch {
	case g.closed:
		return serving.StateClosed, ""
	case !g.started:
		return serving.StateLoading, "a worker is being started"
	case g.pending > max(answering, 1) && !g.async && stalled > stallBound:
		return serving.StateFailed, fmt.Sprintf("no answer for %s, and %d requests wait", stalled.Round(time.Second), g.pending-answering)
	case g.answersNobody(now):
		return serving.StateFailed, fmt.Sprintf("no answer for %s: each request ends with its worker", now.Sub(g.lostFirst).Round(time.Second))
	case len(g.seats) == 0 && g.queue.waiting == 0:
		return serving.StateReady, "" // it sleeps
	case answering >= len(g.seats) && answering > 0 && !dying:
		return serving.StateReady, ""
	case answering > 0 && dying:
		return serving.StateDegraded, "its workers die again and again"
	case answering > 0:
		return serving.StateDegraded, fmt.Sprintf("%d of %d workers answer", answering, len(g.seats))
	case g.unavailable() != nil: // a request would be refused
		return serving.StateFailed, "no worker answers"
	case without > withoutBound:
		return serving.StateFailed, fmt.Sprintf("no worker for %s: one is being started", without.Round(time.Second))
	}
	return serving.StateLoading, "a worker is being started"
}
