package listener_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
)

// doorman refuses every request without a key, and counts calls after its refusals.
type doorman struct{ lent, answered atomic.Int32 }

func (*doorman) Admit(h *listener.Head) *listener.Response {
	if h.Path == "/panic" {
		panic("boom")
	}
	if h.Header("Authorization") != "" {
		return nil
	}
	return &listener.Response{Response: engine.Response{Status: http.StatusUnauthorized, ContentType: "text/plain", Body: []byte("who are you?")}}
}

func (*doorman) Shown(_, value string) (string, bool) { return value, true }

func (d *doorman) Lend(*listener.Head, int) engine.Loan {
	d.lent.Add(1)
	return nil
}

func (d *doorman) Refused(*listener.Head, int) {}

func (d *doorman) Answer(ctx context.Context, r *listener.Request) *listener.Response {
	d.answered.Add(1)
	return echo(ctx, r)
}

func TestAHeadIsRefusedBeforeItsBodyIsRead(t *testing.T) {
	for name, tc := range map[string]struct {
		head      string
		keepAlive bool
	}{
		"a large body":       {"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n", false},
		"beyond the limit":   {"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n", false},
		"a chunked body":     {"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false},
		"a short body":       {"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", true},
		"no body":            {"GET /p HTTP/1.1\r\nHost: a\r\n\r\n", true},
		"a client that asks": {"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n", false},
		"an unknown coding":  {"POST /p HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nContent-Length: 100000000\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := new(doorman)
			lean(t, listener.Options{Handler: d}, func(t *testing.T, addr string) {
				t.Helper()
				c := dial(t, addr)
				if _, err := io.WriteString(c, tc.head); err != nil {
					t.Fatal(err)
				}
				from := bufio.NewReader(c)
				if line, err := from.ReadString('\n'); err != nil || line != "HTTP/1.1 401 Unauthorized\r\n" {
					t.Fatalf("%q %v", line, err)
				}
				rest, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 401 Unauthorized\r\n"), from)), nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = rest.Body.Close()
				if rest.Close == tc.keepAlive {
					t.Errorf("Connection: close is %t", rest.Close)
				}
				if d.lent.Load() > 0 || d.answered.Load() > 0 {
					t.Errorf("%d loans, %d answers for a refused request", d.lent.Load(), d.answered.Load())
				}
				_ = c.Close() // the server need not wait for more data
			})
		})
	}
}

func TestARefusalKeepsTheConnectionWhereTheBodyIsShort(t *testing.T) {
	lean(t, listener.Options{Handler: new(doorman)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		from := bufio.NewReader(c)
		for i, size := range []int{0, 10, 5000, 200_000} {
			if _, err := fmt.Fprintf(c, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size); err != nil {
				t.Fatal(err)
			}
			refused, err := http.ReadResponse(from, nil) // before the body is sent
			if err != nil || refused.StatusCode != http.StatusUnauthorized {
				t.Fatalf("%v %v", refused, err)
			}
			if _, err := io.Copy(io.Discard, refused.Body); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(c, "%sPOST /%d HTTP/1.1\r\nHost: a\r\nAuthorization: key\r\nContent-Length: 2\r\n\r\nhi", bytes.Repeat([]byte("x"), size), i); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("POST /%d   hi", i); err != nil || string(got) != want {
				t.Fatalf("%q %v, want %q", got, err, want)
			}
		}
	})
}

// A client that sends all of its body before it reads gets the reason, not a reset.
func TestAClientThatSendsItsWholeBodyReadsTheRefusal(t *testing.T) {
	lean(t, listener.Options{Handler: new(doorman)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		if _, err := fmt.Fprintf(c, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 64<<20); err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, 1<<20)
		for range 64 {
			if _, err := c.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 401") {
			t.Errorf("%q %v", got, err)
		}
	})
}

func TestABodyThatDripsIsRefused(t *testing.T) {
	o := listener.Options{Handler: listener.AnswerFunc(echo), BodyTimeout: 200 * time.Millisecond}
	for name, head := range map[string]string{
		"known length": "Content-Length: 1000000\r\n\r\n",
		"chunked":      "Transfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			lean(t, o, func(t *testing.T, addr string) {
				t.Helper()
				for end := time.Now().Add(patience); time.Now().Before(end); {
					got := drip(t, addr, "POST /p HTTP/1.1\r\nHost: a\r\n"+head)
					if strings.HasPrefix(got, "HTTP/1.1 408") {
						return
					}
					if got != "" { // a pause on a busy machine cuts it without an answer
						t.Fatalf("%.100q", got)
					}
				}
				t.Error("a body of a few bytes a second is never refused")
			})
		})
	}
}

// drip sends a head and then single bytes slowly, and returns the answer.
func drip(t *testing.T, addr, head string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	piece := "1\r\nx\r\n"
	if !strings.Contains(head, "chunked") {
		piece = "x"
	}
	var got []byte
	answer := make([]byte, 4096)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, err := c.Read(answer)
		got = append(got, answer[:n]...)
		if err != nil && !isTimeout(err) {
			return string(got)
		}
		if n == 0 {
			_, _ = io.WriteString(c, piece) // it may have been refused already
		}
	}
	t.Fatal("it is never cut")
	return ""
}

