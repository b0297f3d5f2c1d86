// Package crowd has clients that send requests without a pause while a test changes the system behind them, and count
// what became of each request. The tests of the chart and of the cluster use it.
package crowd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Question is one request, and what its answer must be.
type Question struct {
	URL  string
	Body []byte
	// Check says what is wrong with the body of an answer with status 200.
	Check func(answer string) error
}

// Options are the clients.
type Options struct {
	// Ask makes the question of a number. The numbers begin at 1.
	Ask func(n int64) Question
	// Header is sent with each request.
	Header map[string]string
	// Clients is the number of clients; Fresh of them open a connection for each request.
	Clients, Fresh int
	// Pause is how long a client waits between two requests.
	Pause time.Duration
	// Timeout is how long an answer may take. 0: two minutes.
	Timeout time.Duration
	// Repeats is how long a request is sent again whose connection was refused, broke, or took too long before any byte of an answer.
	Repeats time.Duration
	// Again reports that a request with this status is sent again. Nil: none is.
	Again func(status int) bool
}

// Counts are what became of the requests.
type Counts struct {
	Sent, Wrong, Failed uint64
	// Again is how often a request was sent again.
	Again uint64
	// Faults are the first reasons.
	Faults []string
}

// maxFaults bounds the reasons that are kept.
const maxFaults = 20

// Clients send requests until End.
type Clients struct {
	o                          Options
	stop                       context.CancelFunc
	running                    sync.WaitGroup
	number                     atomic.Int64
	sent, wrong, failed, again atomic.Uint64
	mu                         sync.Mutex // guards faults
	faults                     []string
}

// Start begins with the requests.
func Start(o Options) *Clients {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Clients{o: o, stop: stop}
	for i := range o.Clients {
		c.running.Go(func() { c.client(ctx, i >= o.Fresh) })
	}
	return c
}

// Counts are those of now.
func (c *Clients) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counts{Sent: c.sent.Load(), Wrong: c.wrong.Load(), Failed: c.failed.Load(), Again: c.again.Load(), Faults: append([]string(nil), c.faults...)}
}

// End waits for the requests that are under way, and returns the counts.
func (c *Clients) End() Counts {
	c.stop()
	c.running.Wait()
	return c.Counts()
}

func (c *Clients) fault(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, time.Now().Format("15:04:05.000")+" "+text)
	}
}

func (c *Clients) client(ctx context.Context, keep bool) {
	transport := &http.Transport{DisableKeepAlives: !keep, DialContext: (&net.Dialer{Timeout: 20 * time.Second}).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: c.o.Timeout, Transport: transport}
	for ctx.Err() == nil {
		c.request(client, c.o.Ask(c.number.Add(1)))
		if c.o.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(c.o.Pause):
			}
		}
	}
}

func (c *Clients) request(client *http.Client, q Question) {
	const pause = 100 * time.Millisecond
	status, answer, clean, err := c.send(client, q)
	for begun := time.Now(); time.Since(begun) < c.o.Repeats && (err != nil && clean || err == nil && c.o.Again != nil && c.o.Again(status)); {
		c.again.Add(1)
		c.fault(fmt.Sprintf("again: %d %.200s %v", status, answer, err))
		<-time.After(pause) // not cut by End: the request is under way
		status, answer, clean, err = c.send(client, q)
	}
	c.sent.Add(1)
	switch {
	case err != nil:
		c.failed.Add(1)
		c.fault(err.Error())
	case status != http.StatusOK:
		c.failed.Add(1)
		c.fault(fmt.Sprintf("%d %.500s", status, answer))
	default:
		if err := q.Check(answer); err != nil {
			c.wrong.Add(1)
			c.fault(err.Error())
		}
	}
}

// send sends a request once. clean reports that no byte of an answer has come.
func (c *Clients) send(client *http.Client, q Question) (status int, answer string, clean bool, err error) {
	clean = true
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { clean = false }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodPost, q.URL, bytes.NewReader(q.Body))
	if err != nil {
		return 0, "", false, err
	}
	req.GetBody = nil // the transport must not repeat it by itself: each repetition is counted
	req.Header.Set("Content-Type", "application/json")
	for name, value := range c.o.Header {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", clean, err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), clean, errors.Join(err, resp.Body.Close())
}
