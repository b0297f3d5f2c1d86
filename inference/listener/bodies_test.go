package listener

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"clearmlserving/inference/engine"
)

// marking is a handler that refuses bodies with a header of its own, as those that web pages need.
type marking struct{ AnswerFunc }

func (marking) Refusal(_ *Head, status int, _ string) *Response {
	return &Response{Response: engine.Response{Status: status, Header: []engine.Header{{Name: "X-Mark", Value: "1"}}}}
}

func TestBodiesOfAllConnectionsTogetherAreBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	server := NewLean(Options{MaxBody: 1 << 20, MaxBodies: 1 << 20, Handler: marking{func(_ context.Context, r *Request) *Response {
		if strings.HasSuffix(r.Path, "/waits") {
			close(entered)
			<-leave
		}
		return &Response{Response: engine.Response{Status: http.StatusOK, Body: fmt.Append(nil, len(r.Body))}}
	}}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1) // result of Serve
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	send := func(path string, size int) *http.Response {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, size, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Log(err) // the connection may end with the refusal before everything has been sent
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Error(err)
			return nil
		}
		_ = resp.Body.Close()
		return resp
	}
	first := make(chan *http.Response)
	go func() { first <- send("/waits", 700<<10) }()
	<-entered
	if resp := send("/x", 500<<10); resp != nil && (resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header.Get("X-Mark") == "") {
		t.Errorf("the one too many was answered %s, %v", resp.Status, resp.Header)
	}
	if resp := send("/x", 200<<10); resp != nil && resp.StatusCode != http.StatusOK {
		t.Errorf("one that fits was answered %s", resp.Status)
	}
	close(leave)
	if resp := <-first; resp != nil && resp.StatusCode != http.StatusOK {
		t.Errorf("the first was answered %s", resp.Status)
	}
	for server.held.Load() > 0 { // released after the answer has been written
		runtime.Gosched()
	}
	if resp := send("/x", 1000<<10); resp != nil && resp.StatusCode != http.StatusOK {
		t.Errorf("what was let go cannot be used: %s", resp.Status)
	}
}

func TestAClientThatDoesNotReadHoldsNoBody(t *testing.T) {
	var lent atomic.Int32
	server := NewLean(Options{MaxBody: 1 << 20, MaxBodies: 1 << 20, Handler: lender{
		AnswerFunc(func(context.Context, *Request) *Response {
			return &Response{Response: engine.Response{Status: http.StatusOK, Body: make([]byte, 64<<20)}}
		}),
		func(h *Head, size int) engine.Loan {
			if h.Path != "/lent" {
				return nil
			}
			lent.Add(1)
			return &loan{make([]byte, size), &lent}
		},
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1) // result of Serve
	go func() { done <- server.Serve(l) }()
	for _, path := range []string{"/own", "/lent"} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, 900<<10, bytes.Repeat([]byte("x"), 900<<10)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // the answer has begun, and does not fit into the socket
			t.Fatal(err)
		}
		if held, out := server.held.Load(), lent.Load(); held != 0 || out != 0 {
			t.Errorf("%s: %d bytes and %d loans are held", path, held, out)
		}
	}
	if answers := server.answers.Load(); answers != 2*64<<20 {
		t.Errorf("%d bytes of answers are being written", answers)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := server.Shutdown(ctx); err == nil {
		t.Error("an unread answer has been written")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if answers := server.answers.Load(); answers != 0 {
		t.Errorf("%d bytes of answers are still counted", answers)
	}
}
