package grpcfront

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
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

// slowest is how many bytes of an answer a client has to read in a second, after the patience.
const slowest = 64 << 10

// watchFrom is the size from which data is watched: less fits into the windows of HTTP/2 and of the socket.
const watchFrom = 64 << 10

// watched makes a buffer of data for the client of ctx. A client that does not read it in time is cut: gRPC
// would keep it as long as the connection.
func (f *Front) watched(ctx context.Context) func(data []byte) mem.Buffer {
	return func(data []byte) mem.Buffer {
		if len(data) < watchFrom {
			return mem.SliceBuffer(data)
		}
		allowed := f.patience + time.Duration(len(data)/slowest)*time.Second
		return mem.NewBuffer(&data, unsent{time.AfterFunc(allowed, func() { f.cut(ctx) })})
	}
}

// unsent stops a timer when a buffer has been written or given up. It implements mem.BufferPool.
type unsent struct{ slow *time.Timer }

// Get implements mem.BufferPool. Nobody asks for more memory.
func (unsent) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

// Put implements mem.BufferPool.
func (u unsent) Put(*[]byte) { u.slow.Stop() }

// cut closes the connection of a client that does not read.
func (f *Front) cut(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(address); ok {
			f.o.Logger.Debug("gRPC client that reads nothing is cut", "remote", a.String())
			_ = a.socket.Close()
		}
	}
}
