package main

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	logPending = 1 << 20     // bytes of lines that wait for the reader of the log
	logLast    = time.Second // for the last lines to be written at the end of a role
)

// logPipe writes the lines of a log in a goroutine of its own. The reader of a log may
// stop to read: a pager, a terminal that is stopped, a collector whose disk is full.
// Without this the next line of any request or worker would wait for it. Lines that
// find no room are dropped and counted.
type logPipe struct {
	w    io.Writer
	done chan struct{} // closed when run has ended

	mu      sync.Mutex // guards the rest
	more    *sync.Cond // something waits, or it is over
	pending []byte
	dropped int
	over    bool
}

// newLogPipe starts to write; close ends it. tell is called with the number of lines
// that were dropped once there is room again.
func newLogPipe(w io.Writer, tell func(dropped int)) *logPipe {
	p := &logPipe{w: w, done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	go p.run(tell)
	return p
}

// Write takes one record, or drops it. It never waits for the reader.
func (p *logPipe) Write(record []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending)+len(record) > logPending {
		p.dropped++
		return len(record), nil
	}
	p.pending = append(p.pending, record...)
	p.more.Signal()
	return len(record), nil
}

func (p *logPipe) run(tell func(dropped int)) {
	defer close(p.done)
	var lot []byte
	for {
		p.mu.Lock()
		for len(p.pending) == 0 && !p.over {
			p.more.Wait()
		}
		lot, p.pending = p.pending, lot[:0]
		dropped := p.dropped
		p.dropped = 0
		p.mu.Unlock()
		if len(lot) == 0 {
			return
		}
		_, _ = p.w.Write(lot) // nobody could be told
		if dropped > 0 {
			tell(dropped)
		}
	}
}

// close waits until the last lines are written, unless nobody reads them.
func (p *logPipe) close() {
	p.mu.Lock()
	p.over = true
	p.more.Signal()
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(logLast):
	}
}

// roleLogger makes the log of a role, whose lines wait for no reader; end writes the
// last of them.
func (a *app) roleLogger() (log *slog.Logger, end func()) {
	pipe := newLogPipe(a.sys.stderr, func(dropped int) {
		log.Warn("log lines dropped: the reader of the log was too slow", "lines", dropped)
	})
	log = a.loggerTo(pipe, slog.LevelInfo)
	return log, pipe.close
}
