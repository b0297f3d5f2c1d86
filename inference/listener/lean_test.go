package listener_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds the wait for events that must happen, on a slow machine.
const patience = time.Minute

// server is the common interface of both implementations.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// each runs a test over every implementation.
func each(t *testing.T, o listener.Options, test func(t *testing.T, addr string)) {
	t.Helper()
	for name, make := range map[string]func(listener.Options) server{
		"lean":     func(o listener.Options) server { return listener.NewLean(o) },
		"net/http": func(o listener.Options) server { return listener.NewHTTP(o) },
	} {
		t.Run(name, func(t *testing.T) { serve(t, make(o), test) })
	}
}

func lean(t *testing.T, o listener.Options, test func(t *testing.T, addr string)) {
	t.Helper()
	serve(t, listener.NewLean(o), test)
}

func serve(t *testing.T, s server, test func(t *testing.T, addr string)) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	test(t, l.Addr().String())
}

func echo(_ context.Context, r *listener.Request) *listener.Response {
	return &listener.Response{Response: engine.Response{
		Status: 200, ContentType: "text/plain", Body: fmt.Appendf(nil, "%s %s %s %s %s", r.Method, r.Path, r.RawQuery, r.Header("x-a"), r.Body),
		Header: []engine.Header{{Name: "X-Split", Value: "a\r\nInjected: b"}, {Name: "Bad Name", Value: "x"}, {Name: "Content-Length", Value: "7"}},
	}}
}

