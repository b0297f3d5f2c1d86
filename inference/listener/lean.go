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

// Lean is a listener with its own HTTP/1.1 implementation (HTTP/2: see http2.go): it reads into reused buffers, parses in
// place, writes a response with one system call, and watches all connections from one goroutine
// instead of a timer per request. It supports what a data plane needs and refuses the rest.
type Lean struct {
	o Options

	mu        sync.Mutex // guards conns and listeners
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}

	held     atomic.Int64 // bytes of bodies, of all connections
	answers  atomic.Int64 // bytes of large answers that are being written, of all connections
	retiring atomic.Bool  // responses close their connections
	closing  atomic.Bool
	date     atomic.Pointer[string] // the Date header field of this second
	serving  sync.WaitGroup         // open connections
	refusing atomic.Int32           // connections being refused because there are too many
	watched  sync.Once
	stopped  sync.Once
	stop     chan struct{} // stops the watcher
	watcher  sync.WaitGroup
	http2    *http2
}

// NewLean creates a server; Serve starts it.
func NewLean(o Options) *Lean {
	s := &Lean{o: o.withDefaults(), conns: map[*conn]struct{}{}, listeners: map[net.Listener]struct{}{}, stop: make(chan struct{})}
	s.http2 = newHTTP2(s)
	s.tick(time.Now())
	return s
}

// Serve accepts connections until Shutdown is called, after which it returns nil.
func (s *Lean) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	if s.closing.Load() { // Shutdown was called before and has not seen this listener
		_ = l.Close()
		return nil
	}
	s.watched.Do(func() {
		s.watcher.Go(s.watch)
		s.watcher.Go(func() { _ = s.http2.server.Serve(s.http2) }) // ends by Shutdown only
	})
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

// temporary reports whether accepting may work again later.
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
	go func() { // closed by the client, the watcher or Shutdown, which waits for it
		defer s.serving.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// maxRefusing bounds the goroutines that refuse connections.
const maxRefusing = 64

// turnAway refuses a connection because there are too many. If many are being refused, or if a TLS
// handshake is required, the connection is closed at once, so that the accept loop never waits for
// a client.
func (s *Lean) turnAway(c *conn) {
	if c.encrypted || s.refusing.Load() >= maxRefusing {
		_ = socketOf(c.nc).Close()
		return
	}
	s.refusing.Add(1)
	_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails on a closed socket: then the write fails too
	s.serving.Go(func() {
		defer s.refusing.Add(-1)
		c.refuse(http.StatusServiceUnavailable, "Too many connections: the limit is set with --max-connections")
	})
}

// Retire sends "Connection: close" with every further response, so that clients reconnect
// elsewhere. Connections are still accepted. Call it before Shutdown.
func (s *Lean) Retire() { s.retiring.Store(true) }

// Shutdown stops accepting, waits for running requests until ctx ends, then closes the remaining
// connections. Idle connections are closed at once.
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
	s.watcher.Go(func() { _ = s.http2.server.Shutdown(ctx) }) // notifies connections; the wait below sees their end
	done := make(chan struct{})
	go func() { // ends with the last connection: forced below
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

// watchEvery is the interval of the watcher: the precision of this package's timeouts, which are
// seconds.
const watchEvery = 100 * time.Millisecond

// watch closes connections that are too slow and cancels requests whose client has disconnected. It
// is the only timer for all connections.
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

// writePatience is how long a client may read nothing of its answer: shorter when unread answers
// use too much memory.
func (s *Lean) writePatience() time.Duration {
	if s.answers.Load() > s.o.MaxBodies {
		return writeTimeoutFull
	}
	return writeTimeout
}

// tick updates the Date field.
func (s *Lean) tick(now time.Time) {
	date := now.UTC().Format(http.TimeFormat)
	if old := s.date.Load(); old == nil || *old != date {
		s.date.Store(&date)
	}
}
