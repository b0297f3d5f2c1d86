package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// http2Faults are faulty clients that speak HTTP/2.
func http2Faults() []fault {
	return []fault{
		{name: "client-http2", about: "2,000 requests in HTTP/2, every other one reset before its answer or in the middle of its body", inject: resetStreams},
	}
}

// halfBody is a body that ends in an error.
type halfBody struct{ text io.Reader }

func (h halfBody) Read(p []byte) (int, error) {
	n, err := h.text.Read(p)
	if err != nil {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

func resetStreams(ctx context.Context, w *world) error {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	defer client.CloseIdleConnections()
	numbers, odd := make(chan int), make(chan error, 1)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			for i := range numbers {
				if err := askOrReset(ctx, w, client, i); err != nil {
					select {
					case odd <- err:
					default:
					}
				}
			}
		})
	}
	for i := range 2000 {
		numbers <- i
	}
	close(numbers)
	all.Wait()
	select {
	case err := <-odd:
		return err
	default:
		return nil
	}
}

// askOrReset sends the i-th request; the odd ones are reset.
func askOrReset(ctx context.Context, w *world, client *http.Client, i int) error {
	if i%2 == 0 {
		status, body, err := post(ctx, client, w.endpoint(victim), []byte(`{"x": 3}`))
		if err != nil || status != http.StatusOK || !right(victim, 3, body) {
			return fmt.Errorf("in HTTP/2: answered %d %.200s %w", status, body, err)
		}
		return nil
	}
	var body io.Reader = bytes.NewReader([]byte(`{"x": 3}`))
	if i%4 == 1 {
		body = halfBody{bytes.NewReader([]byte(`{"x"`))}
	} else {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(i%10)*time.Millisecond/2)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.endpoint(victim), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, err := client.Do(req); err == nil { // the answer was faster than the reset
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	return nil
}
