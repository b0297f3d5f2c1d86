package listener

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"

	"clearmlserving/inference/engine"
)

// uploads answers every body by its length, on a connection that is kept.
func uploads(tb testing.TB) (ask func(body []byte)) {
	tb.Helper()
	server := NewLean(Options{MaxBody: 64 << 20, Handler: func(_ context.Context, r *Request) *Response {
		return &Response{Response: engine.Response{Status: http.StatusOK, Body: fmt.Append(nil, len(r.Body))}}
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1) // Serve's end
	go func() { done <- server.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = c.Close()
		if err := server.Shutdown(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	in := bufio.NewReader(c)
	return func(body []byte) {
		tb.Helper()
		if _, err := fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body)); err != nil {
			tb.Fatal(err)
		}
		if _, err := c.Write(body); err != nil {
			tb.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			tb.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want := fmt.Sprint(len(body)); err != nil || string(text) != want {
			tb.Fatalf("answered %q (%v), want %s", text, err, want)
		}
	}
}

// What has arrived vouches for more, so a large body is moved twice at most and
// not once for each doubling.
func TestALargeBodyTakesLittleMoreMemoryThanItself(t *testing.T) {
	ask := uploads(t)
	body := bytes.Repeat([]byte("x"), 10_000_000)
	ask(body)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 5
	for range rounds {
		ask(body)
	}
	runtime.ReadMemStats(&after)
	// 1.5 times, and twice that under the race detector, where a buffer's growth
	// allocates twice; doubling took 3.3 times.
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > 32*uint64(len(body))/10 {
		t.Errorf("a body of %d bytes allocates %d", len(body), each)
	}
}

func TestBodiesOfEveryLengthArriveWhole(t *testing.T) {
	ask := uploads(t)
	for _, length := range []int{1, firstBuffer, 1<<20 - 1, 1 << 20, 1<<20 + 1, 4<<20 - 1, 4 << 20, 4<<20 + 1, 5_000_000, 17_000_000} {
		ask(bytes.Repeat([]byte("x"), length))
	}
}

func BenchmarkBodyOfTenMegabytes(b *testing.B) {
	ask := uploads(b)
	body := bytes.Repeat([]byte("x"), 10_000_000)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		ask(body)
	}
}
