package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"clearmlserving/inference/engine"
)

var begun = time.Now()

// ticks counts nanoseconds on a clock that nobody sets: a step of the wall clock
// makes no connection look slow.
func ticks(t time.Time) int64 { return int64(t.Sub(begun)) }

// phase is what a connection is doing; the watcher's rules depend on it.
type phase int32

const (
	phaseNew      phase = iota // nothing has been sent yet
	phaseIdle                  // between two requests
	phaseHead                  // a head has begun to arrive
	phaseBody                  // a body is arriving
	phaseHandling              // a handler is at work
	phaseWriting               // an answer is being sent
	phaseClosed
)

const (
	firstBuffer   = 4 << 10
	writeTimeout  = time.Minute // without a byte taken by the client
	lingerTime    = time.Second // for the client to read a refusal before we close
	lingerBytes   = 16 << 20    // and what is read meanwhile: a body just above the limit comes to its end
	keepBuffer    = 64 << 10    // larger buffers are not kept between requests
	keepBody      = 1 << 20     // nor larger bodies
	unproven      = 1 << 20     // what a lie about a body's length may cost
	peekAfter     = 200 * time.Millisecond
	writeOneShot  = 32 << 10  // bodies up to here are copied behind their head
	writeProgress = 512 << 10 // the piece in which large bodies are sent
)

// conn is one client's connection. All but the atomics and the context belong
// to the goroutine of serve.
type conn struct {
	server    *Lean
	nc        net.Conn
	raw       syscall.RawConn // nil when it cannot be looked at
	encrypted bool
	ctx       requestContext

	phase atomic.Int32
	since atomic.Int64 // ticks of the phase's beginning or last progress

	in      []byte // bytes read and not used yet: in[r:w]
	r, w    int
	out     []byte
	body    bytes.Buffer // bodies that do not fit behind their head in the buffer
	lent    engine.Loan  // a large body's memory, if it is not ours
	held    int64        // bytes of the request's body that server.held counts
	head    head
	request Request
	id      [16]byte
}

func newConn(s *Lean, nc net.Conn) *conn {
	c := &conn{server: s, nc: nc}
	c.request.Header = c.head.get
	c.since.Store(ticks(time.Now()))
	_, c.encrypted = nc.(*tls.Conn)
	if sc, ok := socketOf(nc).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// enter begins a phase, unless the connection has been closed meanwhile.
func (c *conn) enter(p phase) bool {
	c.since.Store(ticks(time.Now()))
	for {
		old := c.phase.Load()
		if phase(old) == phaseClosed {
			return false
		}
		if c.phase.CompareAndSwap(old, int32(p)) {
			return true
		}
	}
}

// closeIdle closes the connection if no request is under way.
func (c *conn) closeIdle() {
	if c.phase.CompareAndSwap(int32(phaseIdle), int32(phaseClosed)) || c.phase.CompareAndSwap(int32(phaseNew), int32(phaseClosed)) {
		_ = socketOf(c.nc).Close()
	}
}

// cut ends the connection whatever it is doing.
func (c *conn) cut() {
	c.phase.Store(int32(phaseClosed))
	c.ctx.cancel(context.Canceled)
	_ = socketOf(c.nc).Close()
}

// check applies the time limits; it is the watcher's.
func (c *conn) check(now time.Time) {
	quiet := time.Duration(ticks(now) - c.since.Load())
	o := &c.server.o
	switch phase(c.phase.Load()) {
	case phaseIdle:
		if quiet > o.IdleTimeout || c.server.closing.Load() {
			c.closeIdle()
		}
	case phaseNew, phaseHead: // one that sends nothing at first is slow, not idle
		if quiet > o.HeaderTimeout {
			c.cut()
		}
	case phaseBody:
		if quiet > o.BodyTimeout {
			c.cut()
		}
	case phaseWriting:
		if quiet > writeTimeout {
			c.cut()
		}
	case phaseHandling:
		if quiet > peekAfter && c.gone() {
			c.ctx.cancel(context.Canceled)
		}
	case phaseClosed:
	}
}

// gone tells whether the client has closed its side, without taking bytes that
// may be its next request.
func (c *conn) gone() bool {
	if c.raw == nil {
		return false
	}
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		if c.encrypted {
			gone = hungUp(int(fd))
			return
		}
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = (n == 0 && err == nil) || errors.Is(err, unix.ECONNRESET)
	})
	return gone && err == nil
}

