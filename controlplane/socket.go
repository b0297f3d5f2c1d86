package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// socket is an HTTP server on one listener, with limits against clients that hold it
// up, and a stop that waits for requests but not for idle connections.
type socket struct {
	name     string
	listener net.Listener
	server   *http.Server

	mu       sync.Mutex // guards the fields below
	unused   map[net.Conn]struct{}
	stopping bool
}

func newSocket(name string, l net.Listener, h http.Handler, window time.Duration, log *slog.Logger) *socket {
	s := &socket{name: name, listener: l, unused: map[net.Conn]struct{}{}}
	s.server = &http.Server{
		Handler:           boundsBodies(closesForPython(h), window),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnState:         s.track,
		ErrorLog:          slog.NewLogLogger(log.With("listener", name).Handler(), slog.LevelDebug),
	}
	return s
}

// boundsBodies gives a body that is not read by any handler so long to end: the server
// itself reads it to the end to keep the connection. A handler that reads moves that on.
func boundsBodies(h http.Handler, window time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(window))
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

// stop accepts no more requests and waits for those that run; when limit ends, it
// breaks them off.
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

// track remembers connections on which nothing was asked yet. Browsers open such ones
// ahead of need, and Shutdown would wait five seconds for each.
func (s *socket) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.unused, conn)
	case s.stopping:
		_ = conn.Close() // nothing will be answered on it
	default:
		s.unused[conn] = struct{}{}
	}
}

func (s *socket) closeUnused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for conn := range s.unused {
		_ = conn.Close() // nobody has asked anything on it
	}
}
