package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// listenerFaults are clients that close a connection, or their side of it, before their answer, and
// unsolicited bodies.
func listenerFaults() []fault {
	return []fault{
		{name: "client-half-closed", about: "16 clients that half-close their connection and wait: each gets its answer", hit: victim, inject: halfClosedClients},
		{name: "client-leaves-queue", about: "60 clients that queue 0.4 s of work each and disconnect: the work is dropped", hit: victim, inject: queueLeavers},
		{name: "client-drips", about: "100 bodies that arrive a byte at a time", inject: drippingClients},
	}
}

const nap = `{"x": %d, "do": "nap"}`

// askHalf sends a request and returns the connection, on which the answer comes.
func (w *world) askHalf(ctx context.Context, body string) (*net.TCPConn, error) {
	c, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no TCP connection", c), c.Close())
	}
	_, err = fmt.Fprintf(tcp, "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return tcp, nil
}

func halfClosedClients(ctx context.Context, w *world) error {
	var all sync.WaitGroup
	const clients = 16
	wrong := make(chan error, clients)
	for x := range clients {
		all.Go(func() {
			if err := w.askAndHalfClose(ctx, x); err != nil {
				wrong <- fmt.Errorf("a client that has closed its side: %w", err)
			}
		})
	}
	all.Wait()
	close(wrong)
	return <-wrong
}

func (w *world) askAndHalfClose(ctx context.Context, x int) (err error) {
	c, err := w.askHalf(ctx, fmt.Sprintf(nap, x))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := errors.Join(c.CloseWrite(), c.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !right(victim, x, body)) {
		err = fmt.Errorf("x=%d was answered %s %.300s", x, resp.Status, body)
	}
	return err
}

// queueLeavers leave more work than the deadline of the next clients allows.
func queueLeavers(ctx context.Context, w *world) error {
	for x := range 60 {
		c, err := w.askHalf(ctx, fmt.Sprintf(nap, x))
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// drippingClients announce one body each. Some disconnect at the end, the rest are cut.
func drippingClients(ctx context.Context, w *world) error {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 100 {
		c, err := w.dial(ctx)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		if _, err := io.WriteString(c, "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"); err != nil {
			return err
		}
	}
	for range 20 {
		for _, c := range conns {
			_, _ = io.WriteString(c, "x") // it may have been cut already
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
