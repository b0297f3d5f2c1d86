package worker

import (
	"fmt"
	"time"
)

// State says in one word how an endpoint is.
type State string

// The states of a Group.
const (
	StateLoading  State = "loading"  // no worker yet
	StateReady    State = "ready"    // all workers are there
	StateDegraded State = "degraded" // it answers, but workers are missing or die
	StateFailed   State = "failed"   // nobody answers, and a restart is not due at once
	StateClosed   State = "closed"
)

// Status describes a group for people and probes.
type Status struct {
	State State
	// Reason says why the state is not ready.
	Reason  string
	Queued  int
	Workers []WorkerStatus
	// Restarts counts the deaths that nobody asked for, LastDeath is the last one's cause.
	Restarts  int
	LastDeath string
	// Requests counts the answers of all workers, also of those that are gone.
	Requests uint64
	Async    bool
	// Shared says that the workers share the memory of one loaded model; SharedReason
	// why not, "" when there is only one worker.
	Shared       bool
	SharedReason string
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
		s.Shared, s.SharedReason = t.f != nil, t.refused
		t.mu.Unlock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Queued, s.Restarts, s.Requests, s.Async = g.queued, g.restarts, g.served, g.async
	if !g.lastEnd.IsZero() {
		s.LastDeath = g.lastEnd.String()
	}
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
	pausing := 0
	for _, seat := range g.seats {
		if !seat.until.IsZero() {
			pausing++
		}
	}
	switch {
	case g.closed:
		s.State = StateClosed
	case answering == len(g.seats):
		s.State = StateReady
	case answering > 0:
		s.State = StateDegraded
		s.Reason = fmt.Sprintf("%d of %d workers answer", answering, len(g.seats))
	case pausing > 0:
		s.State, s.Reason = StateFailed, "no worker answers"
	default:
		s.State, s.Reason = StateLoading, "a worker is being started"
	}
	switch {
	case s.State == StateReady || s.State == StateClosed:
	case g.lastLoad != nil:
		s.Reason += ": " + g.lastLoad.Error()
	case s.LastDeath != "":
		s.Reason += ": the last one " + s.LastDeath
	}
	return s
}
