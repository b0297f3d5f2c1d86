// Package sidecar supervises a server that runs as a child of this process: it starts the server, waits
// until a probe says that it is ready, starts it again when it has ended or hangs, keeps the end of its
// log and the cause of its death, and ends it with all of its processes. It knows nothing of what the
// server does.
package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/process"
	"clearmlserving/retry"
)

// Command is the server's command line.
type Command struct {
	// Path is the program; a name without a slash is looked up in the PATH of Env.
	Path string
	Args []string
	// Env is the whole environment.
	Env []string
	// Dir is the working directory, "" for the current one.
	Dir string
}

// Options of a Server.
type Options struct {
	// Name is the name of the server in logs and errors.
	Name string
	// Command returns the command line. It is called before each start, so that it may choose a port and
	// write files. Its error is that of the start.
	Command func(ctx context.Context) (Command, error)
	// Probe asks the server. It is nil once the server is ready, and its error says why it is not. It must
	// need the server to work, not only to listen. It is called from one goroutine, with a time limit.
	Probe func(ctx context.Context) error
	// Stall is how long a server that has not been ready may make no progress: no new line in its log, no
	// other error of its probe, no time of a processor. Then it is ended and started again. Default 10 minutes.
	Stall time.Duration
	// Hang is how long the probe of a server that was ready may fail. Then it is ended and started again.
	// Default 30 seconds.
	Hang time.Duration
	// ProbeEvery is the time between two probes, ProbeTimeout the time limit of one. Defaults 1 and 1.5 seconds:
	// a server that does not work is seen within 3.
	ProbeEvery, ProbeTimeout time.Duration
	// Grace is how long the server may take to end after it has been asked to. Default 10 seconds.
	Grace time.Duration
	// Guard is the command line of the guard; see process.Spec. Empty: there is none, and processes that leave
	// the server's group, or are left when this process is killed, are not ended.
	Guard []string
	// Secrets are texts that are replaced in the log.
	Secrets []string
	// Line gets each line of the log, without secrets. nil: it is logged. It is called from two goroutines.
	Line func(line string)
	// Logger gets what happens to the server.
	Logger *slog.Logger
}

// Server is a supervised server.
type Server struct {
	o Options

	mu      sync.Mutex // guards the rest
	status  Status
	changed chan struct{} // closed at the next change of status
	heard   time.Time     // when the last line of the log came
	log     *record
}

// record is the begin and the end of the log of one process: a server that cannot start may say why first, and then
// how it is used.
type record struct {
	mu      sync.Mutex // guards begin and size
	begin   []string
	size    int
	written int
	tail    *process.Tail
}

func newRecord() *record { return &record{tail: process.NewTail(keptLog)} }

func (r *record) add(line string) {
	_, _ = r.tail.Write([]byte(line + "\n")) // never fails
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written += len(line) + 1
	if r.size+len(line) < keptBegin {
		r.begin = append(r.begin, line)
		r.size += len(line) + 1
	} else {
		r.size = keptBegin // what follows is in the tail
	}
}

// lines are all that is kept, with a line of dots where something is left out.
func (r *record) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written < keptLog {
		return r.tail.Lines()
	}
	return append(append(slices.Clone(r.begin), "..."), r.tail.Lines()...)
}

const (
	hungGrace    = 2 * time.Second // for the end of a server that does not work
	keptLog      = 16 << 10        // bytes of the end of the log
	keptBegin    = 1 << 10         // bytes of its begin
	firstPause   = 250 * time.Millisecond
	longestPause = time.Minute
	steady       = time.Minute // a server that was ready for so long begins a new series of failures
	startProbes  = 5           // a server that starts is probed so many times as often
	busy         = 20          // a server makes progress if it uses a processor for one part of so many
)

// New prepares a Server; Run starts it.
func New(o Options) *Server {
	o.Stall = cmp.Or(o.Stall, 10*time.Minute)
	o.Hang = cmp.Or(o.Hang, 30*time.Second)
	o.ProbeEvery = cmp.Or(o.ProbeEvery, time.Second)
	o.ProbeTimeout = cmp.Or(o.ProbeTimeout, 1500*time.Millisecond)
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("server", o.Name)
	o.Secrets = slices.DeleteFunc(slices.Clone(o.Secrets), func(s string) bool { return s == "" })
	return &Server{
		o: o, status: Status{Name: o.Name, State: StateStopped, Reason: "it has not been started"}, changed: make(chan struct{}), log: newRecord(),
	}
}

