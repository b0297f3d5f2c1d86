package grpcfront_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
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
	dec  *hpack.Decoder
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
	w := wire{http2.NewFramer(conn, conn), conn, hpack.NewDecoder(4096, nil)}
	if err := w.WriteSettings(); err != nil {
		tb.Fatal(err)
	}
	return w
}

// ask begins a request.
func (w wire) ask(t *testing.T, id uint32, method string, fields ...hpack.HeaderField) {
	t.Helper()
	if err := w.begin(id, method, fields...); err != nil {
		t.Fatal(err)
	}
}

func (w wire) begin(id uint32, method string, fields ...hpack.HeaderField) error {
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
			return err
		}
	}
	return w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
}

// frame is a message of gRPC of a length that may be false.
func frame(length uint32, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), message...)
}

const (
	inferPath  = "/inference.GRPCInferenceService/ModelInfer"
	streamPath = "/inference.GRPCInferenceService/ModelStreamInfer"
)

// status reads until the trailers of a request, or of any if id is 0, and returns its code; "" if the connection or the
// request ends without.
func (w wire) status(t *testing.T, id uint32) string {
	t.Helper()
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
			fields, err := w.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range fields {
				if field.Name == "grpc-status" && (f.StreamID == id || id == 0) {
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

func TestADeadlineIsAnsweredWithItsCode(t *testing.T) {
	r := start(t, nil, "waits")
	message := marshal(t, floats("waits", 1, 2))
	soon := hpack.HeaderField{Name: "grpc-timeout", Value: "20m"} // of a client that itself waits longer
	for name, ask := range map[string]func(w wire, id uint32) error{
		"while the model computes": func(w wire, id uint32) error {
			w.ask(t, id, inferPath, soon)
			return w.WriteData(id, true, frame(uint32(len(message)), message))
		},
		"while the message arrives": func(w wire, id uint32) error {
			w.ask(t, id, inferPath, soon)
			return w.WriteData(id, false, frame(uint32(len(message)), message[:5]))
		},
		"of a stream that waits": func(w wire, id uint32) error {
			w.ask(t, id, streamPath, soon)
			return nil
		},
		"that has passed": func(w wire, id uint32) error {
			w.ask(t, id, inferPath, hpack.HeaderField{Name: "grpc-timeout", Value: "1n"})
			return w.WriteData(id, true, frame(uint32(len(message)), message))
		},
	} {
		w := connect(t, r.addr)
		for i := range uint32(20) {
			if err := ask(w, 2*i+1); err != nil {
				t.Fatal(err)
			}
			if got := w.status(t, 2*i+1); got != "4" {
				t.Fatalf("%s: code %q", name, got)
			}
		}
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

// part begins a request whose message is longer than what is sent of it.
func (w wire) part(id uint32, method string, length uint32, data []byte) error {
	if err := w.begin(id, method); err != nil {
		return err
	}
	whole := frame(length, data)
	for len(whole) > 1<<14 {
		if err := w.WriteData(id, false, whole[:1<<14]); err != nil {
			return err
		}
		whole = whole[1<<14:]
	}
	return w.WriteData(id, false, whole)
}

func TestMessagesThatAreStillArrivingAreBounded(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1 << 20 }, "echo")
	message := marshal(t, &pb.ModelInferRequest{
		ModelName: "echo", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1 << 10, 2}}}, RawInputContents: [][]byte{make([]byte, 8<<10)},
	})
	half := len(message) / 2
	slow := connect(t, r.addr)
	if err := slow.part(1, inferPath, uint32(len(message)), message[:half]); err != nil {
		t.Fatal(err)
	}
	// 12 MB, where there may be 8; then 6 more beside the 8 that are held. What is refused is less than 8 MB each time:
	// with more a connection is cut, if gRPC is slow to end the streams.
	for _, round := range []struct {
		messages uint32
		refused  int // of this connection at least: the refusals go around
	}{{200, 50}, {105, 15}, {105, 15}} {
		greedy := connect(t, r.addr)
		refused := make(chan string, 1)
		go func() {
			codes := ""
			for range round.refused {
				codes += greedy.status(t, 0)
			}
			refused <- codes
		}()
		for id := uint32(1); id < 2*round.messages; id += 2 {
			if err := greedy.part(id, inferPath, 1<<20, make([]byte, 60<<10)); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-refused; got != strings.Repeat("8", round.refused) {
			t.Errorf("the greedy one: codes %q", got)
		}
		greedy.ask(t, 401, inferPath) // it goes on
		if err := greedy.WriteData(401, true, frame(uint32(len(message)), message)); err != nil {
			t.Fatal(err)
		}
		for code := "8"; code != "0"; {
			if code = greedy.status(t, 0); code != "8" && code != "0" {
				t.Fatalf("the greedy one: code %q", code)
			}
		}
		if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	if err := slow.WriteData(1, true, message[half:]); err != nil {
		t.Fatal(err)
	}
	if got := slow.status(t, 1); got != "0" {
		t.Errorf("a slow one: code %q", got)
	}
}

// The handlers of gRPC's own services do not know that a message is refused.
func TestAConnectionWhoseMessagesCannotBeRefusedIsCut(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1 << 19 }, "echo")
	greedy := connect(t, r.addr)
	cut := false
	for id := uint32(1); id < 2*200 && !cut; id += 2 { // 12 MB, where there may be 4
		cut = greedy.part(id, "/grpc.health.v1.Health/Check", 1<<19, make([]byte, 60<<10)) != nil
	}
	if got := greedy.status(t, 0); got != "" {
		t.Errorf("code %q", got)
	}
	if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestMessagesOfEndedStreamsDoNotCount(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1 << 20 }, "echo")
	message := marshal(t, floats("echo", 1, 2))
	for name, ends := range map[string]func(w wire, id uint32){
		"by the client": func(w wire, id uint32) {
			if err := w.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
				t.Fatal(err)
			}
		},
		"by the server": func(w wire, id uint32) { // which does not know the method
			if got := w.status(t, id); got != "12" {
				t.Fatalf("code %q", got)
			}
			if err := w.WriteData(id, false, make([]byte, 1<<14)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		w := connect(t, r.addr)
		method := inferPath
		if name == "by the server" {
			method = "/nobody/Nothing"
		}
		id := uint32(1)
		for range 400 { // 12 MB, where 8 may be unfinished
			if err := w.part(id, method, 1<<20, make([]byte, 30<<10)); err != nil {
				t.Fatal(err)
			}
			ends(w, id)
			id += 2
		}
		w.ask(t, id, inferPath)
		if err := w.WriteData(id, true, frame(uint32(len(message)), message)); err != nil {
			t.Fatal(err)
		}
		if got := w.status(t, id); got != "0" {
			t.Errorf("%s: code %q", name, got)
		}
	}
}

