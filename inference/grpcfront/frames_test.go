package grpcfront_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
)

// wire is a client that writes frames of its own.
type wire struct {
	*http2.Framer

	conn net.Conn
}

func connect(tb testing.TB, addr string) wire {
	tb.Helper()
	conn, err := new(net.Dialer).DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience)) // a new socket has no error
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		tb.Fatal(err)
	}
	w := wire{http2.NewFramer(conn, conn), conn}
	if err := w.WriteSettings(); err != nil {
		tb.Fatal(err)
	}
	return w
}

// ask begins a request.
func (w wire) ask(t *testing.T, id uint32, method string, fields ...hpack.HeaderField) {
	t.Helper()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, fields...) {
		if err := enc.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
}

// frame is a message of gRPC of a length that may be false.
func frame(length uint32, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), message...)
}

const inferPath = "/inference.GRPCInferenceService/ModelInfer"

// status reads until the trailers of a request, and returns its code; "" if the connection or the
// request ends without.
func (w wire) status(t *testing.T, id uint32) string {
	t.Helper()
	dec := hpack.NewDecoder(4096, nil)
	for {
		f, err := w.ReadFrame()
		if err != nil {
			return ""
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return ""
			}
		case *http2.GoAwayFrame:
			return f.ErrCode.String()
		case *http2.HeadersFrame:
			fields, err := dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range fields {
				if field.Name == "grpc-status" && f.StreamID == id {
					return field.Value
				}
			}
		}
	}
}

func TestBrokenFramesCostTheirRequestOnly(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1 << 20 }, "echo")
	message := marshal(t, floats("echo", 1, 2))
	for name, tc := range map[string]struct {
		data []byte
		end  bool
		want string // a code, or "" if the client leaves
	}{
		"a whole one":                  {frame(uint32(len(message)), message), true, "0"},
		"half a head, then the end":    {[]byte{0, 0}, true, "13"},
		"half a frame, then the end":   {frame(uint32(len(message)), message[:5]), true, "13"},
		"half a frame, then nobody":    {frame(uint32(len(message)), message[:5]), false, ""},
		"no message":                   {nil, true, "13"},
		"a length above the limit":     {frame(1<<30, message), false, "8"},
		"a length of 4 GiB":            {frame(1<<32-1, message), false, "8"},
		"a compressed message of none": {append([]byte{1}, frame(uint32(len(message)), message)[1:]...), true, "13"},
		"garbage":                      {frame(4, []byte{0xff, 0xff, 0xff, 0xff}), true, "3"},
	} {
		w := connect(t, r.addr)
		w.ask(t, 1, inferPath)
		if err := w.WriteData(1, tc.end, tc.data); err != nil {
			t.Fatal(err)
		}
		if tc.want == "" {
			_ = w.conn.Close()
			continue
		}
		if got := w.status(t, 1); got != tc.want {
			t.Errorf("%s: code %q, want %q", name, got, tc.want)
		}
	}
	r.idle(t)
	if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestBytesThatAreNoHTTP2AreCutOff(t *testing.T) {
	r := start(t, nil, "echo")
	for name, text := range map[string]string{
		"HTTP/1.1": "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "TLS": "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 padding that makes it as long as the preface",
		"a preface and garbage": http2.ClientPreface + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience)) // a new socket has no error
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		_ = conn.Close()
	}
	if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestAClientThatPingsWithoutEndIsCut(t *testing.T) {
	r := start(t, nil, "echo")
	w := connect(t, r.addr)
	for range 10 {
		if err := w.WritePing(false, [8]byte{}); err != nil {
			break // it has been cut already
		}
	}
	if got := w.status(t, 1); got != "ENHANCE_YOUR_CALM" {
		t.Errorf("%q", got)
	}
}

