package sidecar

import (
	"time"

	"clearmlserving/process"
)

// State says in one word how a server is.
type State string

// The states of a server.
const (
	StateStarting     State = "starting"     // its process runs, and it is not ready yet
	StateReady        State = "ready"        // the last probe was good
	StateUnresponsive State = "unresponsive" // it was ready, its process runs, and its probe fails
	StateWaiting      State = "waiting"      // it has ended, and is started again at Status.NextStart
	StateStopped      State = "stopped"      // it has been stopped, or was never started
)

// Status describes a server for operators.
type Status struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	// PID is that of the server, 0 while it does not run, Group that of a process above all processes of it.
	PID   int `json:"pid,omitempty"`
	Group int `json:"-"`
	// Since is the time when the state was entered.
	Since time.Time `json:"since,omitzero"`
	// Starts counts the processes that were started: what a server was told before the last one is lost.
	Starts int `json:"starts"`
	// Restarts counts the ends that nobody has asked for; LastDeath is the cause of the last one, LastLines are
	// the last lines that it wrote.
	Restarts  int       `json:"restarts"`
	LastDeath string    `json:"last_death,omitempty"`
	LastLines []string  `json:"last_lines,omitempty"`
	NextStart time.Time `json:"next_start,omitzero"`
}

// Ready reports whether the server can be asked.
func (s Status) Ready() bool { return s.State == StateReady }

// Usage is what the server and all of its processes take; false if it does not run, or nothing is known.
func (s Status) Usage() (process.TreeUsage, bool) {
	if s.Group == 0 {
		return process.TreeUsage{}, false
	}
	usage, ok := process.UsageOf(s.Group)[s.Group]
	return usage, ok
}