// FuzzArriving counts the bytes of a client whole and in pieces.
func FuzzArriving(f *testing.F) {
	preface := []byte(http2.ClientPreface)
	head := []byte{0, 0, 0, 1, 4, 0, 0, 0, 1}
	f.Add(append(append(preface, head...), 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9, 1, 2, 3, 4), 31)                                         // a part of a message
	f.Add(append(append(preface, head...), 0, 0, 12, 0, 8, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0), 34)                                  // padded
	f.Add(append(append(preface, head...), 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8), 50)        // whole, and one byte more, then reset
	f.Add(append(append(preface, head...), 0, 0, 1, 0, 8, 0, 0, 0, 1, 255, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 1), 9) // padding that is too long
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) == 0 {
			return
		}
		cut = int(uint(cut) % uint(len(b)))
		whole, pieces := grpcfront.Arriving(b), grpcfront.Arriving(b[:cut], b[cut:])
		single := make([][]byte, len(b))
		for i := range b {
			single[i] = b[i : i+1]
		}
		if bytewise := grpcfront.Arriving(single...); whole != pieces || whole != bytewise {
			t.Errorf("%d whole, %d in pieces, %d byte by byte", whole, pieces, bytewise)
		}
		if whole < 0 || whole > int64(len(b)) {
			t.Errorf("%d of %d bytes", whole, len(b))
		}
	})
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
