package grpcfront

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// writeTimeout is the default of Front.patience.
const writeTimeout = 30 * time.Second

// guard bounds the connections of a listener, and the time that a client reads nothing.
func (f *Front) guard(l net.Listener) net.Listener {
	return &guarded{Listener: l, front: f}
}

type guarded struct {
	net.Listener

	front *Front
	open  atomic.Int64
}

// Accept implements net.Listener. A connection above the limit is closed at once.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if most := g.front.o.MaxConnections; g.open.Add(1) > int64(most) && most > 0 {
			g.open.Add(-1)
			g.front.o.Logger.Warn("gRPC connection refused", "open", most, "hint", "the limit is set with --max-connections")
			_ = c.Close()
			continue
		}
		return &socket{Conn: c, patience: g.front.patience, closed: sync.OnceFunc(func() { g.open.Add(-1) })}, nil
	}
}

// socket is a client's connection.
type socket struct {
	net.Conn

	patience time.Duration
	closed   func()
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	_ = s.SetWriteDeadline(time.Now().Add(s.patience)) // fails on a closed socket: then the write fails too
	return s.Conn.Write(b)
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.closed()
	return s.Conn.Close()
}

// RemoteAddr implements net.Conn, so that a handler finds its connection.
func (s *socket) RemoteAddr() net.Addr { return address{s.Conn.RemoteAddr(), s} }

// address is a client's address with its connection.
type address struct {
	net.Addr

	socket *socket
}