func TestAClientThatDoesNotReadAnAnswerIsCut(t *testing.T) {
	r := startPatient(t, 200*time.Millisecond, nil, "echo")
	message := marshal(t, &pb.ModelInferRequest{
		ModelName: "echo", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1 << 14, 2}}}, RawInputContents: [][]byte{make([]byte, 1<<17)},
	})
	ask := func(window uint32) wire {
		w := connect(t, r.addr)
		if err := w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteWindowUpdate(0, 1<<20); err != nil {
			t.Fatal(err)
		}
		w.ask(t, 1, inferPath)
		whole := frame(uint32(len(message)), message)
		sent, opened := 0, 1<<16-1 // the window of the server, as it begins
		for sent < len(whole) {
			n := min(1<<14, len(whole)-sent, opened)
			if n == 0 { // until the server opens it
				f, err := w.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if u, ok := f.(*http2.WindowUpdateFrame); ok && u.StreamID == 1 {
					opened += int(u.Increment)
				}
				continue
			}
			if err := w.WriteData(1, sent+n == len(whole), whole[sent:sent+n]); err != nil {
				t.Fatal(err)
			}
			sent, opened = sent+n, opened-n
		}
		return w
	}
	reads := ask(1 << 20)
	if got := reads.status(t, 1); got != "0" {
		t.Fatalf("a client that reads: %q", got)
	}
	read := time.Now()
	if got := ask(0).status(t, 1); got != "" { // it lets the server send nothing
		t.Errorf("%q", got)
	}
	time.Sleep(time.Until(read.Add(4 * time.Second))) // longer than what was allowed for its answer
	if err := reads.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := reads.ReadFrame()
		if err != nil {
			t.Fatalf("a client that has read its answer is cut: %v", err)
		}
		if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
			return
		}
	}
}

func TestTheRequestsOfAConnectionAreBounded(t *testing.T) {
	r := start(t, nil, "waits")
	w := connect(t, r.addr)
	for {
		f, err := w.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			most, told := s.Value(http2.SettingMaxConcurrentStreams)
			if !told || most > 256 {
				t.Errorf("%d streams", most)
			}
			return
		}
	}
}

func TestConnectionsAboveTheLimitAreClosed(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxConnections = 2 }, "echo")
	second := connect(t, r.addr)
	second.ask(t, 1, inferPath)
	message := marshal(t, floats("echo", 1, 2))
	if err := second.WriteData(1, true, frame(uint32(len(message)), message)); err != nil {
		t.Fatal(err)
	}
	if got := second.status(t, 1); got != "0" {
		t.Fatalf("the second: %q", got)
	}
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the server has
	_ = conn.SetDeadline(time.Now().Add(patience))
	if n, _ := io.Copy(io.Discard, conn); n != 0 {
		t.Errorf("a third was greeted with %d bytes", n)
	}
	if err := second.conn.Close(); err != nil { // its place is free
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		other := *r
		other.ClientConn = dial(t, r.addr)
		_, err := other.infer(t, floats("echo", 1, 2))
		_ = other.Close()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// FuzzFrames sends bytes as the messages of a request, or as frames of HTTP/2. The server ends each with a status or
// closes the connection, and goes on.
func FuzzFrames(f *testing.F) {
	r := start(f, func(_ *inference.Options, o *grpcfront.Options) { o.MaxBody = 1 << 16 }, "echo")
	message := marshal(f, floats("echo", 1, 2))
	f.Add(frame(uint32(len(message)), message), true)
	f.Add(frame(uint32(len(message)), message[:5]), true)
	f.Add(frame(1<<31, message), true)
	f.Add(append(frame(uint32(len(message)), message), frame(uint32(len(message)), message)...), true)
	f.Add([]byte{0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8}, false)             // RST_STREAM of no stream
	f.Add([]byte{0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, false) // a window that overflows
	f.Fuzz(func(t *testing.T, b []byte, messages bool) {
		if len(b) > 1<<14 {
			return // one frame
		}
		w := connect(t, r.addr)
		if messages {
			w.ask(t, 1, inferPath)
			if err := w.WriteData(1, true, b); err != nil {
				t.Fatal(err)
			}
			if got := w.status(t, 1); got == "" {
				t.Error("it ends without a status")
			}
			_ = w.conn.Close()
			return
		}
		if _, err := w.conn.Write(b); err == nil {
			if tcp, ok := w.conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // the connection may have been closed
			}
			_, err = io.Copy(io.Discard, w.conn)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Error("the connection is not closed")
			}
		}
		_ = w.conn.Close()
	})
}
