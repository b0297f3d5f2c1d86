package listener

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"clearmlserving/inference/engine"
)

var begun = time.Now()

// ticks counts nanoseconds on the monotonic clock, so that a change of the system time does not
// make connections look slow.
func ticks(t time.Time) int64 { return int64(t.Sub(begun)) }

// phase is the state of a connection; the watcher's rules depend on it.
type phase int32

const (
	phaseNew        phase = iota // nothing has been sent yet
	phaseIdle                    // between two requests
	phaseHead                    // a head has begun to arrive
	phaseBody                    // a body is arriving
	phaseUnanswered              // a handler is running, and nothing of its response has been sent
	phaseProbing                 // the watcher is sending the beginning of a response; this is short
	phaseHandling                // a handler is running, and the beginning of its response has been sent
	phaseWriting                 // a response is being sent
	phaseDropping                // the body of a refused request is discarded
	phaseHTTP2                   // the rest is HTTP/2, which net/http watches
	phaseClosed
)

const (
	firstBuffer      = 4 << 10
	minBodyRate      = 1 << 10         // bytes per second, over each BodyTimeout
	writeTimeout     = time.Minute     // without a byte taken by the client
	writeTimeoutFull = 5 * time.Second // the same when many answers wait for their clients
	lingerTime       = 5 * time.Second // for the client to read a refusal before the close
	lingerQuiet      = time.Second     // or this long without a byte from the client
	lingerBytes      = 256 << 20       // maximum bytes discarded meanwhile
	dropBytes        = 256 << 10       // maximum bytes of a refused body, to keep the connection
	keepBuffer       = 64 << 10        // larger buffers are not kept between requests
	keepBody         = 1 << 20         // larger bodies are not kept either
	unproven         = 1 << 20         // maximum cost of a false length
	peekAfter        = 200 * time.Millisecond
	writeOneShot     = 32 << 10  // bodies up to this size are copied after their head
	writeProgress    = 512 << 10 // the size of writes of large bodies
)

// conn is one client's connection. Everything except the atomics belongs to the goroutine of serve.
type conn struct {
	server    *Lean
	nc        net.Conn
	raw       syscall.RawConn // nil if it cannot be inspected
	encrypted bool
	ctx       atomic.Pointer[requestContext] // of the present or the last request
	timer     *time.Timer                    // calls expire; created at the first deadline, guarded by the context's lock

	phase atomic.Int32
	since atomic.Int64 // ticks of the phase's beginning or last progress
	begun int          // bytes of the response sent by the watcher, which owns it in phaseProbing

	in      []byte // bytes read and not yet used: in[r:w]
	r, w    int
	out     []byte
	body    bytes.Buffer // bodies that do not fit after their head in the buffer
	lent    engine.Loan  // memory of a large body, if it is borrowed
	held    int64        // bytes of the request's body counted in server.held
	window  window       // the speed of the body
	head    head
	request Request
	replied bool // the response has begun
	reused  bool // a request has been answered
	id      [16]byte
}

// window is a span of time in which a body must make progress.
type window struct{ begun, last, bytes int64 }

// check returns an error if the body has arrived too slowly for as long as timeout.
func (w *window) check(timeout time.Duration) error {
	took := time.Duration(w.last - w.begun)
	if took < timeout {
		return nil
	}
	if float64(w.bytes) < minBodyRate*took.Seconds() {
		return errSlowBody
	}
	w.begun, w.bytes = w.last, 0
	return nil
}

// add counts bytes that have arrived.
func (w *window) add(n int) {
	w.last = ticks(time.Now())
	w.bytes += int64(n)
}

