package security_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// announced are the ways to announce an unwanted body.
var announced = map[string]string{
	"100 MB":           "Content-Length: 100000000\r\n\r\n",
	"100 MB, waiting":  "Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n",
	"chunked":          "Transfer-Encoding: chunked\r\n\r\n",
	"chunked, waiting": "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
}

// Bodies without credentials: every route of the data plane and of the admin listener answers after
// the head, before a byte of the body is sent, does not request the body, and closes the
// connection, even if more bytes arrive.
func TestEveryRouteRefusesAStrangersBodyByItsHead(t *testing.T) {
	w := newWorld(t)
	base := map[string]string{"serve": w.serve, "admin": w.admin}
	var refused []net.Conn
	asked := 0
	for _, r := range w.rows() {
		if base[r.listener] == "" {
			continue
		}
		path, host := r.example(), "a"
		if r.listener == "admin" { // from a page whose name resolves to this machine
			host = "evil.example"
		}
		for method := range strings.SplitSeq(r.methods, ", ") {
			if method == "any" {
				method = "POST"
			}
			for name, framing := range announced {
				c := w.dial(t, base[r.listener])
				if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", method, path, host, framing); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
				if err != nil {
					t.Errorf("%s %s on %s, %s: %v", method, path, r.listener, name, err)
					continue
				}
				_ = resp.Body.Close()
				asked++
				wanted := strings.HasPrefix(r.caller, "anybody") && resp.StatusCode != http.StatusContinue
				if !wanted && resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
					t.Errorf("%s %s on %s, %s: %s without credentials", method, path, r.listener, name, resp.Status)
				}
				if !resp.Close {
					t.Errorf("%s %s on %s, %s: the connection is kept for the body", method, path, r.listener, name)
				}
				refused = append(refused, c)
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d requests were sent", asked)
	}
	if thorough() {
		dripUntilClosed(t, refused)
	}
	w.alive(t)
}

// dripUntilClosed sends single bytes until each connection has been closed.
func dripUntilClosed(t *testing.T, open []net.Conn) {
	t.Helper()
	for end := time.Now().Add(patience); len(open) > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d connections on which a body drips are still open", len(open))
		}
		var still []net.Conn
		for _, c := range open {
			if _, err := c.Write([]byte("1")); err == nil {
				still = append(still, c)
			}
		}
		open = still
		time.Sleep(100 * time.Millisecond)
	}
}

// dial connects to a listener.
func (w *world) dial(t *testing.T, base string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience)) // a new socket has no error
	return c
}

// Memory for bodies needs a key: clients without one that send most of a body and then wait
// occupy none.
func TestStrangersHoldNoMemoryForBodies(t *testing.T) {
	w := newWorld(t)
	most := bytes.Repeat([]byte("x"), 900<<10)
	used := heapDuring(func() {
		for range 100 { // 90 MB, more than 10 times the limit of all bodies here
			c := w.dial(t, w.serve)
			if _, err := fmt.Fprintf(c, "POST /serve/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 1<<20); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(most); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Log(err) // on a busy machine the connection may have ended
			}
		}
		status, body := w.ask(t, "POST", w.serve+"/serve/echo", string(most), map[string]string{"Authorization": "Bearer " + w.key})
		if status != http.StatusOK || body != string(most) {
			t.Errorf("a request with a key is answered %d %.100s", status, body)
		}
	})
	if used > mostMemory {
		t.Errorf("%d MiB were in use", used>>20)
	}
	w.alive(t)
}