// stall answers when it is released, and reports how its context ended.
type stall struct {
	begun, leave chan struct{}
	ended        chan error
}

func newStall() *stall {
	return &stall{begun: make(chan struct{}, 1), leave: make(chan struct{}), ended: make(chan error, 1)}
}

func (s *stall) answer(ctx context.Context, r *listener.Request) *listener.Response {
	if r.Path == "/stall" {
		s.begun <- struct{}{}
		select {
		case <-s.leave:
		case <-ctx.Done():
		}
		s.ended <- ctx.Err()
	}
	return echo(ctx, r)
}

func TestAHalfClosedClientGetsItsAnswer(t *testing.T) {
	const early = "HTTP/1.1 " // sent before the answer is made
	for name, tc := range map[string]struct{ sent, want string }{
		"one request":      {"POST /stall HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "200 OK\r\n"},
		"HTTP/1.0":         {"POST /stall HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "200 OK\r\n"},
		"with another one": {"POST /stall HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /next HTTP/1.1\r\nHost: a\r\n\r\n", "GET /next"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStall()
			lean(t, listener.Options{Handler: listener.AnswerFunc(s.answer)}, func(t *testing.T, addr string) {
				t.Helper()
				c := dial(t, addr)
				if _, err := io.WriteString(c, tc.sent); err != nil {
					t.Fatal(err)
				}
				if tcp, ok := c.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
					t.Fatal("it cannot be half-closed")
				}
				s.expectAnswer(t, c, early, tc.want)
			})
		})
	}
}

// expectAnswer waits until the server has probed its client, and then for the answer.
func (s *stall) expectAnswer(t *testing.T, c net.Conn, early, want string) {
	t.Helper()
	<-s.begun
	_ = c.SetReadDeadline(time.Now().Add(patience))
	begin := make([]byte, len(early))
	if _, err := io.ReadFull(c, begin); err != nil || string(begin) != early {
		t.Fatalf("%q %v", begin, err)
	}
	close(s.leave)
	got, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "200 OK\r\n") || !strings.Contains(string(got), want) || !strings.Contains(string(got), "POST /stall   hi") {
		t.Errorf("%q %v", got, err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("the request ended with %v", err)
	}
}

func TestAClientThatResetsCancelsItsRequest(t *testing.T) {
	s := newStall()
	lean(t, listener.Options{Handler: listener.AnswerFunc(s.answer)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		if _, err := io.WriteString(c, "POST /stall HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-s.begun
		tcp, ok := c.(*net.TCPConn)
		if !ok || tcp.SetLinger(0) != nil || tcp.Close() != nil {
			t.Fatal("it cannot be reset")
		}
		select {
		case err := <-s.ended:
			if err == nil {
				t.Error("the request was not cancelled")
			}
		case <-time.After(patience):
			t.Error("the request continues without a client")
		}
	})
}

func TestAPanicOverAHeadCostsOneAnswer(t *testing.T) {
	lean(t, listener.Options{Handler: new(doorman)}, func(t *testing.T, addr string) {
		t.Helper()
		for range 2 {
			if got := talk(t, addr, "GET /panic HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500") || !strings.Contains(got, "X-Request-Id: mine\r\n") || strings.Contains(got, "boom") {
				t.Errorf("%q", got)
			}
		}
	})
}

func TestAPanicOnTheWayOfAResponseCutsItsConnection(t *testing.T) {
	var done atomic.Int32
	handler := func(_ context.Context, r *listener.Request) *listener.Response {
		resp := &listener.Response{Done: func() { done.Add(1) }}
		resp.Status = 200
		if r.Path == "/panic" {
			resp.Stream = panicking{}
		}
		return resp
	}
	lean(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		if got := talk(t, addr, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"); strings.HasSuffix(got, "0\r\n\r\n") {
			t.Errorf("it looks whole: %q", got)
		}
		if got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "HTTP/1.1 200") {
			t.Errorf("the next one: %q", got)
		}
	})
	if done.Load() != 2 {
		t.Errorf("%d of 2 responses are done", done.Load())
	}
}

// panicking is a stream that panics.
type panicking struct{}

func (panicking) Next(context.Context) ([]byte, error) { panic("boom") }
func (panicking) Close() error                         { return nil }

// The beginning of a response is sent by another goroutine than the rest, at any moment:
// it is never sent twice or omitted.
func TestResponsesToHalfClosedClientsAreWhole(t *testing.T) {
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		time.Sleep(time.Duration(150+rand.IntN(250)) * time.Millisecond) // around the times of the watcher's checks
		return echo(ctx, r)
	}
	lean(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		var all sync.WaitGroup
		for range 200 {
			c := dial(t, addr)
			all.Go(func() {
				if _, err := io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					t.Error(err)
				}
				if tcp, ok := c.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
					t.Error("it cannot be half-closed")
				}
				got, err := io.ReadAll(c)
				if err != nil || strings.Count(string(got), "HTTP/1.1 200 OK\r\n") != 2 || strings.Count(string(got), "HTTP/1.1 ") != 2 {
					t.Errorf("%q %v", got, err)
				}
			})
		}
		all.Wait()
	})
}
