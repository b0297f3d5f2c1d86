package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// outlive keeps a role running when the reader of its output dies or stops reading.
// A write to a dead pipe fails instead of ending the process, and lines wait in
// memory, or are dropped and counted, while nobody reads. Commands that end by
// themselves keep the usual behaviour: "clearml-serving list | head" ends with head.
// The returned function writes what is left.
func (a *app) outlive() (end func()) {
	// A handler and not signal.Ignore: children then start with the default.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	stdout, stderr := newSpool(a.sys.stdout), newSpool(a.sys.stderr)
	a.setOutput(stdout, stderr)
	return func() {
		stdout.close(spoolGrace)
		stderr.close(spoolGrace)
		a.setOutput(stdout.w, stderr.w)
	}
}

func (a *app) setOutput(stdout, stderr io.Writer) {
	a.sys.stdout, a.sys.stderr = stdout, stderr
	a.print.out, a.print.err = stdout, stderr
}

const (
	spoolWrites = 8192
	spoolBytes  = 8 << 20
	spoolGrace  = time.Second
)

// spool is a writer that never blocks and never fails. One goroutine, ended by close,
// writes on.
type spool struct {
	w       io.Writer
	queue   chan []byte
	pending atomic.Int64 // bytes in the queue
	dropped atomic.Int64 // writes
	done    chan struct{}

	mu     sync.RWMutex // guards closed, and the queue against being closed in a Write
	closed bool
}

func newSpool(w io.Writer) *spool {
	s := &spool{w: w, queue: make(chan []byte, spoolWrites), done: make(chan struct{})}
	go s.run()
	return s
}

// Write fulfils io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || s.pending.Load()+int64(len(p)) > spoolBytes {
		s.dropped.Add(1)
		return len(p), nil
	}
	s.pending.Add(int64(len(p)))
	select {
	case s.queue <- append([]byte(nil), p...):
	default:
		s.pending.Add(-int64(len(p)))
		s.dropped.Add(1)
	}
	return len(p), nil
}

func (s *spool) run() {
	defer close(s.done)
	for p := range s.queue {
		_, _ = s.w.Write(p) // a reader that is gone is no reason to end
		s.pending.Add(-int64(len(p)))
		if n := s.dropped.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(s.w, "... %d writes to this log were dropped: it was not read\n", n)
		}
	}
}

// close writes what is left, for at most grace.
func (s *spool) close(grace time.Duration) {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	}
}
