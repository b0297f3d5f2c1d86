package worker

import (
	"fmt"
	"time"
)

// State says in one word how an endpoint is.
type State string

// The states of a Group.
const (
	StateLoading  State = "loading"  // no worker for this moment; requests are held
	StateReady    State = "ready"    // all workers are there, or it sleeps
	StateDegraded State = "degraded" // it answers, but workers are missing or die
	StateFailed   State = "failed"   // no worker answers
	StateClosed   State = "closed"
)

// Status describes a group for display and probes.
type Status struct {
	State State
	// Reason says why the state is not ready.
	Reason  string
	Queued  int
	Workers []WorkerStatus
	// Asleep says that there is no worker because none is needed.
	Asleep bool
	// Restarts counts the unwanted deaths, LastDeath is the last one's
	// cause, and LastLines the end of what it wrote to stderr.
	Restarts  int
	LastDeath string
	LastLines []string
	// Least and Most say how many workers there are without and under load, MaxQueue
	// how many requests may wait.
	Least, Most, MaxQueue int
	// Requests counts the answers of all workers, also of those that are gone.
	Requests uint64
	Async    bool
	// Shared says that the workers share the memory of one loaded model; SharedReason
	// why, or why not: "" when there is only one worker, or no process that has loaded.
	Shared       bool
	SharedReason string
	// Warnings are what the load reported besides: the endpoint answers, but not as
	// its owner may expect.
	Warnings []string
}

// WorkerStatus describes one process.
type WorkerStatus struct {
	PID      int
	Since    time.Time
	InFlight int
	Calls    int // send_request calls that it waits for
	Requests uint64
	State    string
}

// Memory is what the process takes in bytes, memory that it shares divided among
// those who share it; 0 where the system does not tell. It costs a millisecond
// or more: it is asked, not kept.
func (w WorkerStatus) Memory() int64 { return pss(w.PID) }

// Status describes the group as it is now.
func (g *Group) Status() Status {
	var s Status
	if t := &g.template; g.spec.Workers > 1 && t.mu.TryLock() { // held while a template loads
		if s.Shared = t.f != nil; s.Shared || t.refused {
			s.SharedReason = t.why
		}
		t.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Queued, s.Restarts, s.Requests, s.Async = g.queue.waiting, g.restarts, g.served, g.async
	s.Warnings = g.warnings
	if !g.lastEnd.IsZero() {
		s.LastDeath, s.LastLines = g.lastEnd.String(), g.lastEnd.LastLines
	}
	s.Least, s.Most, s.MaxQueue = g.spec.Workers-g.spec.Elastic, g.spec.Workers, g.spec.Limits.MaxQueue
	answering := 0
	for _, w := range g.workers {
		ws := WorkerStatus{PID: w.pid, Since: w.since, InFlight: len(w.flights), Calls: len(w.calls), Requests: w.served, State: "idle"}
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
	s.Asleep = s.State == StateReady && len(g.seats) == 0
	switch {
	case s.State == StateReady || s.State == StateClosed:
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
func (g *Group) state(answering int, now time.Time) (state State, reason string) {
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
		return StateClosed, ""
	case !g.started:
		return StateLoading, "a worker is being started"
	case g.pending > max(answering, 1) && !g.async && stalled > stallBound:
		return StateFailed, fmt.Sprintf("no answer for %s, and %d requests wait", stalled.Round(time.Second), g.pending-answering)
	case g.answersNobody(now):
		return StateFailed, fmt.Sprintf("no answer for %s: each request ends with its worker", now.Sub(g.lostFirst).Round(time.Second))
	case len(g.seats) == 0 && g.queue.waiting == 0:
		return StateReady, "" // it sleeps
	case answering >= len(g.seats) && answering > 0 && !dying:
		return StateReady, ""
	case answering > 0 && dying:
		return StateDegraded, "its workers die again and again"
	case answering > 0:
		return StateDegraded, fmt.Sprintf("%d of %d workers answer", answering, len(g.seats))
	case g.unavailable() != nil: // a request would be refused
		return StateFailed, "no worker answers"
	case without > withoutBound:
		return StateFailed, fmt.Sprintf("no worker for %s: one is being started", without.Round(time.Second))
	}
	return StateLoading, "a worker is being started"
}
