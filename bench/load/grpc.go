package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	grpcPrefix = 5         // of a message: a flag of compression and four bytes of length
	grpcWindow = 16 << 20  // what the server may send before we allow more
	frameSize  = 16 << 10  // of HTTP/2 without other settings
	firstCount = 65_535    // of HTTP/2: the window before settings
	maxHeaders = 1_000_000 // of an answer
)

// grpcConn is a connection with one call at a time, by HTTP/2 with prior knowledge. It knows as much
// of HTTP/2 as unary calls need: the client of grpc-go uses several times the CPU of a fast server.
type grpcConn struct {
	net     net.Conn
	out     *bufio.Writer
	frames  *http2.Framer
	headers *hpack.Decoder
	status  string // of the last call's trailer
	message string
	stream  uint32 // of the last call; those of a client are odd
	body    []byte
	unread  uint32 // bytes for which no window was returned yet
	window  int64  // what we may send on the connection
	initial int64  // what we may send on a new stream
	cancel  func() bool
	goingBy bool // the server takes no more calls
}

func dialGRPC(ctx context.Context, host string) (link, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	g := &grpcConn{net: c, out: bufio.NewWriterSize(c, 32<<10), stream: ^uint32(0), window: firstCount, initial: firstCount, cancel: func() bool { return true }}
	g.frames = http2.NewFramer(g.out, bufio.NewReaderSize(c, 32<<10))
	g.frames.SetReuseFrames()
	g.frames.SetMaxReadFrameSize(1 << 20)
	g.headers = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			g.status = f.Value
		case "grpc-message":
			g.message = f.Value
		}
	})
	g.headers.SetMaxStringLength(maxHeaders)
	g.endWith(ctx)
	_, err = io.WriteString(g.out, http2.ClientPreface)
	err = errors.Join(err,
		g.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: grpcWindow}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		g.frames.WriteWindowUpdate(0, grpcWindow-firstCount), g.out.Flush())
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *grpcConn) endWith(ctx context.Context) {
	g.cancel()
	g.cancel = context.AfterFunc(ctx, func() { _ = g.net.SetDeadline(time.Unix(1, 0)) })
}

func (g *grpcConn) close() {
	g.cancel()
	_ = g.net.Close() // it is not used again
}

func (g *grpcConn) answer() []byte { return g.body[grpcPrefix:] }

func (g *grpcConn) tokens() []time.Time { return nil }

func (g *grpcConn) local() net.Addr { return g.net.LocalAddr() }

func (g *grpcConn) closing() bool { return g.goingBy }

// grpcRequest is a call's header block and its message, each behind four bytes of its length.
func grpcRequest(authority, method string, message []byte) []byte {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	e.SetMaxDynamicTableSize(0) // so that every call has the same block
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", method},
		{":authority", authority},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes everything
	}
	request := binary.BigEndian.AppendUint32(nil, uint32(block.Len()))
	request = append(request, block.Bytes()...)
	request = binary.BigEndian.AppendUint32(append(request, 0), uint32(len(message)))
	return append(request, message...)
}

// exchange makes one call.
func (g *grpcConn) exchange(request, expect []byte) error {
	size := 4 + binary.BigEndian.Uint32(request)
	block, data := request[4:size], request[size:]
	g.status, g.message, g.body = "", "", g.body[:0]
	g.stream += 2
	err := g.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: g.stream, BlockFragment: block, EndHeaders: true})
	if err != nil {
		return err
	}
	left := g.initial // of the stream
	ended := false
	for len(data) > 0 {
		n := min(int64(len(data)), frameSize, left, g.window)
		if n <= 0 {
			if err := g.out.Flush(); err != nil {
				return err
			}
			if ended, err = g.read(&left); err != nil || ended {
				return errors.Join(err, errors.New("the call ended before its message was sent"))
			}
			continue
		}
		if err := g.frames.WriteData(g.stream, int(n) == len(data), data[:n]); err != nil {
			return err
		}
		data, left, g.window = data[n:], left-n, g.window-n
	}
	if err := g.out.Flush(); err != nil {
		return err
	}
	for !ended {
		if ended, err = g.read(&left); err != nil {
			return err
		}
	}
	if g.status != "0" || len(g.body) < grpcPrefix || (expect != nil && !bytes.Equal(g.body[grpcPrefix:], expect)) {
		return &answerError{status: 200, body: fmt.Sprintf("gRPC status %q %s, %d bytes", g.status, g.message, len(g.body)), closed: g.goingBy}
	}
	return nil
}

// read takes one frame; ended means that it was the last one of the call.
func (g *grpcConn) read(left *int64) (ended bool, err error) {
	frame, err := g.frames.ReadFrame()
	if err != nil {
		return false, err
	}
	switch f := frame.(type) {
	case *http2.DataFrame:
		return g.take(f)
	case *http2.HeadersFrame:
		if !f.HeadersEnded() {
			return false, errors.New("header blocks of several frames are not read")
		}
		if _, err := g.headers.Write(f.HeaderBlockFragment()); err != nil {
			return false, err
		}
		return f.StreamEnded(), g.headers.Close()
	case *http2.SettingsFrame:
		if f.IsAck() {
			return false, nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			*left += int64(v) - g.initial
			g.initial = int64(v)
		}
		return false, errors.Join(g.frames.WriteSettingsAck(), g.out.Flush())
	case *http2.PingFrame:
		if f.IsAck() {
			return false, nil
		}
		return false, errors.Join(g.frames.WritePing(true, f.Data), g.out.Flush())
	case *http2.WindowUpdateFrame:
		switch f.StreamID {
		case 0:
			g.window += int64(f.Increment)
		case g.stream:
			*left += int64(f.Increment)
		}
	case *http2.GoAwayFrame:
		g.goingBy = true
	case *http2.RSTStreamFrame:
		if f.StreamID == g.stream {
			return false, fmt.Errorf("the server reset the call: %v", f.ErrCode)
		}
	}
	return false, nil
}

func (g *grpcConn) take(f *http2.DataFrame) (ended bool, err error) {
	if len(g.body)+len(f.Data()) > maxBody {
		return false, fmt.Errorf("the answer is larger than %d bytes", maxBody)
	}
	g.body = append(g.body, f.Data()...)
	g.unread += f.Length
	if g.unread > grpcWindow/2 || len(g.body) > grpcWindow/2 && !f.StreamEnded() {
		err = errors.Join(g.frames.WriteWindowUpdate(0, g.unread), g.frames.WriteWindowUpdate(g.stream, g.unread), g.out.Flush())
		g.unread = 0
	}
	return f.StreamEnded(), err
}
