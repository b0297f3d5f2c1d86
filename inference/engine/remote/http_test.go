package remote_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return "http://" + l.Addr().String()
}

func post(ctx context.Context, path, body string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	return r
}

func transport(t *testing.T) *http.Transport {
	t.Helper()
	tr := remote.Transport(nil)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func TestAnHTTPRequestIsSentToAnotherAddressIfTheFirstCannotBeConnected(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.URL.Path+"?"+r.URL.RawQuery+" "+string(body))
	}))
	t.Cleanup(server.Close)
	pool := open(t, &probes{}, closedPort(t), server.URL+"/prefix")
	tr := transport(t)
	for range 2 {
		response, err := pool.Send(tr, post(t.Context(), "/v1/chat?x=1", "question"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := remote.ReadBody(response, 1000)
		if err != nil || string(body) != "/prefix/v1/chat?x=1 question" {
			t.Errorf("%q, %v", body, err)
		}
	}
	r := pool.Report()
	if r[0].Failed == 0 || r[1].Answered != 2 || r[1].Outstanding != 0 {
		t.Errorf("%+v", r)
	}
}

func TestAnHTTPRequestThatMayHaveBeenExecutedIsNotRepeated(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	pool := open(t, &probes{}, server.URL, server.URL+"/")
	_, err := pool.Send(transport(t), post(t.Context(), "/", "question"))
	if err == nil || asked.Load() != 1 || !remote.Begun(err) {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

func TestAnAnswerHoldsItsAddressUntilItsEnd(t *testing.T) {
	more := make(chan string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for piece := range more {
			if piece == "cut" {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	t.Cleanup(server.Close)
	pool := open(t, &probes{}, server.URL)
	tr := transport(t)
	begin := func() *http.Response {
		t.Helper()
		response, err := pool.Send(tr, post(t.Context(), "/", ""))
		if err != nil {
			t.Fatal(err)
		}
		more <- "token"
		piece := make([]byte, 5)
		if _, err := io.ReadFull(response.Body, piece); err != nil || string(piece) != "token" {
			t.Fatalf("%q, %v", piece, err)
		}
		if r := pool.Report()[0]; r.Outstanding != 1 {
			t.Errorf("%+v", r)
		}
		return response
	}
	cut := begin()
	more <- "cut"
	if _, err := io.ReadAll(cut.Body); err == nil {
		t.Error("a cut answer looks whole")
	}
	_ = cut.Body.Close()
	if r := pool.Report()[0]; r.Outstanding != 0 || r.Failed != 1 {
		t.Errorf("cut: %+v", r)
	}
	left := begin()
	_ = left.Body.Close() // the client goes away: the server sees it
	if r := pool.Report()[0]; r.Outstanding != 0 || r.Failed != 1 || r.State != serving.AddressHealthy {
		t.Errorf("left: %+v", r)
	}
	close(more)
}

func TestTheAnswersOfAServerAreBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/told" {
			w.Header().Set("Content-Length", "1000000")
		}
		for range 1000 {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	pool := open(t, &probes{}, server.URL)
	tr := transport(t)
	for _, path := range []string{"/told", "/untold"} {
		response, err := pool.Send(tr, post(t.Context(), path, ""))
		if err != nil {
			t.Fatal(err)
		}
		_, err = remote.ReadBody(response, 999_999)
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindTooLarge {
			t.Errorf("%s: %v", path, err)
		}
		if response, err = pool.Send(tr, post(t.Context(), path, "")); err != nil {
			t.Fatal(err)
		}
		if body, err := remote.ReadBody(response, 1_000_000); err != nil || len(body) != 1_000_000 {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
	}
}

func TestADeadlineIsHandedOn(t *testing.T) {
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
		close(ended)
	}))
	t.Cleanup(server.Close)
	pool := open(t, &probes{}, server.URL)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := pool.Send(transport(t), post(ctx, "/", "x"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	<-ended
	if r := pool.Report()[0]; r.Failed != 0 || r.Outstanding != 0 {
		t.Errorf("%+v", r)
	}
}

func TestGarbageIsAFailureOfTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1000))
			_, _ = io.WriteString(conn, "\x00\x01garbage\r\n\r\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	pool := open(t, &probes{}, "http://"+l.Addr().String())
	tr := transport(t)
	for range 3 {
		if _, err := pool.Send(tr, post(t.Context(), "/", "x")); err == nil || !remote.Begun(err) {
			t.Errorf("%v", err)
		}
	}
	if r := pool.Report()[0]; r.State != serving.AddressEjected || !strings.Contains(r.Reason, "malformed HTTP") {
		t.Errorf("%+v", r)
	}
}