// serve answers the requests of the connection one after the other.
func (c *conn) serve() {
	defer func() {
		c.phase.Store(int32(phaseClosed))
		_ = c.nc.Close()
	}()
	if !c.greet() {
		return
	}
	c.in = make([]byte, firstBuffer)
	if !c.fill() || !c.enter(phaseHead) {
		return
	}
	for c.one() {
		if c.r == c.w {
			c.r, c.w = 0, 0
			if len(c.in) > keepBuffer {
				c.in = make([]byte, firstBuffer)
			}
			if !c.enter(phaseIdle) || c.server.closing.Load() {
				return
			}
			if !c.fill() || !c.enter(phaseHead) {
				return
			}
		} else {
			c.enter(phaseHead)
		}
	}
}

// fill reads what has arrived behind in[w].
func (c *conn) fill() bool {
	n, err := c.nc.Read(c.in[c.w:])
	c.w += n
	return n > 0 || err == nil
}

// one reads and answers one request; it tells whether the connection goes on.
func (c *conn) one() bool {
	n, refusal := c.readHead()
	if refusal != nil {
		c.refuse(refusal.status, refusal.text)
		return false
	}
	if n == 0 {
		return false
	}
	if err := c.head.parse(c.in[c.r : c.r+n]); err != nil {
		c.refuse(err.status, err.text)
		return false
	}
	c.r += n
	h := &c.head
	c.request = Request{Method: h.method, Path: h.path, RawQuery: h.query, ContentType: h.get("Content-Type"), Header: c.request.Header}
	c.request.ID = c.requestID(h.get("X-Request-Id"))
	defer c.letGo()
	if err := c.readBody(); err != nil {
		c.letGo() // a refusal may take its time
		c.body = bytes.Buffer{}
		var bad *bodyError
		var malformed *headError
		switch {
		case errors.As(err, &bad):
			c.refuse(bad.status, bad.text)
		case errors.As(err, &malformed):
			c.refuse(malformed.status, malformed.text)
		}
		return false // else the client stalled or went away: nobody is there to be told
	}
	return c.answer()
}

// readHead waits until a whole head is in the buffer and returns its length, 0
// when the client has gone.
func (c *conn) readHead() (int, *headError) {
	seen := 0
	for {
		for c.w-c.r >= 2 && c.in[c.r] == '\r' && c.in[c.r+1] == '\n' && seen == 0 {
			c.r += 2 // RFC 9112 2.2: an empty line before a request is skipped
		}
		if n := headEnd(c.in[c.r:c.w], seen); n >= 0 {
			if n > c.server.o.MaxHeader {
				return 0, tooLargeHead
			}
			return n, nil
		}
		seen = c.w - c.r
		if seen > c.server.o.MaxHeader {
			return 0, tooLargeHead
		}
		c.room()
		if !c.fill() {
			return 0, nil
		}
	}
}

var tooLargeHead = &headError{http.StatusRequestHeaderFieldsTooLarge, "Request Header Fields Too Large"}

// room makes sure that something can be read behind in[w].
func (c *conn) room() {
	if c.r > 0 && c.w == len(c.in) {
		copy(c.in, c.in[c.r:c.w])
		c.w -= c.r
		c.r = 0
	}
	if c.w == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
}

// readBody makes the request's body: in place when it has arrived with its
// head, else in a buffer of its own.
func (c *conn) readBody() error {
	c.body.Reset()
	limit := c.server.o.MaxBody
	switch {
	case c.head.length == 0:
		return nil
	case c.head.length > limit:
		return tooLarge(limit)
	case c.head.length > 0 && int64(c.w-c.r) >= c.head.length:
		c.request.Body = c.in[c.r : c.r+int(c.head.length)]
		c.r += int(c.head.length)
	default:
		if !c.enter(phaseBody) {
			return net.ErrClosed
		}
		if c.head.expects {
			if _, err := c.nc.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
				return err
			}
		}
		// The head's texts point into the buffer: a body must not move it.
		body, err := c.receive(limit)
		if err != nil {
			return err
		}
		c.request.Body, c.request.Loan = body, c.lent
	}
	encoding := c.head.get("Content-Encoding")
	if encoding == "" {
		return nil
	}
	body, err := decompress(c.request.Body, encoding, limit)
	if err != nil {
		return err
	}
	c.request.Body = body
	return c.hold(len(body))
}

// hold counts bytes of this request's body among those that all connections hold.
// What has arrived together with its head is small, and not counted.
func (c *conn) hold(n int) error {
	c.held += int64(n)
	if c.server.held.Add(int64(n)) > c.server.o.MaxBodies {
		return &bodyError{http.StatusServiceUnavailable, "Too many large request bodies are held at the moment; try again"}
	}
	return nil
}