// Status describes the server now. It may be called at any time.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Changed is closed when the status next changes.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Log returns the last lines that the newest process of the server wrote, and the first ones if it wrote much, without
// secrets.
func (s *Server) Log() []string {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	return log.lines()
}

// Ready waits until the server is ready, or until ctx ends: then the error says why it is not.
func (s *Server) Ready(ctx context.Context) (Status, error) {
	for {
		changed := s.Changed()
		status := s.Status()
		if status.Ready() {
			return status, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status, fmt.Errorf("%s is %s: %s: %w", s.o.Name, status.State, status.Reason, context.Cause(ctx))
		}
	}
}

// change changes the status, and wakes those who wait for it.
func (s *Server) change(edit func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.status.State
	edit(&s.status)
	if s.status.State != before {
		s.status.Since = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run keeps the server running until ctx ends, then ends it. It returns when no process of it is left.
func (s *Server) Run(ctx context.Context) error {
	failures := 0
	for {
		served, err := s.serve(ctx)
		if ctx.Err() != nil {
			s.change(func(now *Status) {
				now.State, now.Reason, now.PID, now.Group, now.NextStart = StateStopped, "it has been stopped", 0, 0, time.Time{}
			})
			return nil //nolint:nilerr // it was asked to end
		}
		if served >= steady {
			failures = 0
		}
		failures++
		pause, lines := retry.Doubled(failures, firstPause, longestPause), s.Log()
		s.change(func(now *Status) {
			now.State, now.Reason, now.PID, now.Group, now.NextStart = StateWaiting, err.Error(), 0, 0, time.Now().Add(pause)
			now.Restarts++
			now.LastDeath, now.LastLines = err.Error(), lines
		})
		s.o.Logger.Error("server ended", "cause", err, "failures", failures, "next_start_in", pause, "last_lines", strings.Join(lines, "\n"))
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// serve runs one process of the server to its end. served is how long it was ready; err says why it has ended, and
// is nil only if ctx has.
func (s *Server) serve(ctx context.Context) (served time.Duration, err error) {
	command, err := s.o.Command(ctx)
	if err != nil {
		return 0, fmt.Errorf("it cannot be started: %w", err)
	}
	oom := process.WatchOOM()
	s.mu.Lock()
	s.log = newRecord()
	s.mu.Unlock()
	child, err := process.Start(ctx, process.Spec{
		Path: command.Path, Args: command.Args, Env: command.Env, Dir: command.Dir, Guard: s.o.Guard,
		LogLine: func(_ process.Stream, line []byte) { s.line(string(line)) },
	})
	if err != nil {
		return 0, err
	}
	s.change(func(now *Status) {
		now.State, now.Reason, now.NextStart = StateStarting, "it is starting", time.Time{}
		now.Group, now.PID = child.PID(), child.ServerPID()
		now.Starts++
	})
	s.o.Logger.Info("server started", "pid", child.PID())
	w := watch{s: s, child: child, progress: time.Now()}
	hung := w.run(ctx)
	if hung == "" && ctx.Err() == nil { // it has ended by itself
		return w.served(), s.cause(child.Death(), oom)
	}
	grace := s.o.Grace
	if hung != "" {
		s.o.Logger.Error("server hangs", "reason", hung)
		grace = min(grace, hungGrace)
	}
	death := child.Stop(context.WithoutCancel(ctx), grace)
	death.Reason = hung
	return w.served(), death
}

// cause completes a death.
func (s *Server) cause(death process.Death, oom *process.OOMWatch) error {
	if !death.OOM && oom.Struck() {
		death.Reason = "the kernel has killed a process because of a lack of memory meanwhile"
	}
	return death
}

// line takes one line of the log.
func (s *Server) line(text string) {
	for _, secret := range s.o.Secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	s.mu.Lock()
	s.heard = time.Now()
	log := s.log
	s.mu.Unlock()
	log.add(text)
	if s.o.Line != nil {
		s.o.Line(text)
		return
	}
	s.o.Logger.Info("server output", "line", text)
}

// lastLine is when the last line of the log came.
func (s *Server) lastLine() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// watch looks after one process.
type watch struct {
	s        *Server
	child    *process.Child
	progress time.Time // the last sign of progress
	busyAt   time.Time // since when the time of processors below is counted
	used     time.Duration
	answer   string    // the last error of the probe
	readyAt  time.Time // zero: it was never ready
	good     time.Time // the last good probe
}

// served is how long the process was of use.
func (w *watch) served() time.Duration {
	if w.readyAt.IsZero() {
		return 0
	}
	return w.good.Sub(w.readyAt)
}

// run probes the process until it has ended, ctx ends, or it hangs: then it says how.
func (w *watch) run(ctx context.Context) (hung string) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		ended, err := w.probe(ctx)
		if ended || ctx.Err() != nil {
			return ""
		}
		if hung := w.judge(err, time.Now()); hung != "" {
			return hung
		}
		every := w.s.o.ProbeEvery
		if w.readyAt.IsZero() {
			every /= startProbes
		}
		pause.Reset(every)
		select {
		case <-pause.C:
		case <-w.child.Done():
			return ""
		case <-ctx.Done():
			return ""
		}
	}
}

// errNoAnswer is the error of a probe that took too long.
var errNoAnswer = errors.New("it does not answer its probe")

// probe asks the server once. ended: its process has ended meanwhile.
func (w *watch) probe(ctx context.Context) (ended bool, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, w.s.o.ProbeTimeout, fmt.Errorf("%w within %s", errNoAnswer, w.s.o.ProbeTimeout))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-w.child.Done():
			cancel()
		case <-limited.Done():
		}
	})
	err = w.s.o.Probe(limited)
	if limited.Err() != nil && err != nil {
		err = context.Cause(limited) // without the port of one connection
	}
	select {
	case <-w.child.Done():
		return true, err
	default:
		return false, err
	}
}

