package listener

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"clearmlserving/inference/engine"
)

// HTTP/2 is used with clients that begin with its preface, as proxies do without TLS, and with
// those that choose it in the TLS handshake. net/http implements the protocol; this file adds the limits
// and calls the Handler. A request in HTTP/1.1 to upgrade to h2c is ignored: RFC 9113 has
// removed it, and a proxy that forwards it would let its client reach hidden paths.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	maxStreams     = 128              // requests of one connection at the same time
	maxUnread      = 1 << 20          // bytes of bodies of one connection that no handler has read
	pingAfter      = 30 * time.Second // without a frame from the client
	pingTimeout    = 15 * time.Second
	deadlineMargin = time.Second // a stream's deadline is set again if it differs by more
)

// http2 is a net/http server for the connections from conn.speakHTTP2. It is also their
// net.Listener.
type http2 struct {
	lean   *Lean
	server *http.Server
	handed chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex // guards conns
	conns map[net.Conn]*http2Conn
}

// http2Conn is a connection of the net/http server.
type http2Conn struct {
	done chan struct{} // closed when net/http has closed it

	mu      sync.Mutex // guards ended
	ended   bool
	streams sync.WaitGroup
}

type http2Key struct{}

func newHTTP2(s *Lean) *http2 {
	h := &http2{lean: s, handed: make(chan net.Conn), closed: make(chan struct{}), conns: map[net.Conn]*http2Conn{}}
	o := &s.o
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h.server = &http.Server{
		Handler: h, Protocols: &protocols, MaxHeaderBytes: o.MaxHeader,
		ReadHeaderTimeout: o.HeaderTimeout, IdleTimeout: o.IdleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnread,
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeTimeout,
		},
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, http2Key{}, h.find(nc))
		},
		ConnState: func(nc net.Conn, state http.ConnState) {
			if c := h.find(nc); c != nil && state == http.StateClosed {
				close(c.done)
			}
		},
	}
	return h
}

func (h *http2) find(nc net.Conn) *http2Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns[nc]
}

// Accept implements net.Listener.
func (h *http2) Accept() (net.Conn, error) {
	select {
	case nc := <-h.handed:
		return nc, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *http2) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *http2) Addr() net.Addr { return &net.TCPAddr{} }

// serve serves a connection until it and its requests have ended.
func (h *http2) serve(nc net.Conn) {
	c := &http2Conn{done: make(chan struct{})}
	h.mu.Lock()
	h.conns[nc] = c
	h.mu.Unlock()
	select {
	case h.handed <- nc:
		<-c.done
		c.wait()
	case <-h.closed:
	}
	h.mu.Lock()
	delete(h.conns, nc)
	h.mu.Unlock()
}

// begin counts a request, unless its connection has ended.
func (c *http2Conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.streams.Add(1)
	}
	return !c.ended
}

// wait waits for the requests of a connection that has ended: net/http has cancelled them.
func (c *http2Conn) wait() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.streams.Wait()
}

// startsHTTP2 reports whether the first request's head is the beginning of the preface, and waits
// for the rest of it.
func (c *conn) startsHTTP2(head []byte) bool {
	if c.reused || c.encrypted || string(head) != preface[:len(preface)-len("SM\r\n\r\n")] {
		return false
	}
	for c.w-c.r < len(preface) {
		c.room()
		if !c.fill() {
			return false
		}
	}
	return bytes.HasPrefix(c.in[c.r:c.w], []byte(preface))
}

// speakHTTP2 serves the rest of the connection in HTTP/2. net/http watches its time limits.
func (c *conn) speakHTTP2() {
	if !c.enter(phaseHTTP2) {
		return
	}
	nc := c.nc
	if c.r < c.w {
		nc = &replayed{Conn: c.nc, rest: c.in[c.r:c.w]}
	}
	c.in = nil
	c.server.http2.serve(nc)
}