// letGo is the end of what hold counts, and of what is lent.
func (c *conn) letGo() {
	if c.lent != nil {
		c.request.Body, c.request.Loan = nil, nil
		c.lent.Release()
		c.lent = nil
	}
	if c.held > 0 {
		c.server.held.Add(-c.held)
		c.held = 0
	}
}

// receive reads a body that has not arrived with its head.
func (c *conn) receive(limit int64) ([]byte, error) {
	from := &bodyReader{c: c}
	switch {
	case c.head.length < 0:
		if err := readChunked(&c.body, from, limit); err != nil {
			return nil, err
		}
	case c.borrow(int(c.head.length)):
		_, err := io.ReadFull(from, c.lent.Bytes())
		return c.lent.Bytes(), err
	default:
		if err := c.receiveHere(from, int(c.head.length)); err != nil {
			return nil, err
		}
	}
	return c.body.Bytes(), nil
}

// borrow asks for memory that whoever answers reads a large body from. A lie about
// its length costs no more than addresses: memory is taken as bytes arrive.
func (c *conn) borrow(length int) bool {
	o := &c.server.o
	if o.Lend == nil || length < engine.LendFrom || c.head.get("Content-Encoding") != "" {
		return false
	}
	c.lent = o.Lend(c.request.Path, c.request.RawQuery, length)
	return c.lent != nil
}

// receiveHere reads a body of known length into the connection's own memory.
func (c *conn) receiveHere(from *bodyReader, length int) error {
	have := min(c.w-c.r, length)
	c.body.Grow(max(have, min(length, unproven)) + bytes.MinRead)
	c.body.Write(c.in[c.r : c.r+have])
	c.r += have
	for c.body.Len() < length {
		// What has arrived vouches for three times as much: a large body is moved
		// twice instead of at every doubling.
		room := min(length-c.body.Len(), max(3*c.body.Len(), unproven-c.body.Len()))
		c.body.Grow(room + bytes.MinRead)
		n, err := c.body.ReadFrom(io.LimitReader(from, int64(room)))
		if err != nil {
			return err
		}
		if n < int64(room) {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// bodyReader reads what is left in the buffer, then from the connection. Each
// read is progress in the watcher's eyes.
type bodyReader struct{ c *conn }

func (b *bodyReader) Read(p []byte) (int, error) {
	c := b.c
	if c.r < c.w {
		n := copy(p, c.in[c.r:c.w])
		c.r += n
		return n, nil
	}
	n, err := c.nc.Read(p)
	c.since.Store(ticks(time.Now()))
	if held := c.hold(n); held != nil {
		return n, held
	}
	return n, err
}

// ReadByte lets a chunk's head be read without taking bytes behind the body.
func (b *bodyReader) ReadByte() (byte, error) {
	c := b.c
	if c.r == c.w {
		if c.w == len(c.in) { // the head's texts keep the old memory alive
			c.in = make([]byte, len(c.in))
			c.r, c.w = 0, 0
		}
		n, err := c.nc.Read(c.in[c.w:])
		c.since.Store(ticks(time.Now()))
		c.w += n
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return 0, err
		}
	}
	one := c.in[c.r]
	c.r++
	return one, nil
}

// answer lets the handler make a response and sends it.
func (c *conn) answer() bool {
	if !c.enter(phaseHandling) {
		return false
	}
	c.ctx.begin()
	resp := c.handle()
	c.ctx.finish()
	if c.enter(phaseWriting) {
		c.reply(resp)
	}
	if resp.Done != nil {
		resp.Done()
	}
	if c.body.Cap() > keepBody {
		c.body = bytes.Buffer{}
	}
	return !c.head.close && !c.server.closing.Load() && phase(c.phase.Load()) != phaseClosed
}

// handle calls the handler; a panic of ours costs one answer, not the process.
func (c *conn) handle() (resp *Response) {
	defer func() {
		if p := recover(); p != nil {
			c.server.o.Logger.Error("handler panicked", "path", c.request.Path, "panic", p, "stack", string(debug.Stack()))
			c.head.close = true
			resp = &Response{Response: engine.Response{Status: http.StatusInternalServerError, ContentType: "application/json", Body: engine.Detail("Internal Server Error")}}
		}
	}()
	return c.server.o.Handler(&c.ctx, &c.request)
}

// requestID keeps the client's id when it can be logged, else makes one in the
// connection's own memory.
func (c *conn) requestID(given string) string {
	if given != "" && len(given) <= maxRequestID && printable(given) {
		return given
	}
	makeRequestID(&c.id)
	return text(c.id[:])
}
