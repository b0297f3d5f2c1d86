// Package load asks one URL the same question from many connections and counts
// the answers. It owns its connections and its clock; it knows nothing about who
// answers. The loop is closed: a connection sends its next request when the last
// one is answered, so a slow server is asked less often and its percentiles are
// not corrected for that.
//
// The client is written by hand because the standard library's costs more CPU
// for a request than the servers that are measured beside it on the same cores.
package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// Options say what is asked and for how long.
type Options struct {
	// URL is a plain http one.
	URL string
	// Method is POST by default. Body is sent as ContentType (default application/json).
	Method      string
	Body        []byte
	ContentType string
	// Connections ask at the same time. Default 1.
	Connections int
	// Warmup is asked and not counted, then Duration is counted.
	Warmup, Duration time.Duration
	// Expect is the one right body; nil takes any. Another counts as wrong.
	Expect []byte
	// Owner tells which of the server's processes took the connection that has this
	// local address, 0 while none has. When it is given, connections are closed and
	// opened again until each of Owners processes has as many as the others.
	Owner  func(local netip.AddrPort) (int, error)
	Owners int
}

// Result is what was seen in the counted time.
type Result struct {
	Requests int // right answers
	Failed   int // other statuses, wrong bodies, broken connections
	Took     time.Duration
	Latency  Histogram // of right answers
	// FirstFailure says what the first failed request met.
	FirstFailure error
	// Uneven tells that an Owner was given, but connections kept landing unevenly.
	Uneven bool
}

// PerSecond is the rate of right answers.
func (r *Result) PerSecond() float64 { return float64(r.Requests) / r.Took.Seconds() }

// maxFailures ends a connection's loop: a server that only fails would otherwise
// be measured at failing.
const maxFailures = 100

// Run asks until Duration is over or ctx ends. It returns an error only when it
// could not ask; failed requests are in the Result. onCount, when not nil, is
// called as the counted time begins, on a goroutine of its own.
func Run(ctx context.Context, o Options, onCount func()) (*Result, error) {
	if o.Connections < 1 {
		o.Connections = 1
	}
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	if o.Method == "" {
		o.Method = http.MethodPost
	}
	target, err := url.Parse(o.URL)
	if err != nil || target.Scheme != "http" || target.Host == "" {
		return nil, fmt.Errorf("ask %q: not a plain http URL", o.URL)
	}
	host := target.Host
	if target.Port() == "" {
		host = net.JoinHostPort(target.Hostname(), "80")
	}
	request := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nAccept: application/json\r\nContent-Length: %d\r\n\r\n",
		o.Method, target.RequestURI(), target.Host, o.ContentType, len(o.Body))
	request = append(request, o.Body...)
	sum := &Result{}
	conns := make([]*conn, o.Connections) // nil: opened at the first request
	if o.Owner != nil && o.Owners > 1 && o.Connections >= o.Owners {
		conns, sum.Uneven, err = spread(ctx, host, o)
		if err != nil {
			return nil, err
		}
	}

	counted := time.Now().Add(o.Warmup)
	end := counted.Add(o.Duration)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	results := make([]Result, o.Connections)
	var all sync.WaitGroup
	if onCount != nil {
		all.Go(func() {
			timer := time.NewTimer(o.Warmup)
			defer timer.Stop()
			select {
			case <-timer.C:
				onCount()
			case <-ctx.Done():
			}
		})
	}
	for i := range results {
		all.Go(func() { ask(ctx, host, conns[i], request, o.Expect, counted, end, &results[i]) })
	}
	all.Wait()

	sum.Took = time.Since(counted)
	for i := range results {
		r := &results[i]
		sum.Requests += r.Requests
		sum.Failed += r.Failed
		sum.Latency.Add(&r.Latency)
		if sum.FirstFailure == nil {
			sum.FirstFailure = r.FirstFailure
		}
	}
	return sum, nil
}

// ask is one connection's loop. A broken connection is opened again.
func ask(ctx context.Context, host string, c *conn, request, expect []byte, counted, end time.Time, r *Result) {
	if c != nil {
		c.endWith(ctx)
	}
	defer func() {
		if c != nil {
			c.close()
		}
	}()
	for ctx.Err() == nil && r.Failed < maxFailures {
		sent := time.Now()
		var err error
		if c == nil {
			c, err = dial(ctx, host)
		}
		if err == nil {
			err = c.exchange(request, expect)
		}
		done := time.Now()
		// What the end of the run cut is nobody's failure. A dial sees the end by the
		// clock, maybe before the context's timer has fired.
		if ctx.Err() != nil || !done.Before(end) {
			return
		}
		if err != nil {
			r.Failed++
			if r.FirstFailure == nil {
				r.FirstFailure = err
			}
			var answer *answerError
			if c != nil && (!errors.As(err, &answer) || answer.closed) {
				c.close()
				c = nil
			}
			continue
		}
		if c.closing {
			c.close()
			c = nil
		}
		if sent.After(counted) {
			r.Requests++
			r.Latency.Record(done.Sub(sent))
		}
	}
}