// replayed is a connection with bytes that have already been read.
type replayed struct {
	net.Conn
	rest []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// ServeHTTP answers one request.
func (h *http2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(http2Key{}).(*http2Conn)
	if c == nil || !c.begin() {
		panic(http.ErrAbortHandler)
	}
	defer c.streams.Done()
	x := &stream{server: h.lean, w: w, r: r, control: http.NewResponseController(w)}
	defer x.recovered()
	x.serve()
}

// stream is one request in HTTP/2, with its response.
type stream struct {
	server  *Lean
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController

	request Request
	body    bytes.Buffer
	lent    engine.Loan
	held    int64 // bytes of the body counted in server.held
	window  window
	until   time.Time // the read deadline
	replied bool      // the response has begun
}

func (x *stream) serve() {
	r := x.r
	x.request.ID = requestIDOf(r.Header.Get("X-Request-Id"))
	var target head
	if err := target.target([]byte(r.RequestURI)); err != nil {
		x.send(detailResponse(err.status, err.text))
		return
	}
	x.request.Head = Head{
		Method: r.Method, Path: target.path, RawQuery: target.query, ContentType: r.Header.Get("Content-Type"),
		ID: x.request.ID, Header: x.header, Client: x.client,
	}
	resp := x.server.o.Handler.Admit(&x.request.Head)
	if resp == nil {
		resp = x.answer()
	}
	x.send(resp)
}

func (x *stream) header(name string) string {
	if strings.EqualFold(name, "Host") {
		return x.r.Host
	}
	return x.r.Header.Get(name)
}

// client describes the client.
func (x *stream) client() engine.Client {
	h := &x.request.Head
	address := x.r.RemoteAddr
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	client := engine.Client{Method: h.Method, Path: h.Path, Query: h.RawQuery, Address: address}
	show := func(name, value string) {
		if value, ok := x.server.o.Handler.Shown(name, value); ok {
			client.Header = append(client.Header, engine.Header{Name: name, Value: value})
		}
	}
	show("Host", x.r.Host)
	for name, values := range x.r.Header {
		for _, value := range values {
			show(name, value)
		}
	}
	return client
}

// answer reads the body and calls the handler.
func (x *stream) answer() *Response {
	defer x.letGo()
	if err := x.readBody(); err != nil {
		if bad, ok := errors.AsType[*bodyError](err); ok {
			x.server.o.Handler.Refused(&x.request.Head, bad.status)
			resp := x.server.o.refusal(&x.request.Head, bad.status, bad.text)
			if bad.status == http.StatusServiceUnavailable {
				resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: "1"})
			}
			return resp
		}
		panic(http.ErrAbortHandler) // the client has stalled or disconnected
	}
	return x.server.o.Handler.Answer(x.r.Context(), &x.request)
}

func (x *stream) readBody() error {
	length, limit, encoding := x.r.ContentLength, x.server.o.MaxBody, x.r.Header.Get("Content-Encoding")
	if length == 0 {
		return nil
	}
	if err := checkEncodings(encoding); err != nil {
		return err
	}
	switch {
	case length > limit:
		return tooLarge(limit)
	case x.server.held.Load()+length > x.server.o.MaxBodies:
		return errTooManyBodies
	case length >= engine.LendFrom && encoding == "":
		x.lent = x.server.o.Handler.Lend(&x.request.Head, int(length))
	}
	now := ticks(time.Now())
	x.window = window{begun: now, last: now}
	if x.lent != nil {
		if _, err := io.ReadFull(x, x.lent.Bytes()); err != nil {
			return err
		}
		x.request.Body, x.request.Loan = x.lent.Bytes(), x.lent
		return nil
	}
	if err := readBody(&x.body, x, length, limit); err != nil {
		return err
	}
	x.request.Body = x.body.Bytes()
	if encoding == "" {
		return nil
	}
	body, err := decompress(x.request.Body, encoding, limit)
	if err != nil {
		return err
	}
	x.request.Body = body
	return x.hold(len(body))
}

// Read reads the body with the limits of conn.arrive.
func (x *stream) Read(p []byte) (int, error) {
	timeout := x.server.o.BodyTimeout
	if err := x.window.check(timeout); err != nil {
		return 0, err
	}
	if until := time.Now().Add(timeout); until.Sub(x.until) > min(deadlineMargin, timeout/8) {
		x.until = until
		if err := x.control.SetReadDeadline(until); err != nil {
			return 0, err
		}
	}
	n, err := x.r.Body.Read(p)
	x.window.add(n)
	if held := x.hold(n); held != nil {
		return n, held
	}
	return n, err
}

