package listener

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// stepped is the result of time.Now at t if the wall clock had been set by d before: the
// wall clock differs, the monotonic clock does not.
func stepped(tb testing.TB, t time.Time, d time.Duration) time.Time {
	tb.Helper()
	// The fields of time.Time: with a monotonic reading, wall has the seconds from
	// its 31st bit on, and ext has the reading.
	fields := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	before := t
	fields.wall += uint64(int64(d/time.Second)) << 30
	if off := t.Round(0).Sub(before.Round(0)); off != d.Truncate(time.Second) || t.Sub(before) != 0 {
		tb.Skipf("this Go keeps times in another way: a step of %s moved the wall by %s and the rest by %s", d, off, t.Sub(before))
	}
	return t
}

// watchedConn records whether it has been closed.
type watchedConn struct {
	net.Conn
	closed atomic.Bool
}

func (c *watchedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

var steps = map[string]time.Duration{
	"no step": 0, "an hour on": time.Hour, "an hour back": -time.Hour, "a year on": 365 * 24 * time.Hour, "a year back": -365 * 24 * time.Hour,
}

func TestAStepOfTheWallClockCutsNoConnectionAndSparesNone(t *testing.T) {
	s := NewLean(Options{HeaderTimeout: 10 * time.Second, BodyTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute})
	for phaseName, p := range map[string]struct {
		phase phase
		limit time.Duration
	}{
		"nothing sent": {phaseNew, 10 * time.Second},
		"a head":       {phaseHead, 10 * time.Second},
		"a body":       {phaseBody, 30 * time.Second},
		"idle":         {phaseIdle, 2 * time.Minute},
		"an answer":    {phaseWriting, writeTimeout},
	} {
		for name, d := range steps {
			t.Run(phaseName+", "+name, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer func() { _ = theirs.Close() }()
				nc := &watchedConn{Conn: ours}
				defer func() { _ = nc.Close() }()
				c := newConn(s, nc)
				c.phase.Store(int32(p.phase))
				begun := time.Now()
				c.since.Store(ticks(stepped(t, begun, -d))) // before the step
				if c.check(stepped(t, begun.Add(p.limit), d)); nc.closed.Load() {
					t.Fatal("it is cut though its time is not over")
				}
				if c.check(stepped(t, begun.Add(p.limit+time.Millisecond), d)); !nc.closed.Load() {
					t.Error("it is not cut though its time is over")
				}
			})
		}
	}
}

func TestClientsThatDoNotReadAreCutSoonerWhenAnswersFillTheMemory(t *testing.T) {
	for name, c := range map[string]struct {
		answers int64
		quiet   time.Duration
		cut     bool
	}{
		"few answers":           {1 << 20, writeTimeoutFull + time.Second, false},
		"few, after the limit":  {1 << 20, writeTimeout + time.Second, true},
		"many answers":          {1<<20 + 1, writeTimeoutFull + time.Second, true},
		"many, within patience": {1<<20 + 1, writeTimeoutFull - time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewLean(Options{MaxBodies: 1 << 20})
			s.answers.Store(c.answers)
			ours, theirs := net.Pipe()
			defer func() { _ = theirs.Close() }()
			nc := &watchedConn{Conn: ours}
			defer func() { _ = nc.Close() }()
			conn := newConn(s, nc)
			conn.phase.Store(int32(phaseWriting))
			now := time.Now()
			conn.since.Store(ticks(now))
			if conn.check(now.Add(c.quiet)); nc.closed.Load() != c.cut {
				t.Errorf("cut: %t", nc.closed.Load())
			}
		})
	}
}

func TestAStepOfTheWallClockEndsNoRequest(t *testing.T) {
	for name, d := range steps {
		t.Run(name, func(t *testing.T) {
			r := &requestContext{c: new(conn)}
			l := r.limit(time.Hour)
			defer r.cancel()
			r.mu.Lock()
			l.deadline = stepped(t, l.deadline, -d) // set before the step
			r.mu.Unlock()
			r.expire() // like the timer
			if l.Err() != nil {
				t.Errorf("an hour before its deadline: %v", l.Err())
			}
			r.mu.Lock()
			l.deadline = stepped(t, time.Now(), -d)
			r.mu.Unlock()
			if r.expire(); l.Err() != context.DeadlineExceeded { //nolint:errorlint // identity is part of context.Context's contract
				t.Errorf("at its deadline: %v", l.Err())
			}
		})
	}
}