// judge takes the result of a probe, and says how the server hangs, "" if it does not.
func (w *watch) judge(err error, now time.Time) (hung string) {
	if err == nil {
		w.good, w.answer = now, ""
		if w.readyAt.IsZero() {
			w.readyAt = now
			w.s.o.Logger.Info("server ready", "pid", w.child.ServerPID(), "took", now.Sub(w.child.Since()).Round(time.Millisecond))
		}
		w.set(StateReady, "")
		return ""
	}
	if w.readyAt.IsZero() {
		w.set(StateStarting, err.Error())
		if w.progressed(err.Error(), now) {
			w.progress = now
		}
		if idle := now.Sub(w.progress); idle >= w.s.o.Stall {
			return fmt.Sprintf("its start made no progress for %s (%s)", idle.Round(time.Second), err)
		}
		return ""
	}
	w.set(StateUnresponsive, err.Error())
	if idle := now.Sub(w.good); idle >= w.s.o.Hang {
		return fmt.Sprintf("it did not work for %s (%s)", idle.Round(time.Second), err)
	}
	return ""
}

// set changes the state if it is another one.
func (w *watch) set(state State, reason string) {
	now := w.s.Status()
	pid := w.child.ServerPID()
	if now.State == state && now.Reason == reason && now.PID == pid {
		return
	}
	if now.State != state && state == StateUnresponsive {
		w.s.o.Logger.Warn("server does not work", "reason", reason)
	}
	if now.State == StateUnresponsive && state == StateReady {
		w.s.o.Logger.Info("server works again", "after", time.Since(now.Since).Round(time.Millisecond))
	}
	w.s.change(func(s *Status) { s.State, s.Reason, s.PID = state, reason, pid })
}

// progressed reports whether a server that starts does something.
func (w *watch) progressed(answer string, now time.Time) bool {
	if answer != w.answer {
		w.answer = answer
		return true
	}
	if w.s.lastLine().After(w.progress) {
		return true
	}
	const window = 10 * time.Second
	if w.busyAt.IsZero() || now.Sub(w.busyAt) >= window {
		used := processorTime(w.child.PID())
		worked := !w.busyAt.IsZero() && used-w.used >= now.Sub(w.busyAt)/busy
		w.busyAt, w.used = now, used
		return worked
	}
	return false
}

// processorTime is what a process and all processes below it have used.
func processorTime(root int) (sum time.Duration) {
	all := process.All()
	for _, pid := range all.Below(func(pid int) bool { return pid == root }) {
		sum += all[pid].CPU
	}
	return sum
}
