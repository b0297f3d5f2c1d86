package listener

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// reply sends a response. Head and body are sent in one write.
func (c *conn) reply(resp *Response) {
	if resp.Stream != nil {
		c.replyStream(resp)
		return
	}
	body, gzipped, varies := c.server.o.encoded(resp, c.request.Header)
	c.beginHead(resp)
	if varies {
		c.out = append(c.out, "Vary: Accept-Encoding\r\n"...)
	}
	if gzipped {
		c.out = append(c.out, "Content-Encoding: gzip\r\n"...)
	}
	if bodyless(resp.Status) {
		body = nil
	} else {
		c.out = append(c.out, "Content-Length: "...)
		c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
		c.out = append(c.out, "\r\n"...)
	}
	c.endHead()
	if c.head.method == http.MethodHead {
		body = nil
	}
	c.write(body)
}

// encoded compresses a body where that helps and the client accepts it; varies: the answer depends
// on what the client accepts.
func (o *Options) encoded(resp *Response, header func(string) string) (body []byte, gzipped, varies bool) {
	body = resp.Body
	if o.CompressFrom < 0 || len(body) < o.CompressFrom || !compressible(resp.ContentType) || hasField(resp.Header, "Content-Encoding") {
		return body, false, false
	}
	if !acceptsGzip(header("Accept-Encoding")) {
		return body, false, true
	}
	return compress(body), true, true
}

// bodyless statuses have neither a body nor a length (RFC 9110 8.6).
func bodyless(status int) bool {
	return status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// protocol is the beginning of every response.
const protocol = "HTTP/1.1 "

// beginHead writes the status line and the response's own fields.
func (c *conn) beginHead(resp *Response) {
	c.out = append(c.out[:0], protocol[c.begun:]...)
	c.begun = 0
	c.out = strconv.AppendInt(c.out, int64(resp.Status), 10)
	c.out = append(c.out, ' ')
	c.out = append(c.out, http.StatusText(resp.Status)...)
	c.out = append(c.out, "\r\nDate: "...)
	c.out = append(c.out, *c.server.date.Load()...)
	c.out = append(c.out, "\r\n"...)
	if resp.ContentType != "" {
		c.field("Content-Type", resp.ContentType)
	}
	c.field("X-Request-Id", c.request.ID)
	for _, f := range resp.Header {
		if !framing(f.Name) {
			c.field(f.Name, f.Value)
		}
	}
	if c.server.closing.Load() || c.server.retiring.Load() {
		c.head.close = true
	}
}

func (c *conn) endHead() {
	if c.head.close {
		c.out = append(c.out, "Connection: close\r\n"...)
	} else if c.head.minor == 0 {
		c.out = append(c.out, "Connection: keep-alive\r\n"...)
	}
	c.out = append(c.out, "\r\n"...)
}

// field appends one header field. User code may set any value: line ends and other control
// characters in it become blanks, so that it cannot begin another field or response.
func (c *conn) field(name, value string) {
	if name == "" || !token([]byte(name)) {
		return
	}
	c.out = append(c.out, name...)
	c.out = append(c.out, ": "...)
	start := len(c.out)
	c.out = append(c.out, value...)
	clean(c.out[start:])
	c.out = append(c.out, "\r\n"...)
}

// clean replaces control characters by blanks.
func clean(value []byte) {
	for i, b := range value {
		if (b < ' ' && b != '\t') || b == 0x7f {
			value[i] = ' '
		}
	}
}

// cleanValue is clean for a text.
func cleanValue(value string) string {
	b := []byte(value)
	clean(b)
	return string(b)
}

// framing fields are set only by the listener.
func framing(name string) bool {
	return strings.EqualFold(name, "Content-Length") || strings.EqualFold(name, "Transfer-Encoding") || strings.EqualFold(name, "Connection") ||
		strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "Date") || strings.EqualFold(name, "X-Request-Id")
}

func hasField(fields []engine.Header, name string) bool {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z, _ := gzipWriters.Get().(*gzip.Writer)
	z.Reset(&b)
	_, err := z.Write(body)
	if err = errors.Join(err, z.Close()); err != nil { // a buffer never fails
		return body
	}
	z.Reset(io.Discard)
	gzipWriters.Put(z)
	return b.Bytes()
}

// write sends c.out and then the body.
func (c *conn) write(body []byte) {
	err := c.transmit(body)
	if err != nil {
		c.server.o.Logger.Debug("client disconnected", "request_id", c.request.ID, "err", err)
		c.head.close = true
	}
	if cap(c.out) > keepBuffer {
		c.out = nil
	}
}