func newConn(s *Lean, nc net.Conn) *conn {
	c := &conn{server: s, nc: nc}
	c.request.Header, c.request.Client = c.head.get, c.client
	c.since.Store(ticks(time.Now()))
	_, c.encrypted = nc.(*tls.Conn)
	if sc, ok := socketOf(nc).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// enter begins a phase, unless the connection has been closed.
func (c *conn) enter(p phase) bool {
	c.since.Store(ticks(time.Now()))
	for {
		old := c.phase.Load()
		switch phase(old) {
		case phaseClosed:
			return false
		case phaseProbing: // ends soon: it does not block
			runtime.Gosched()
			continue
		}
		if c.phase.CompareAndSwap(old, int32(p)) {
			return true
		}
	}
}

// closeIdle closes the connection if it has no request.
func (c *conn) closeIdle() {
	if c.phase.CompareAndSwap(int32(phaseIdle), int32(phaseClosed)) || c.phase.CompareAndSwap(int32(phaseNew), int32(phaseClosed)) {
		_ = socketOf(c.nc).Close()
	}
}

// cut closes the connection in any phase.
func (c *conn) cut() {
	c.phase.Store(int32(phaseClosed))
	c.cancel()
	_ = socketOf(c.nc).Close()
}

// cancel cancels the present request.
func (c *conn) cancel() {
	if r := c.ctx.Load(); r != nil {
		r.cancel()
	}
}

// expire is called by the timer.
func (c *conn) expire() {
	if r := c.ctx.Load(); r != nil {
		r.expire()
	}
}

// check applies the time limits; it is called by the watcher.
func (c *conn) check(now time.Time) {
	// enter sets the time first. Reading in the reverse order never judges a new phase by the time
	// of the previous one.
	p := phase(c.phase.Load())
	quiet := time.Duration(ticks(now) - c.since.Load())
	o := &c.server.o
	switch p {
	case phaseIdle:
		if quiet > o.IdleTimeout || c.server.closing.Load() {
			c.closeIdle()
		}
	case phaseNew, phaseHead: // without a first byte it is slow, not idle
		if quiet > o.HeaderTimeout {
			c.cut()
		}
	case phaseBody:
		if quiet > o.BodyTimeout {
			c.cut()
		}
	case phaseDropping:
		if quiet > o.BodyTimeout || (quiet > lingerQuiet && c.server.closing.Load()) {
			c.cut()
		}
	case phaseWriting:
		if quiet > c.server.writePatience() {
			c.cut()
		}
	case phaseUnanswered, phaseHandling:
		if quiet > peekAfter {
			c.checkClient()
		}
	case phaseProbing, phaseHTTP2, phaseClosed:
	}
}

// clientState is the known state of the client.
type clientState int

const (
	clientThere clientState = iota
	clientEnded             // it has closed its sending side; it may still read
	clientGone              // the connection is broken
)

// checkClient cancels the request if its client has disconnected. A client that has closed its
// sending side may wait for the response (a half-close) or have disconnected: both look the same
// until data is sent. The first bytes of a response are always the same, so they are sent: a
// disconnected client answers them with a reset, a waiting client has the beginning of its
// response.
func (c *conn) checkClient() {
	r := c.ctx.Load()
	if c.raw == nil || r == nil {
		return
	}
	state, idle := clientThere, false
	if err := c.raw.Control(func(fd uintptr) { state, idle = look(int(fd)) }); err != nil {
		return // the socket is closed: serve will end
	}
	switch {
	case state == clientGone:
		r.cancel()
	case state == clientEnded && idle && c.phase.CompareAndSwap(int32(phaseUnanswered), int32(phaseProbing)):
		if c.begun == 0 {
			c.begun, _ = c.nc.Write([]byte(protocol)) // does not block: nothing is queued; the next check sees a failure
		}
		c.phase.CompareAndSwap(int32(phaseProbing), int32(phaseUnanswered)) // unless the connection has been cut
	}
}

// serve answers the requests of the connection in sequence.
func (c *conn) serve() {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
		c.cancel()
		c.phase.Store(int32(phaseClosed))
		_ = c.nc.Close()
	}()
	if !c.greet() {
		return
	}
	if c.choseHTTP2() {
		c.speakHTTP2()
		return
	}
	c.in = make([]byte, firstBuffer)
	if !c.fill() || !c.enter(phaseHead) {
		return
	}
	for c.one() {
		c.reused = true
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

// panicked closes a connection after a panic of the handler or of this package: a panic costs one
// response, not the process.
func (c *conn) panicked(p any) {
	c.server.o.Logger.Error("handler panicked", "path", c.request.Path, "panic", p, "stack", string(debug.Stack()))
	if c.replied {
		c.reset() // the response is incomplete
		return
	}
	c.refuse(http.StatusInternalServerError, "Internal Server Error")
}

// fill reads available bytes after in[w].
func (c *conn) fill() bool {
	n, err := c.nc.Read(c.in[c.w:])
	c.w += n
	return n > 0 || err == nil
}

// one reads and answers one request; it reports whether the connection continues.
func (c *conn) one() bool {
	c.replied = false
	c.request.ID = ""
	n, refusal := c.readHead()
	if refusal != nil {
		c.refuse(refusal.status, refusal.text)
		return false
	}
	if n == 0 {
		return false
	}
	if err := c.head.parse(c.in[c.r : c.r+n]); err != nil {
		if c.startsHTTP2(c.in[c.r : c.r+n]) {
			c.speakHTTP2()
			return false
		}
		c.refuse(err.status, err.text)
		return false
	}
	c.r += n
	h := &c.head
	c.request = Request{Head: Head{Method: h.method, Path: h.path, RawQuery: h.query, ContentType: h.get("Content-Type"), Header: c.request.Header, Client: c.request.Client}}
	c.request.ID = c.requestID(h.get("X-Request-Id"))
	if resp := c.server.o.Handler.Admit(&c.request.Head); resp != nil {
		return c.answerHead(resp)
	}
	defer c.letGo()
	if err := c.readBody(); err != nil {
		c.letGo() // a refusal has its own time limit
		c.body = bytes.Buffer{}
		var bad *bodyError
		var malformed *headError
		switch {
		case errors.As(err, &bad):
			c.server.o.Handler.Refused(&c.request.Head, bad.status)
			c.refuseAs(c.server.o.refusal(&c.request.Head, bad.status, bad.text))
		case errors.As(err, &malformed):
			c.server.o.Handler.Refused(&c.request.Head, malformed.status)
			c.refuseAs(c.server.o.refusal(&c.request.Head, malformed.status, malformed.text))
		}
		return false // else the client has stalled or disconnected
	}
	return c.answer()
}

// arrived reports whether the body is in the buffer, after its head.
func (c *conn) arrived() bool {
	return c.head.length >= 0 && int64(c.w-c.r) >= c.head.length
}

// answerHead sends a response made without the body. The body is discarded if it is short and
// certain to arrive. Else the connection is closed.
func (c *conn) answerHead(resp *Response) bool {
	arrived := c.arrived()
	if !arrived && (c.head.length < 0 || c.head.length > dropBytes || c.head.expects) {
		c.head.close = true
	}
	if !c.send(resp) {
		if !arrived {
			c.linger()
		}
		return false
	}
	left := int(c.head.length)
	have := min(c.w-c.r, left)
	c.r += have
	if left -= have; left == 0 {
		return true
	}
	c.r, c.w = 0, 0
	if !c.enter(phaseDropping) {
		return false
	}
	c.window = window{begun: c.since.Load(), last: c.since.Load()}
	for left > 0 {
		n, err := c.arrive(c.in[:min(left, len(c.in))])
		if left -= n; err != nil {
			return false
		}
	}
	return true
}

// readHead waits until a whole head is in the buffer and returns its length, 0 if the client has
// disconnected.
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
		if bareLineFeed(c.in[c.r:c.w], seen) { // its end would never be found
			return 0, errLineEnd
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

// room makes room for at least one byte after in[w].
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

// readBody reads the request's body: in place if it has arrived with its head, else into a separate
// buffer.
func (c *conn) readBody() error {
	c.body.Reset()
	limit := c.server.o.MaxBody
	switch {
	case c.head.length == 0:
		return nil
	case c.head.length > limit:
		return tooLarge(limit)
	case c.arrived():
		c.request.Body = c.in[c.r : c.r+int(c.head.length)]
		c.r += int(c.head.length)
	default:
		if err := c.acceptable(); err != nil {
			return err
		}
		if !c.enter(phaseBody) {
			return net.ErrClosed
		}
		c.window = window{begun: c.since.Load(), last: c.since.Load()}
		if c.head.expects {
			if _, err := c.nc.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
				return err
			}
		}
		// The head's texts point into the buffer, so it must not be moved for the body.
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

// acceptable checks the announced properties of a body before it is received.
func (c *conn) acceptable() error {
	if err := checkEncodings(c.head.get("Content-Encoding")); err != nil {
		return err
	}
	if c.server.held.Load()+c.head.length > c.server.o.MaxBodies {
		return errTooManyBodies
	}
	return nil
}

// hold adds this request's body to the bytes held by all connections. A body that has arrived with
// its head is small, and not counted.
func (c *conn) hold(n int) error {
	c.held += int64(n)
	if c.server.held.Add(int64(n)) > c.server.o.MaxBodies {
		return errTooManyBodies
	}
	return nil
}

var (
	errTooManyBodies = &bodyError{http.StatusServiceUnavailable, "Too many large request bodies are held at the moment; try again"}
	errSlowBody      = &bodyError{http.StatusRequestTimeout, fmt.Sprintf("The request body arrives too slowly: the minimum is %d bytes a second", minBodyRate)}
)

// letGo releases what hold has counted and borrow has borrowed.
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

// borrow asks the handler for memory for a large body. A false length costs only addresses: memory
// is used as bytes arrive.
func (c *conn) borrow(length int) bool {
	if length < engine.LendFrom || c.head.get("Content-Encoding") != "" {
		return false
	}
	c.lent = c.server.o.Handler.Lend(&c.request.Head, length)
	return c.lent != nil
}

// receiveHere reads a body of known length into the connection's own memory.
func (c *conn) receiveHere(from *bodyReader, length int) error {
	have := min(c.w-c.r, length)
	c.body.Grow(max(have, min(length, unproven)) + bytes.MinRead)
	c.body.Write(c.in[c.r : c.r+have])
	c.r += have
	for c.body.Len() < length {
		// Grow to four times what has arrived, so that a large body is copied about twice.
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

// arrive reads bytes of a body. Each read counts as progress for the watcher, which closes
// connections that pause; a body that continues too slowly is refused here.
func (c *conn) arrive(p []byte) (int, error) {
	if err := c.window.check(c.server.o.BodyTimeout); err != nil {
		return 0, err
	}
	n, err := c.nc.Read(p)
	c.window.add(n)
	c.since.Store(c.window.last)
	return n, err
}

// bodyReader reads the rest of the buffer, then from the connection.
type bodyReader struct{ c *conn }

func (b *bodyReader) Read(p []byte) (int, error) {
	c := b.c
	if c.r < c.w {
		n := copy(p, c.in[c.r:c.w])
		c.r += n
		return n, nil
	}
	n, err := c.arrive(p)
	if held := c.hold(n); held != nil {
		return n, held
	}
	return n, err
}

// ReadByte reads a chunk's head without reading beyond the body.
func (b *bodyReader) ReadByte() (byte, error) {
	c := b.c
	if c.r == c.w {
		if c.w == len(c.in) { // the head's texts keep the old memory alive
			c.in = make([]byte, len(c.in))
			c.r, c.w = 0, 0
		}
		n, err := c.arrive(c.in[c.w:])
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

// answer calls the handler and sends its response.
func (c *conn) answer() bool {
	ctx := &requestContext{c: c}
	c.ctx.Store(ctx)
	defer ctx.cancel()
	if !c.enter(phaseUnanswered) {
		return false
	}
	resp := c.server.o.Handler.Answer(ctx, &c.request)
	ctx.answered()
	// The body is no longer needed, and the client may read the answer slowly.
	c.letGo()
	if c.body.Cap() > keepBody {
		c.body = bytes.Buffer{}
	}
	return c.send(resp)
}

// send sends a response and reports whether the connection continues.
func (c *conn) send(resp *Response) bool {
	if resp.Done != nil {
		defer resp.Done()
	}
	if c.enter(phaseWriting) {
		c.replied = true
		c.reply(resp)
	}
	return !c.head.close && !c.server.closing.Load() && phase(c.phase.Load()) != phaseClosed
}

// client describes the client of the present request.
func (c *conn) client() engine.Client {
	h := &c.request.Head
	client := engine.Client{Method: h.Method, Path: h.Path, Query: h.RawQuery, Address: hostOf(c.nc.RemoteAddr())}
	for _, f := range c.head.fields {
		if value, ok := c.server.o.Handler.Shown(f.name, f.value); ok {
			client.Header = append(client.Header, engine.Header{Name: f.name, Value: value})
		}
	}
	return client
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil { // no TCP
		return addr.String()
	}
	return host
}

// requestID keeps the client's id if it can be logged, else makes one in the connection's own
// memory.
func (c *conn) requestID(given string) string {
	if given != "" && len(given) <= maxRequestID && printable(given) {
		return given
	}
	makeRequestID(&c.id)
	return text(c.id[:])
}