// hold is conn.hold for a request of HTTP/2.
func (x *stream) hold(n int) error {
	x.held += int64(n)
	if x.server.held.Add(int64(n)) > x.server.o.MaxBodies {
		return errTooManyBodies
	}
	return nil
}

// letGo releases the bytes counted by hold, and lent memory.
func (x *stream) letGo() {
	x.request.Body, x.request.Loan = nil, nil
	x.body = bytes.Buffer{}
	if x.lent != nil {
		x.lent.Release()
		x.lent = nil
	}
	x.server.held.Add(-x.held)
	x.held = 0
}

// send sends a response.
func (x *stream) send(resp *Response) {
	if resp.Done != nil {
		defer resp.Done()
	}
	x.replied = true
	header := x.w.Header()
	header["Content-Type"] = nil // never guessed
	if resp.ContentType != "" {
		header["Content-Type"] = []string{cleanValue(resp.ContentType)}
	}
	header["X-Request-Id"] = []string{x.request.ID}
	for _, f := range resp.Header {
		if f.Name != "" && token([]byte(f.Name)) && !framing(f.Name) {
			header.Add(f.Name, cleanValue(f.Value))
		}
	}
	if x.server.closing.Load() || x.server.retiring.Load() {
		header["Connection"] = []string{"close"} // net/http ends the connection after its requests
	}
	if resp.Stream != nil {
		x.sendStream(resp)
		return
	}
	body, gzipped, varies := x.server.o.encoded(resp, x.header)
	if varies {
		header.Add("Vary", "Accept-Encoding")
	}
	if gzipped {
		header["Content-Encoding"] = []string{"gzip"}
	}
	if bodyless(resp.Status) {
		body = nil
	} else {
		header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	x.w.WriteHeader(resp.Status)
	if len(body) > writeOneShot {
		x.server.answers.Add(int64(len(body)))
		defer x.server.answers.Add(-int64(len(body)))
	}
	if err := x.write(body); err != nil {
		x.server.o.Logger.Debug("client disconnected", "request_id", x.request.ID, "err", err)
		panic(http.ErrAbortHandler)
	}
}

// write sends bytes of a body; the client's time limit applies to each piece.
func (x *stream) write(body []byte) error {
	for len(body) > 0 {
		if err := x.control.SetWriteDeadline(time.Now().Add(x.server.writePatience())); err != nil {
			return err
		}
		n, err := x.w.Write(body[:min(len(body), writeProgress)])
		if err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// sendStream sends pieces as they come. An error in the middle resets the stream, so that the
// client does not treat a partial answer as complete.
func (x *stream) sendStream(resp *Response) {
	defer func() {
		if err := resp.Stream.Close(); err != nil {
			x.server.o.Logger.Debug("stream close", "err", err)
		}
	}()
	x.w.WriteHeader(resp.Status)
	if x.r.Method == http.MethodHead {
		return
	}
	err := x.control.Flush()
	for err == nil {
		if err = x.control.SetWriteDeadline(time.Time{}); err != nil { // a stream may pause for long
			break
		}
		var piece []byte
		if piece, err = resp.Stream.Next(x.r.Context()); err != nil || len(piece) == 0 {
			continue
		}
		if err = x.write(piece); err == nil {
			err = x.control.Flush()
		}
	}
	if !errors.Is(err, io.EOF) {
		x.server.o.Logger.Debug("stream ended early", "err", err)
		panic(http.ErrAbortHandler)
	}
}

// recovered ends a request after a panic of the handler or of this package: a panic costs one
// response.
func (x *stream) recovered() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // compared as in net/http
		panic(p)
	}
	x.server.o.Logger.Error("handler panicked", "path", x.request.Path, "panic", p, "stack", string(debug.Stack()))
	if x.replied {
		panic(http.ErrAbortHandler)
	}
	x.send(detailResponse(http.StatusInternalServerError, "Internal Server Error"))
}

func requestIDOf(given string) string {
	if given != "" && len(given) <= maxRequestID && printable(given) {
		return given
	}
	var id [16]byte
	makeRequestID(&id)
	return string(id[:])
}
