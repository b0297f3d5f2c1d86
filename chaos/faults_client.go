package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// clientFaults are faulty or malicious clients. Only their own requests may be affected.
func clientFaults() []fault {
	return []fault{
		{name: "client-malformed", about: "request heads that two parsers could read differently", inject: malformed},
		{name: "client-slow", about: "300 connections that send single bytes slowly", inject: slowClients},
		{name: "client-leaves", about: "200 clients that disconnect in the middle of their request, or before the answer", inject: leavingClients},
		{name: "client-bomb", about: "1 GB of zeros as gzip, and a length beyond the limit", slow: true, inject: bombs},
		{name: "client-reads-slowly", about: "50 clients that never read their large answers", slow: true, hit: victim, statuses: []int{http.StatusTooManyRequests}, inject: slowReaders},
		{name: "client-flood", about: "300 clients on one endpoint at once", hit: victim, statuses: []int{http.StatusTooManyRequests}, inject: flood},
		{name: "client-bad-json", about: "1,000 bodies that are not JSON", slow: true, inject: func(ctx context.Context, w *world) error {
			return several(1000, 0, func(ctx context.Context, w *world) error {
				return w.ask(ctx, victim, `{"x": `, http.StatusUnprocessableEntity)
			})(ctx, w)
		}},
	}
}

func (w *world) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", strings.TrimPrefix(w.serving().urls["serve"], "http://"))
}

func malformed(ctx context.Context, w *world) error {
	const path = "POST /serve/victim HTTP/1.1\r\nHost: x\r\n"
	for _, head := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET\r\n\r\n",
		path + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		path + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		path + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
		path + "Content-Length: -1\r\n\r\n",
		path + " folded: line\r\n\r\n",
		path + "X: " + strings.Repeat("y", 2<<20) + "\r\n\r\n",
		"POST /serve/victim HTTP/9.9\r\n\r\n",
	} {
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		err = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err == nil {
			_, _ = io.WriteString(c, head) // it may be refused before its end
			var answer []byte
			answer, _ = io.ReadAll(c) // a reset is a refusal too
			if bytes.HasPrefix(answer, []byte("HTTP/1.1 2")) {
				err = fmt.Errorf("%.60q was answered %.60q", head, answer)
			}
		}
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

func slowClients(ctx context.Context, w *world) error {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 300 {
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	for _, piece := range []string{"POST /serve/victim HTTP/1.1\r\n", "Host: x\r\n", "Content-Length: 100\r\n\r\n", "{"} {
		for _, c := range conns {
			_, _ = io.WriteString(c, piece) // on a busy machine it may have been too slow, and is cut
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func leavingClients(ctx context.Context, w *world) error {
	for i := range 200 {
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		request := "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"x\": 1}"
		if _, err := io.WriteString(c, request[:len(request)-i%40]); err != nil {
			return err
		}
		if tcp, ok := c.(*net.TCPConn); ok && i%2 == 0 {
			_ = tcp.SetLinger(0) // a reset instead of a normal end
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func bombs(ctx context.Context, w *world) error {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := io.CopyN(z, zeros{}, 1<<30); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	status, body, err := post(ctx, http.DefaultClient, w.endpoint(victim), bomb.Bytes(), "Content-Encoding", "gzip")
	if err != nil || status != http.StatusRequestEntityTooLarge {
		return fmt.Errorf("the bomb was answered %d %.100s %w", status, body, err)
	}
	c, err := w.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 64)
	if n, err := c.Read(answer); err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 413")) {
		return fmt.Errorf("a length beyond the limit was answered %q %w", answer[:n], err)
	}
	return nil
}

func slowReaders(ctx context.Context, w *world) error {
	for range 10 {
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		body := `{"x": 1, "do": "large"}`
		if _, err := fmt.Fprintf(c, "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			return err
		}
	}
	return pause(ctx, 2*time.Second)
}

func flood(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300}}
	defer c.CloseIdleConnections()
	var all sync.WaitGroup
	odd := make(chan error, 300)
	for range 300 {
		all.Go(func() {
			for ctx.Err() == nil {
				status, body, err := post(ctx, c, w.endpoint(victim), []byte(`{"x": 3}`))
				if err != nil || status == http.StatusTooManyRequests || right(victim, 3, body) {
					continue // an error is the end of ctx, or a connection broken by the flood
				}
				odd <- fmt.Errorf("answered %d %.200s", status, body)
				return
			}
		})
	}
	all.Wait()
	close(odd)
	return <-odd
}
