package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds an answer; a larger one is an error of the server.
const maxBody = 64 << 20

// answerError is a complete answer that is wrong.
type answerError struct {
	status int
	body   string
	closed bool // the server closes the connection after it
}

func (e *answerError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.body) }

// link is one persistent connection. It is used by one goroutine.
type link interface {
	// exchange sends the request and reads one complete answer. A wrong one is an *answerError.
	exchange(request, expect []byte) error
	// answer is the body of the last answer, until the next exchange.
	answer() []byte
	// tokens are the times of the last answer's chunks with the token, until the next exchange.
	tokens() []time.Time
	// closing means that the server closes the connection after the last answer.
	closing() bool
	// endWith interrupts a waiting read when ctx ends, by its deadline.
	endWith(ctx context.Context)
	local() net.Addr
	close()
}

// dialer opens a link to a host.
type dialer func(ctx context.Context, host string) (link, error)

// conn is a link of HTTP/1.1.
type conn struct {
	net    net.Conn
	in     *bufio.Reader
	body   []byte // kept between answers
	token  []byte
	times  []time.Time // of chunks with the token
	last   bool        // the server announced that it closes after the last answer
	cancel func() bool
}

func dialHTTP(token []byte) dialer {
	return func(ctx context.Context, host string) (link, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", host)
		if err != nil {
			return nil, err
		}
		opened := &conn{net: c, in: bufio.NewReaderSize(c, 16<<10), token: token, cancel: func() bool { return true }}
		opened.endWith(ctx)
		return opened, nil
	}
}

func (c *conn) answer() []byte { return c.body }

func (c *conn) tokens() []time.Time { return c.times }

func (c *conn) local() net.Addr { return c.net.LocalAddr() }

func (c *conn) closing() bool { return c.last }

func (c *conn) endWith(ctx context.Context) {
	c.cancel()
	c.cancel = context.AfterFunc(ctx, func() { _ = c.net.SetDeadline(time.Unix(1, 0)) })
}

func (c *conn) close() {
	c.cancel()
	_ = c.net.Close() // it is not used again
}

func (c *conn) exchange(request, expect []byte) error {
	c.times = c.times[:0]
	if _, err := c.net.Write(request); err != nil {
		return err
	}
	status, length, err := c.readHeader()
	if err != nil {
		return err
	}
	if err := c.readBody(length); err != nil {
		return err
	}
	if status != 200 || (expect != nil && !bytes.Equal(c.body, expect)) {
		return &answerError{status: status, body: string(c.body[:min(len(c.body), 200)]), closed: c.last}
	}
	return nil
}

// chunkedLength is the length of a chunked body.
const chunkedLength = -1

// readHeader reads status line and header; length is that of the body.
func (c *conn) readHeader() (status, length int, err error) {
	line, err := c.line()
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, 0, fmt.Errorf("not an HTTP answer: %q", line)
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, 0, fmt.Errorf("not an HTTP status: %q", line)
	}
	c.last = bytes.HasPrefix(line, []byte("HTTP/1.0"))
	length = 0
	told := false
	for {
		line, err := c.line()
		if err != nil {
			return 0, 0, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil || length < 0 || length > maxBody {
				return 0, 0, fmt.Errorf("unusable length of the answer: %q", value)
			}
			told = true
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if strings.EqualFold(string(bytes.TrimSpace(value)), "chunked") {
				length, told = chunkedLength, true
			}
		case bytes.EqualFold(name, []byte("Connection")):
			if strings.EqualFold(string(bytes.TrimSpace(value)), "close") {
				c.last = true
			}
		}
	}
	if !told && status != 204 && status != 304 {
		return 0, 0, errors.New("the answer has neither a length nor chunked encoding")
	}
	return status, length, nil
}

// line reads one line without its end. It is valid until the next read.
func (c *conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (c *conn) readBody(length int) error {
	c.body = c.body[:0]
	if length != chunkedLength {
		return c.take(length)
	}
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(string(line), ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if err != nil {
			return fmt.Errorf("unusable size of a chunk: %q", line)
		}
		if n == 0 {
			for { // trailers, until the empty line
				line, err := c.line()
				if err != nil || len(line) == 0 {
					return err
				}
			}
		}
		if err := c.take(int(n)); err != nil {
			return err
		}
		if c.token != nil && bytes.Contains(c.body[len(c.body)-int(n):], c.token) {
			c.times = append(c.times, time.Now())
		}
		if _, err := c.line(); err != nil {
			return err
		}
	}
}

// take appends n bytes to the body.
func (c *conn) take(n int) error {
	have := len(c.body)
	if have+n > maxBody {
		return fmt.Errorf("the answer is larger than %d bytes", maxBody)
	}
	if cap(c.body) < have+n {
		c.body = append(make([]byte, 0, 2*(have+n)), c.body...)
	}
	c.body = c.body[:have+n]
	_, err := io.ReadFull(c.in, c.body[have:])
	return err
}
