package listener

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Lean is a listener that speaks HTTP/1.1 itself: it reads into kept buffers,
// parses in place, answers in one write, and watches all its connections from
// one goroutine instead of arming a timer for each request. It carries what a
// data plane needs and refuses the rest (docs/performance.md has the figures
// that made it worth having beside the standard library's server).
type Lean struct {
	o Options

	mu        sync.Mutex // guards conns and listeners
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}

	held     atomic.Int64 // bytes of bodies, of all connections
	answers  atomic.Int64 // bytes of large answers that are being written, of all connections
	retiring atomic.Bool  // answers ask for the connection's end
	closing  atomic.Bool
	date     atomic.Pointer[string] // the Date header field of this second
	serving  sync.WaitGroup         // connections
	refusing atomic.Int32           // connections that are being told that there are too many
	watched  sync.Once
	stopped  sync.Once
	stop     chan struct{} // ends the watcher
	watcher  sync.WaitGroup
}

// NewLean prepares a server; Serve starts it.
func NewLean(o Options) *Lean {
	s := &Lean{o: o.withDefaults(), conns: map[*conn]struct{}{}, listeners: map[net.Listener]struct{}{}, stop: make(chan struct{})}
	s.tick(time.Now())
	return s
}

// Serve accepts connections until Shutdown is called, after which it returns nil.
func (s *Lean) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	if s.closing.Load() { // Shutdown came first and has not seen this listener
		_ = l.Close()
		return nil
	}
	s.watched.Do(func() { s.watcher.Go(s.watch) })
	pause := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.accept(nc)
		case s.closing.Load():
			return nil
		case temporary(err): // out of descriptors: others will be closed
			s.o.Logger.Warn("connections cannot be accepted", "err", err)
			select {
			case <-time.After(pause):
			case <-s.stop:
			}
			pause = min(2*pause, time.Second)
		default:
			return err
		}
	}
}

// temporary tells whether accepting may work again by itself.
func temporary(err error) bool {
	var ne interface{ Temporary() bool }
	return errors.As(err, &ne) && ne.Temporary()
}

func (s *Lean) accept(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	full := s.o.MaxConns > 0 && len(s.conns) >= s.o.MaxConns
	if !full {
		s.conns[c] = struct{}{}
		s.serving.Add(1)
	}
	s.mu.Unlock()
	if full {
		s.turnAway(c)
		return
	}
	go func() { // ended by the client, the watcher or Shutdown; waited for there
		defer s.serving.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// maxRefusing bounds the goroutines that tell clients to come later.
const maxRefusing = 64

// turnAway tells a client that there are too many. Those that come while many are
// being told, and those that would have to shake hands first, are closed at once:
// nobody waits for them, least of all whoever accepts.
func (s *Lean) turnAway(c *conn) {
	if c.encrypted || s.refusing.Load() >= maxRefusing {
		_ = socketOf(c.nc).Close()
		return
	}
	s.refusing.Add(1)
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails on a closed socket: then the answer does too
	s.serving.Go(func() {
		defer s.refusing.Add(-1)
		c.refuse(http.StatusServiceUnavailable, "Too many connections: the limit is set with --max-connections")
	})
}

// Retire has every answer from here on ask its client to close the connection, and
// closes it after that answer. Connections are still accepted. It is what comes
// before Shutdown: who asks again does so on a connection to somebody else.
func (s *Lean) Retire() { s.retiring.Store(true) }

// Shutdown stops accepting, lets the requests under way finish until ctx ends,
// then cuts what is left. Idle connections are closed at once.
func (s *Lean) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	s.mu.Lock()
	var all error
	for l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			all = errors.Join(all, err)
		}
	}
	for c := range s.conns {
		c.closeIdle()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends when the last connection has: forced below
		s.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		all = errors.Join(all, ctx.Err())
		s.mu.Lock()
		for c := range s.conns {
			c.cut()
		}
		s.mu.Unlock()
		<-done
	}
	s.stopped.Do(func() { close(s.stop) })
	s.watcher.Wait()
	return all
}

// watchEvery is how often connections are looked at: the precision of the
// timeouts of this package, which are all counted in seconds.
const watchEvery = 100 * time.Millisecond

// watch closes connections that are too slow and cancels requests whose client
// has gone. It is the only timer of all connections.
func (s *Lean) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	var all []*conn
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			s.tick(now)
			s.mu.Lock()
			all = all[:0]
			for c := range s.conns {
				all = append(all, c)
			}
			s.mu.Unlock()
			for _, c := range all {
				c.check(now)
			}
			clear(all)
		}
	}
}

// writePatience is how long a client may take nothing of its answer: shorter when
// answers that are not read fill the memory.
func (s *Lean) writePatience() time.Duration {
	if s.answers.Load() > s.o.MaxBodies {
		return writeTimeoutFull
	}
	return writeTimeout
}

// tick renews the Date field.
func (s *Lean) tick(now time.Time) {
	date := now.UTC().Format(http.TimeFormat)
	if old := s.date.Load(); old == nil || *old != date {
		s.date.Store(&date)
	}
}