// talk sends raw bytes and returns the whole answer.
func talk(t *testing.T, addr string, pieces ...string) string {
	t.Helper()
	c := dial(t, addr)
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			break // the server may already have refused
		}
	}
	if tcp, ok := c.(*net.TCPConn); ok && strings.Contains(strings.Join(pieces, ""), "half-close") {
		_ = tcp.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	if err != nil && len(got) == 0 {
		return "error: " + err.Error()
	}
	return string(got)
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestRequestsOfEveryShape(t *testing.T) {
	const end = "Connection: close\r\n\r\n"
	big := strings.Repeat("b", 300_000)
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), MaxBody: 1 << 20}, func(t *testing.T, addr string) {
		t.Helper()
		for _, tc := range []struct {
			name   string
			pieces []string
			want   []string
		}{
			{"one request", []string{"POST /p?q=1 HTTP/1.1\r\nHost: a\r\nX-A: v\r\nContent-Length: 2\r\n" + end + "hi"}, []string{"HTTP/1.1 200 OK\r\n", "POST /p q=1 v hi"}},
			{"byte by byte", strings.Split("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"+end+"hi", ""), []string{"POST /p   hi"}},
			{"pipelined", []string{"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n" + end + "y"}, []string{"POST /1   x", "POST /2   y"}},
			{"an empty line first", []string{"\r\nGET / HTTP/1.1\r\nHost: a\r\n" + end}, []string{"GET /   "}},
			{"chunked", []string{"POST /p HTTP/1.1\r\nHost: a\r\nX-A: v\r\nTransfer-Encoding: chunked\r\n" + end, "3;ext=1\r\nabc\r\n", "0A\r\n0123456789\r\n", "0\r\nA: x\r\nB:\r\n\r\n"}, []string{"POST /p  v abc0123456789"}},
			{"chunked, byte by byte", strings.Split("POST /p HTTP/1.1\r\nHost: a\r\nX-A: v\r\nTransfer-Encoding: chunked\r\n"+end+"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", ""), []string{"POST /p  v abcde"}},
			{"chunked, then another", []string{"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n" + end}, []string{"POST /1   x", "GET /2   "}},
			{"many chunks", []string{"POST /p HTTP/1.1\r\nHost: a\r\nX-A: v\r\nTransfer-Encoding: chunked\r\n" + end + strings.Repeat("1\r\nz\r\n", 20_000) + "0\r\n\r\n"}, []string{"POST /p  v " + strings.Repeat("z", 20_000)}},
			{"a large body", []string{"POST /p HTTP/1.1\r\nHost: a\r\nX-A: v\r\nContent-Length: 300000\r\n" + end, big}, []string{"POST /p  v " + big}},
			{"a large chunked body", []string{"POST /p HTTP/1.1\r\nHost: a\r\nX-A: v\r\nTransfer-Encoding: chunked\r\n" + end, "493e0\r\n", big, "\r\n0\r\n\r\n"}, []string{"POST /p  v " + big}},
			{"a long head", []string{"GET /p HTTP/1.1\r\nHost: a\r\nX-B: " + strings.Repeat("b", 20_000) + "\r\nX-A: v\r\n" + end}, []string{"GET /p  v "}},
			{"expecting 100-continue", []string{"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + end, "hi"}, []string{"HTTP/1.1 200 OK", "POST /p   hi"}},
			{"HTTP/1.0 closes", []string{"GET /p HTTP/1.0\r\n\r\n"}, []string{"Connection: close", "GET /p   "}},
			{"HEAD has no body", []string{"HEAD /p HTTP/1.1\r\nHost: a\r\n" + end}, []string{"Content-Length: 10\r\n", "\r\n\r\n"}},
			{"both framings", []string{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"}, []string{"HTTP/1.1 400 Bad Request", `{"detail":"Bad Request: both`}},
			{"nonsense", []string{"\x16\x03\x01\x02\x00\x01\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"too long a head", []string{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\n"}, []string{"HTTP/1.1 431"}},
			{"too large a body", []string{"POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nContent-Length: 9999999\r\n\r\n"}, []string{"HTTP/1.1 413", "limit of 1048576 bytes", "X-Request-Id: mine\r\n"}},
			{"too large a chunk", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n"}, []string{"HTTP/1.1 413"}},
			{"a chunk size beyond 63 bits", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n"}, []string{"HTTP/1.1 400"}},
			{"a chunk without a size", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a chunk that lies", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"bare line feeds in a head", []string{"GET / HTTP/1.1\nHost: a\n\n"}, []string{"HTTP/1.1 400", "does not end in CR LF"}},
			{"bare line feeds, byte by byte", strings.Split("GET / HTTP/1.1\nHost: a\n\n", ""), []string{"HTTP/1.1 400", "does not end in CR LF"}},
			{"a bare line feed at the end", []string{"GET / HTTP/1.1\r\nHost: a\r\n\n"}, []string{"HTTP/1.1 400"}},
			{"a bare line feed before the end", []string{"GET / HTTP/1.1\r\nHost: a\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a bare line feed inside", []string{"GET / HTTP/1.1\r\nX: a\nHost: a\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a line feed first", []string{"\nGET / HTTP/1.1\r\nHost: a\r\n" + end}, []string{"HTTP/1.1 400"}},
			{"a trailer without a colon", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nnocolon\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a trailer with NUL", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\x00c\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a trailer with a bare line feed", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"an extension with NUL", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\x00\r\nx\r\n0\r\n\r\n"}, []string{"HTTP/1.1 400"}},
			{"a bare line feed in a chunk", []string{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n"}, []string{"HTTP/1.1 400"}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				got := talk(t, addr, tc.pieces...)
				for _, want := range tc.want {
					if !strings.Contains(got, want) {
						t.Errorf("got %.300q, want %.100q", got, want)
					}
				}
				if strings.Contains(got, "smuggled") || strings.Contains(got, "\nInjected") || strings.Contains(got, "Content-Length: 7\r\n") {
					t.Errorf("got %.300q", got)
				}
			})
		}
	})
}

func TestKeptAliveConnectionAnswersManyRequests(t *testing.T) {
	each(t, listener.Options{Handler: listener.AnswerFunc(echo)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		from := bufio.NewReader(c)
		for i := range 100 {
			body := strings.Repeat("x", i*97)
			if _, err := fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if want := fmt.Sprintf("POST /%d   %s", i, body); err != nil || string(got) != want {
				t.Fatalf("request %d: %.80q %v", i, got, err)
			}
			if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Date") == "" {
				t.Fatalf("headers %v", resp.Header)
			}
		}
	})
}

func TestAClientThatLeavesCancelsItsRequest(t *testing.T) {
	began, cancelled := make(chan struct{}, 1), make(chan error, 1)
	handler := func(ctx context.Context, _ *listener.Request) *listener.Response {
		began <- struct{}{}
		<-ctx.Done()
		cancelled <- ctx.Err()
		return &listener.Response{Response: engine.Response{Status: 500}}
	}
	each(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-began
		_ = c.Close()
		select {
		case err := <-cancelled:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled with %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the handler was not cancelled")
		}
	})
}

func TestDeadlinesOfOneConnectionAreApart(t *testing.T) {
	const short = 20 * time.Millisecond
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		limit := short
		if r.Path == "/patient" {
			limit = time.Hour
		}
		ctx, cancel := listener.WithTimeout(ctx, limit)
		defer cancel()
		if _, ok := ctx.Deadline(); !ok {
			return &listener.Response{Response: engine.Response{Status: 500}}
		}
		switch r.Path {
		case "/fast": // before its deadline or, on a busy machine, after it
			return &listener.Response{Response: engine.Response{Status: 200}}
		case "/slow":
			<-ctx.Done()
		case "/patient": // later than the deadlines of earlier requests
			select {
			case <-ctx.Done():
			case <-time.After(2 * short):
			}
		}
		if err := ctx.Err(); err != nil {
			return &listener.Response{Response: engine.Response{Status: 504, Body: []byte(err.Error())}}
		}
		return &listener.Response{Response: engine.Response{Status: 200}}
	}
	each(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		for i := range 40 {
			path, want := "/fast", 200
			switch i % 4 {
			case 0:
				path, want = "/slow", 504
			case 1, 3:
				path = "/patient"
			}
			resp, err := http.Post("http://"+addr+path, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Fatalf("request %d %s: %d", i, path, resp.StatusCode)
			}
		}
	})
}

func TestSlowClientsAreCut(t *testing.T) {
	o := listener.Options{Handler: listener.AnswerFunc(echo), HeaderTimeout: 200 * time.Millisecond, BodyTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond}
	lean(t, o, func(t *testing.T, addr string) {
		t.Helper()
		for name, sent := range map[string]string{
			"nothing":        "",
			"half a head":    "POST / HTTP/1.1\r\nHost:",
			"half a body":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234",
			"half a chunk":   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
			"idle afterward": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				c := dial(t, addr)
				_, _ = io.WriteString(c, sent) // it may already have been closed
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadAll(c); isTimeout(err) {
					t.Errorf("still open after %s: %v", patience, err)
				}
			})
		}
	})
}

func TestAClientThatAsksFirstIsToldToContinue(t *testing.T) {
	each(t, listener.Options{Handler: listener.AnswerFunc(echo)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		if _, err := io.WriteString(c, "POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		from := bufio.NewReader(c)
		if line, err := from.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q %v", line, err)
		}
		if _, err := io.WriteString(c, "hi"); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(from); err != nil || !strings.HasSuffix(string(rest), "POST /p   hi") {
			t.Errorf("%q %v", rest, err)
		}
	})
}

func TestAPanicCostsOneAnswer(t *testing.T) {
	handler := func(_ context.Context, r *listener.Request) *listener.Response {
		if r.Path == "/panic" {
			panic("boom")
		}
		return &listener.Response{Response: engine.Response{Status: 200}}
	}
	lean(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		if got := talk(t, addr, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, "HTTP/1.1 500") || strings.Contains(got, "boom") {
			t.Errorf("got %q", got)
		}
		if got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "HTTP/1.1 200") {
			t.Errorf("the next one: %q", got)
		}
	})
}

func TestConnectionsBeyondTheLimitAreTold(t *testing.T) {
	lean(t, listener.Options{Handler: listener.AnswerFunc(echo), MaxConns: 2}, func(t *testing.T, addr string) {
		t.Helper()
		for range 2 {
			c := dial(t, addr)
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := talk(t, addr); !strings.Contains(got, "HTTP/1.1 503") || !strings.Contains(got, "--max-connections") {
			t.Errorf("got %q", got)
		}
	})
}

func TestShutdownLetsRequestsFinishAndClosesTheIdle(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	handler := func(context.Context, *listener.Request) *listener.Response {
		close(began)
		<-release
		return &listener.Response{Response: engine.Response{Status: 200, Body: []byte("done")}}
	}
	s := listener.NewLean(listener.Options{Handler: listener.AnswerFunc(handler)})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	idle, busy := dial(t, l.Addr().String()), dial(t, l.Addr().String())
	if _, err := io.WriteString(busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	if err := idle.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(idle); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("idle: %q %v", got, err)
	}
	close(release) // the shutdown has begun: it closed the idle connection
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(busy)
	if err != nil || !strings.Contains(string(got), "Connection: close\r\n") || !strings.HasSuffix(string(got), "done") {
		t.Errorf("%q %v", got, err)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	var cancelled atomic.Bool
	began := make(chan struct{})
	handler := func(ctx context.Context, _ *listener.Request) *listener.Response {
		close(began)
		<-ctx.Done()
		cancelled.Store(true)
		return &listener.Response{Response: engine.Response{Status: 200}}
	}
	s := listener.NewLean(listener.Options{Handler: listener.AnswerFunc(handler)})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c := dial(t, l.Addr().String())
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if !cancelled.Load() {
		t.Error("the handler was not told")
	}
}

// BenchmarkConstantAnswer measures the listener alone, on one connection.
func BenchmarkConstantAnswer(b *testing.B) {
	body := []byte(`{"y":[1]}`)
	handler := func(context.Context, *listener.Request) *listener.Response {
		return &listener.Response{Response: engine.Response{Status: 200, ContentType: "application/json", Body: body}}
	}
	for name, make := range map[string]func(listener.Options) server{
		"lean":     func(o listener.Options) server { return listener.NewLean(o) },
		"net/http": func(o listener.Options) server { return listener.NewHTTP(o) },
	} {
		b.Run(name, func(b *testing.B) {
			s := make(listener.Options{Handler: listener.AnswerFunc(handler)})
			l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = s.Serve(l) }()
			c, err := new(net.Dialer).DialContext(b.Context(), "tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			request := []byte("POST /serve/m/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"x0\":1,\"x1\":22}")
			in := [4096]byte{}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := c.Read(in[:]); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
			_ = s.Shutdown(b.Context())
		})
	}
}
