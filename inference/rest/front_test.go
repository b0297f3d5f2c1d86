package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// running starts an instance with the endpoints of urls and returns it with its
// address. stop ends it, and returns the result of Run.
func running(t *testing.T, o options, urls ...string) (s *inference.Service, addr string, stop func() error) {
	t.Helper()
	records := map[string]any{}
	for _, u := range urls {
		records[u] = map[string]any{"engine_type": "custom", "serving_url": u, "version": ""}
	}
	text, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Listener, o.Files, o.StopTimeout = l, noFiles{}, patience
	o.Source = fixedSource{&reconcile.State{ServiceID: "S", Sections: map[serving.Section]json.RawMessage{serving.SectionEndpoints: text}}}
	s, run := o.instance()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(patience); ; {
		if resp, _ := get(t, "http://"+l.Addr().String()+"/readyz"); resp.StatusCode == http.StatusOK {
			return s, l.Addr().String(), stop
		}
		if time.Now().After(end) {
			t.Fatal("never ready")
		}
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience)) // a new socket has no error
	return c
}

func TestAPanicGivesTheModelBack(t *testing.T) {
	s, addr, stop := running(t, options{Python: &fakePython{}, core: core{RequestTimeout: time.Hour}}, "panics")
	for name, tc := range map[string]struct{ body, want string }{
		"an engine":           {"x", "HTTP/1.1 500"},
		"an engine's nothing": {"no answer", "HTTP/1.1 500"},
		"a lender":            {strings.Repeat("x", engine.LendFrom), "HTTP/1.1 500"},
		"a stream":            {"stream", ""},
	} {
		c := dial(t, addr)
		if _, err := fmt.Fprintf(c, "POST /serve/panics HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(tc.body), tc.body); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(c) // a stream that panics ends in a reset
		if !strings.HasPrefix(string(got), tc.want) {
			t.Errorf("%s: %q", name, got)
		}
		if n := s.Status().Endpoints[0].InUse; n != 0 {
			t.Errorf("%s: %d references are left", name, n)
		}
	}
	if err := stop(); err != nil { // a leaked reference would delay it by an hour
		t.Error(err)
	}
}

func TestAClientThatLeavesIsNoErrorOfTheServer(t *testing.T) {
	python := &fakePython{release: make(chan struct{})}
	s, addr, _ := running(t, options{Python: python}, "held")
	for _, reset := range []bool{true, false} {
		c := dial(t, addr)
		if _, err := io.WriteString(c, "POST /serve/held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		for s.Status().Endpoints[0].InUse == 0 {
			time.Sleep(time.Millisecond)
		}
		if tcp, ok := c.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0) // else the close is not a reset
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); s.Status().Endpoints[0].InUse > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("reset %t: the request goes on for nobody", reset)
			}
		}
		if e := s.Status().Endpoints[0]; e.Errors != 0 {
			t.Errorf("reset %t: %d errors", reset, e.Errors)
		}
	}
}

func TestAHalfClosedClientIsAnswered(t *testing.T) {
	python := &fakePython{release: make(chan struct{})}
	s, addr, _ := running(t, options{Python: python}, "held")
	c := dial(t, addr)
	if _, err := io.WriteString(c, "POST /serve/held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := c.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
		t.Fatal("it cannot be half-closed")
	}
	from := bufio.NewReader(c)
	if begin, err := from.Peek(9); err != nil || string(begin) != "HTTP/1.1 " { // sent after the half-close has been detected
		t.Fatalf("%q %v", begin, err)
	}
	close(python.release)
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "null" {
		t.Errorf("%s %q %v", resp.Status, body, err)
	}
	if e := s.Status().Endpoints[0]; e.Errors != 0 || e.Requests != 1 {
		t.Errorf("%d requests, %d errors", e.Requests, e.Errors)
	}
}

// An error in a request's head is answered before its body is sent.
func TestAHeadThatCannotBeAnsweredIsRefusedBeforeItsBody(t *testing.T) {
	python := &fakePython{}
	_, addr, _ := running(t, options{Python: python, front: front{Origins: []string{"https://app.example"}}}, "lends")
	for name, tc := range map[string]struct{ line, status string }{
		"an unknown endpoint": {"POST /serve/nobody", "404"},
		"another method":      {"PUT /serve/lends", "405"},
		"another path":        {"POST /other", "404"},
		"a probe":             {"GET /livez", "200"},
		"too large":           {"POST /serve/lends", "413"},
		"a preflight":         {"OPTIONS /serve/lends", "204"},
	} {
		c := dial(t, addr)
		if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n", tc.line); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = resp.Body.Close()
		if !strings.HasPrefix(resp.Status, tc.status) || !resp.Close {
			t.Errorf("%s: %s, Connection: close is %t", name, resp.Status, resp.Close)
		}
		if tc.status != "413" && resp.Header.Get("Access-Control-Allow-Origin") == "" {
			t.Errorf("%s: no page may read it", name)
		}
	}
	if n := python.lent.Load(); n != 0 {
		t.Errorf("%d loans for requests that were refused", n)
	}
}