func (c *conn) transmit(body []byte) error {
	if len(body) <= writeOneShot {
		c.out = append(c.out, body...)
		_, err := c.nc.Write(c.out)
		return err
	}
	c.server.answers.Add(int64(len(body)))
	defer c.server.answers.Add(-int64(len(body)))
	first := min(len(body), writeProgress)
	pieces := net.Buffers{c.out, body[:first]} // one system call, no copy
	if _, err := pieces.WriteTo(c.nc); err != nil {
		return err
	}
	for body = body[first:]; len(body) > 0; {
		c.since.Store(ticks(time.Now()))
		n := min(len(body), writeProgress)
		if _, err := c.nc.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// replyStream sends pieces as they come. An error in the middle closes the connection, so that the
// client does not treat a partial answer as complete.
func (c *conn) replyStream(resp *Response) {
	defer func() {
		if err := resp.Stream.Close(); err != nil {
			c.server.o.Logger.Debug("stream close", "err", err)
		}
	}()
	if c.raw != nil {
		_ = c.raw.Control(func(fd uintptr) { boundUnsent(int(fd)) }) // fails on a closed socket: then the write fails too
	}
	chunked := c.head.minor > 0
	c.beginHead(resp)
	if chunked {
		c.out = append(c.out, "Transfer-Encoding: chunked\r\n"...)
	} else {
		c.head.close = true // HTTP/1.0 ends a body by closing
	}
	c.endHead()
	_, err := c.nc.Write(c.out)
	if c.head.method == http.MethodHead {
		return
	}
	for err == nil {
		c.enter(phaseHandling) // a stream may pause for long: only its client is watched
		var piece []byte
		piece, err = resp.Stream.Next(c.ctx.Load())
		if err != nil || len(piece) == 0 {
			continue
		}
		c.enter(phaseWriting)
		if !chunked {
			_, err = c.nc.Write(piece)
			continue
		}
		c.out = strconv.AppendInt(c.out[:0], int64(len(piece)), 16)
		c.out = append(c.out, "\r\n"...)
		c.out = append(c.out, piece...)
		c.out = append(c.out, "\r\n"...)
		_, err = c.nc.Write(c.out)
	}
	if errors.Is(err, io.EOF) {
		if chunked {
			_, err = c.nc.Write([]byte("0\r\n\r\n"))
		} else {
			err = nil
		}
	}
	if err != nil {
		c.server.o.Logger.Debug("stream ended early", "err", err)
		c.head.close = true
		if !chunked { // a chunked body lacks its last chunk, which the client detects
			c.reset()
		}
	}
}

// reset makes the close visible as a failure to a client that reads until the connection ends.
func (c *conn) reset() {
	if tcp, ok := socketOf(c.nc).(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the socket may be closed already
	}
}

// refuse answers a request that could not be parsed, or whose body is not read, and closes the
// connection.
func (c *conn) refuse(status int, why string) {
	c.refuseAs(detailResponse(status, why))
}

// refuseAs is refuse with an answer of the handler's.
func (c *conn) refuseAs(resp *Response) {
	if c.request.ID == "" {
		c.request.ID = c.requestID("")
	}
	c.head = head{close: true, minor: 1}
	if !c.enter(phaseWriting) {
		_ = c.nc.Close()
		return
	}
	if resp.Status == http.StatusServiceUnavailable {
		resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: "1"})
	}
	c.replied = true
	c.reply(resp)
	c.linger()
}

// linger closes the connection after a response to a request whose body has not been read. An
// immediate close would reset the connection, and the client might lose the response: its remaining
// data is discarded for a while.
func (c *conn) linger() {
	defer func() { _ = c.nc.Close() }()
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || !c.enter(phaseDropping) || half.CloseWrite() != nil {
		return
	}
	end, buffer := time.Now().Add(lingerTime), c.in
	if len(buffer) == 0 {
		buffer = make([]byte, firstBuffer)
	}
	for left := lingerBytes; left > 0; {
		now := time.Now()
		next := now.Add(lingerQuiet)
		if next.After(end) {
			next = end
		}
		_ = c.nc.SetReadDeadline(next) // fails on a closed socket: then the read fails too
		n, err := c.nc.Read(buffer)
		c.since.Store(ticks(time.Now()))
		if left -= n; err != nil {
			return
		}
	}
}

// refusal is the answer to a request whose body is refused.
func (o *Options) refusal(h *Head, status int, text string) *Response {
	if r, ok := o.Handler.(Refuser); ok {
		if resp := r.Refusal(h, status, text); resp != nil {
			return resp
		}
	}
	return detailResponse(status, text)
}

func detailResponse(status int, text string) *Response {
	return &Response{Response: engine.Response{Status: status, ContentType: "application/json", Body: serving.Detail(text)}}
}
