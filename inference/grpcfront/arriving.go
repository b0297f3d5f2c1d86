package grpcfront

import (
	"context"
	"encoding/binary"
	"reflect"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// gRPC keeps what it has read of a message until the message is whole, bounds each message only, and tells nobody before.
// So the frames of HTTP/2 are followed here in both directions of a connection, as far as they tell how much of messages
// that are not whole is in memory. A handler whose message is not whole yet receives it apart, so that it can refuse it.

// The parts of HTTP/2 and gRPC that are read.
const (
	prefaceLength   = 24 // of a client, before its first frame
	frameHeadLength = 9
	messageHead     = 5 // of a message of gRPC: is it compressed, its length

	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3

	flagEndStream = 0x1
	flagPadded    = 0x8
)

// frameCost is what gRPC needs for a frame of a message beside its bytes, at most.
const frameCost = 512

// frames splits the bytes of one direction into frames.
type frames struct {
	skip int // bytes before the first frame
	head [frameHeadLength]byte
	have int // bytes of head
	left int // bytes of the payload that are still to come
}

// piece is a part of a frame.
type piece struct {
	kind, flags byte
	stream      uint32
	length      int // of the frame's payload
	payload     []byte
	first, last bool
}

// next returns the next piece of b and what follows it. ok is false if b has no more.
func (f *frames) next(b []byte) (p piece, rest []byte, ok bool) {
	if f.skip > 0 {
		n := min(f.skip, len(b))
		f.skip -= n
		b = b[n:]
	}
	if len(b) == 0 {
		return piece{}, nil, false
	}
	if f.have < frameHeadLength {
		n := copy(f.head[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have < frameHeadLength {
			return piece{}, nil, false
		}
		p.first = true
		f.left = f.length()
	}
	n := min(f.left, len(b))
	f.left -= n
	p.kind, p.flags, p.length, p.payload, p.last = f.head[3], f.head[4], f.length(), b[:n], f.left == 0
	p.stream = binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31)
	if p.last {
		f.have = 0
	}
	return p, b[n:], true
}

func (f *frames) length() int {
	return int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
}

// unfinished is the message that a stream sends.
type unfinished struct {
	head [messageHead]byte
	have int   // bytes of head
	left int   // bytes of it that are still to come
	held int64 // what it needs until it is whole

	refused chan struct{} // closed when it is refused; nil: no handler waits for it
	over    bool          // it is refused
}

// add adds bytes of the stream, which may be of several messages.
func (m *unfinished) add(data []byte) {
	m.held += frameCost
	for len(data) > 0 {
		if m.have < messageHead {
			n := copy(m.head[m.have:], data)
			m.have += n
			m.held += int64(n)
			data = data[n:]
			if m.have < messageHead {
				return
			}
			m.left = int(binary.BigEndian.Uint32(m.head[1:]))
		}
		n := min(m.left, len(data))
		m.left -= n
		m.held += int64(n)
		data = data[n:]
		if m.left == 0 {
			m.have, m.held = 0, 0
		}
	}
}

// arrivals are those of all connections together.
type arrivals struct {
	held  atomic.Int64 // by messages that are not whole
	stuck atomic.Int64 // by those that are refused, until gRPC has ended their streams
}

// arrival follows the messages of a connection that are not whole.
type arrival struct {
	mu      sync.Mutex // guards what follows
	in, out frames
	streams map[uint32]unfinished // that have begun, and that neither side has ended
	data    int                   // bytes of the current frame of the client that are data
	padded  bool                  // the first byte of its payload is still to come, which is the length of the padding
	closed  bool

	held, stuck atomic.Int64 // of the connection
	all         *arrivals
}

func newArrival(all *arrivals) *arrival {
	return &arrival{in: frames{skip: prefaceLength}, streams: map[uint32]unfinished{}, all: all}
}

// received follows what the client has sent.
func (a *arrival) received(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, rest, ok := a.in.next(b); ok; p, rest, ok = a.in.next(rest) {
		switch p.kind {
		case frameHeaders:
			if _, known := a.streams[p.stream]; p.first && !known {
				a.streams[p.stream] = unfinished{}
			}
		case frameData:
			a.add(&p)
		}
		if p.last && ends(&p) {
			a.end(p.stream)
		}
	}
}

// sent follows what the server has sent.
func (a *arrival) sent(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, rest, ok := a.out.next(b); ok; p, rest, ok = a.out.next(rest) {
		if p.first && ends(&p) {
			a.end(p.stream)
		}
	}
}

// ends reports whether a side ends a stream with a frame: nobody reads what the client sends after the server has.
func ends(p *piece) bool {
	switch p.kind {
	case frameData, frameHeaders:
		return p.flags&flagEndStream != 0
	}
	return p.kind == frameReset
}

func (a *arrival) end(stream uint32) {
	if m, ok := a.streams[stream]; ok {
		delete(a.streams, stream)
		a.count(&m, -m.held)
	}
}

// add adds a piece of a frame with data.
func (a *arrival) add(p *piece) {
	if p.first {
		a.data, a.padded = p.length, p.flags&flagPadded != 0
	}
	payload := p.payload
	if a.padded && len(payload) > 0 {
		a.padded = false
		a.data = max(0, a.data-1-int(payload[0]))
		payload = payload[1:]
	}
	payload = payload[:min(a.data, len(payload))]
	a.data -= len(payload)
	m, ok := a.streams[p.stream]
	if !ok || len(payload) == 0 {
		return
	}
	held := m.held
	if m.add(payload); held != 0 || m.held != 0 {
		a.streams[p.stream] = m
		a.count(&m, m.held-held)
	}
}

func (a *arrival) count(m *unfinished, n int64) {
	switch {
	case n == 0 || a.closed:
	case m.over:
		a.stuck.Add(n)
		a.all.stuck.Add(n)
	default:
		a.held.Add(n)
		a.all.held.Add(n)
	}
}

// awaited returns what is closed when the message of a stream is refused; nil if the client has sent all of it.
func (a *arrival) awaited(stream uint32) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.streams[stream]
	if !ok {
		return nil
	}
	if m.refused == nil {
		if m.refused = make(chan struct{}); m.over {
			close(m.refused)
		}
		a.streams[stream] = m
	}
	return m.refused
}

// refuse refuses the largest message of the connection. It is false if there is none.
func (a *arrival) refuse() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	var largest uint32
	var most int64
	for stream, m := range a.streams {
		if m.held > most && !m.over {
			largest, most = stream, m.held
		}
	}
	if most == 0 || a.closed {
		return false
	}
	m := a.streams[largest]
	a.count(&m, -m.held)
	m.over = true
	a.count(&m, m.held)
	a.streams[largest] = m
	if m.refused != nil {
		close(m.refused)
	}
	return true
}

// close ends the count of the connection.
func (a *arrival) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.all.held.Add(-a.held.Swap(0))
	a.all.stuck.Add(-a.stuck.Swap(0))
}

// streamFields finds the number of a call's stream, which gRPC has and does not tell.
var streamFields sync.Map //nolint:gochecknoglobals // type -> index of its field id

// streamOf is the number of the stream of a call, 0 if it is unknown.
func streamOf(ctx context.Context) uint32 {
	v := reflect.ValueOf(grpc.ServerTransportStreamFromContext(ctx))
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return 0
	}
	v = v.Elem()
	index, ok := streamFields.Load(v.Type())
	if !ok {
		field, _ := v.Type().FieldByName("id") // without one, its index is nil
		index, _ = streamFields.LoadOrStore(v.Type(), field.Index)
	}
	path, _ := index.([]int)
	if path == nil {
		return 0
	}
	if id := v.FieldByIndex(path); id.CanUint() {
		return uint32(id.Uint()) //nolint:gosec // of 31 bits
	}
	return 0
}
