package grpcfront

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"

	"clearmlserving/inference"
)

// writeTimeout is the default of Front.patience.
const writeTimeout = 30 * time.Second

// guard bounds the connections of a listener, and the time that a client reads nothing.
func (f *Front) guard(l net.Listener) net.Listener {
	return &guarded{Listener: l, front: f, open: map[*socket]struct{}{}}
}

type guarded struct {
	net.Listener

	front    *Front
	arriving arrivals

	mu   sync.Mutex // guards the rest
	open map[*socket]struct{}
}

// Accept implements net.Listener. A connection above the limit is closed at once.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := &socket{Conn: c, guard: g, arrival: newArrival(&g.arriving)}
		if g.add(s) {
			return s, nil
		}
		g.front.o.Logger.Warn("gRPC connection refused", "open", g.front.o.MaxConnections, "hint", "the limit is set with --max-connections")
		_ = c.Close()
	}
}

// add reports whether there may be another connection, and adds it.
func (g *guarded) add(s *socket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if most := g.front.o.MaxConnections; most > 0 && len(g.open) >= most {
		return false
	}
	g.open[s] = struct{}{}
	return true
}

func (g *guarded) remove(s *socket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, s)
}

// relieve refuses messages that are not whole until the others hold no more than most: the largest one of the connection
// that holds most is the first, so that others go on. If refusals do not help, as of messages for which no handler
// waits, connections are cut once as much again is held.
func (g *guarded) relieve(most int64) {
	for g.arriving.held.Load() > most {
		worst := g.worst(func(a *arrival) int64 { return a.held.Load() })
		if worst == nil || !worst.arrival.refuse() {
			return // it is over
		}
	}
	for g.arriving.held.Load()+g.arriving.stuck.Load() > 2*most {
		worst := g.worst(func(a *arrival) int64 { return a.held.Load() + a.stuck.Load() })
		if worst == nil {
			return
		}
		g.front.o.Logger.Warn("gRPC connection cut, too much is arriving", "remote", worst.Conn.RemoteAddr(), "hint", "messages that are not whole may have 8 times --max-body together")
		_ = worst.Close()
	}
}

// worst is the connection that has most of something, nil if none has any.
func (g *guarded) worst(has func(*arrival) int64) (worst *socket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	most := int64(0)
	for s := range g.open {
		if n := has(s.arrival); n > most {
			worst, most = s, n
		}
	}
	return worst
}

// socket is a client's connection.
type socket struct {
	net.Conn

	guard   *guarded
	arrival *arrival
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.arrival.received(b[:n])
	if most := maxBodies * s.guard.front.o.MaxBody; s.guard.arriving.held.Load()+s.guard.arriving.stuck.Load() > most {
		s.guard.relieve(most)
	}
	return n, err
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	s.arrival.sent(b)
	_ = s.SetWriteDeadline(time.Now().Add(s.guard.front.patience)) // fails on a closed socket: then the write fails too
	return s.Conn.Write(b)
}

// Close implements net.Conn.
func (s *socket) Close() error {
	s.guard.remove(s)
	err := s.Conn.Close()
	s.arrival.close()
	return err
}

// RemoteAddr implements net.Conn, so that a handler finds its connection.
func (s *socket) RemoteAddr() net.Addr { return address{s.Conn.RemoteAddr(), s} }

// address is a client's address with its connection.
type address struct {
	net.Addr

	socket *socket
}

// errTooMany refuses a message that is not whole.
var errTooMany = &inference.Failure{Kind: inference.KindOverloaded, Text: tooMany} //nolint:gochecknoglobals // a constant

// refusals returns what is closed when the message of a call is refused; nil if it has arrived.
func (f *Front) refusals(ctx context.Context) <-chan struct{} {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(address); ok {
			return a.socket.arrival.awaited(streamOf(ctx))
		}
	}
	return nil
}

// read receives a message. A panic of a decoder costs the call: the goroutine may be none that recovers.
func (f *Front) read(receive func(any) error, to any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = f.panicked("receive", p)
		}
	}()
	return receive(to) // the client has been told of an error
}

// receive receives the message of a call. If it fails, it calls left when gRPC does not use to any more.
func (f *Front) receive(ctx context.Context, receive func(any) error, to any, left func()) error {
	refused := f.refusals(ctx)
	if refused == nil {
		err := f.read(receive, to)
		if err != nil {
			left()
		}
		return err
	}
	received := make(chan error, 1)
	go func() { received <- f.read(receive, to) }() // ends with the call at the latest
	select {
	case err := <-received:
		if err != nil {
			left()
		}
		return err
	case <-refused:
		go func() {
			<-received //nolint:errcheck // the client has its answer
			left()
		}()
		return f.fail(ctx, errTooMany)
	}
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
