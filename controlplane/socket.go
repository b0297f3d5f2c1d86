package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// socket is an HTTP server on one listener, with limits against slow clients, and a stop that
// waits for requests but not for idle connections.
type socket struct {
	name     string
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex // guards the fields below
	unused   map[net.Conn]struct{}
	stopping bool
}

// newSocket makes the server of a listener. Once draining is set, each answer closes its connection.
func newSocket(name string, l net.Listener, h http.Handler, window time.Duration, draining *atomic.Bool, log *slog.Logger) *socket {
	s := &socket{name: name, listener: l, unused: map[net.Conn]struct{}{}}
	s.server = &http.Server{
		Handler:           guarded(h, window, draining),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnState:         s.track,
		ErrorLog:          slog.NewLogLogger(log.With("listener", name).Handler(), slog.LevelDebug),
	}
	return s
}

// guarded limits the time of a body that no handler reads: the server itself reads it to
// keep the connection. A handler that reads it moves the deadline.
//
// It closes the connection with each answer to Python's requests package. The ClearML SDK
// forks a process for reports, and training scripts fork too: parent and child then hold the
// same idle connection, and each may read the answer to the other. The SDK takes the answer
// of another call for a success without data, and so loses the model that it has just
// created. A connection that is not kept cannot be shared; the original server keeps none
// either.
//
// While the server drains, every connection is closed with its next answer: then no request is in transit on an idle
// connection when the server stops.
func guarded(h http.Handler, window time.Duration, draining *atomic.Bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(window))
		}
		if draining.Load() || r.ProtoMajor == 1 && strings.HasPrefix(r.UserAgent(), "python-requests") {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// serve answers requests until stop; it closes the listener.
func (s *socket) serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s on %s: %w", s.name, s.listener.Addr(), err)
	}
	return nil
}

// stop accepts no more requests and waits for the running ones; when limit ends, it aborts
// them.
func (s *socket) stop(limit context.Context) error {
	s.closeUnused()
	err := s.server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	return nil
}

// track remembers connections without a request yet. Browsers open such connections in
// advance, and Shutdown would wait five seconds for each.
func (s *socket) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.unused, conn)
	case s.stopping:
		_ = conn.Close() // it gets no answer any more
	default:
		s.unused[conn] = struct{}{}
	}
}

func (s *socket) closeUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for conn := range s.unused {
		_ = conn.Close() // it has no request
	}
}
