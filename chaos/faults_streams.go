package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// streamFaults are clients that would occupy a worker indefinitely: by reading a stream slowly, or
// by disconnecting without an answer. Other clients of the same endpoint get their answers within
// their deadline.
func streamFaults() []fault {
	return []fault{
		{name: "client-reads-streams-slowly", about: "8 clients that read streams of 25 MB at 1 KB/s, and 3 that read endless streams", slow: true, hit: victim, inject: slowStreams},
		{name: "client-leaves-long-requests", about: "5 clients that disconnect half a second into a request of ten minutes", hit: victim, inject: leavingLongRequests},
	}
}

// send sends a request to the victim on a separate connection.
func (w *world) send(ctx context.Context, question string) (*net.TCPConn, error) {
	c, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a connection is a %T", c), c.Close())
	}
	_, err = fmt.Fprintf(c, "POST /serve/victim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Request-Timeout: 600\r\nContent-Length: %d\r\n\r\n%s", len(question), question)
	if err == nil {
		err = tcp.SetReadBuffer(16 << 10)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return tcp, nil
}

func slowStreams(ctx context.Context, w *world) error {
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for _, megabytes := range append(slices.Repeat([]int{25}, 8), slices.Repeat([]int{1 << 30}, 3)...) {
		c, err := w.send(ctx, fmt.Sprintf(`{"x": 1, "do": "stream", "megabytes": %d}`, megabytes))
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	answered := make(chan error, 1)
	go func() { // until each stream has had its turn
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
			if err := errors.Join(w.ask(ctx, victim, `{"x": 1}`, http.StatusOK), pause(ctx, 100*time.Millisecond)); err != nil {
				answered <- err
				return
			}
		}
		answered <- nil
	}()
	buf := make([]byte, 100)
	for {
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = io.ReadFull(c, buf) // nothing may have arrived, or it has been cut
		}
		select {
		case err := <-answered:
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func leavingLongRequests(ctx context.Context, w *world) error {
	for range 5 {
		c, err := w.send(ctx, `{"x": 1, "do": "ask", "seconds": 600}`)
		if err != nil {
			return err
		}
		err = pause(ctx, 500*time.Millisecond)
		// A reset: the connection is gone, not only half-closed.
		if err := errors.Join(err, c.SetLinger(0), c.Close()); err != nil {
			return err
		}
	}
	return w.ask(ctx, victim, `{"x": 1}`, http.StatusOK)
}
