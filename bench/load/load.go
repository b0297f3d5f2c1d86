// Package load sends the same request to one URL from many connections and counts the answers. It
// owns its connections and its clock; it does not know the server. The loop is closed by default: a
// connection sends its next request when the previous one is answered, so a slow server gets fewer
// requests, and its percentiles are not corrected for that. With a rate it is open: requests arrive
// at random times of that rate, and their latency begins there.
//
// The client is written by hand because the standard library's uses more CPU per request than the
// measured servers on the same cores.
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

// Options are the request and the duration.
type Options struct {
	// URL is a plain http one, or grpc://host/service/method, whose Body is the message of a unary call.
	URL string
	// Method is POST by default. Body is sent as ContentType (default application/json).
	Method      string
	Body        []byte
	ContentType string
	// Header is further lines of the request's header, each with its end. gRPC has none.
	Header string
	// Rate, if not 0, is the number of arrivals a second of an open loop.
	Rate float64
	// Connections is the number of concurrent connections. Default 1.
	Connections int
	// Warmup is not counted, then Duration is counted.
	Warmup, Duration time.Duration
	// Expect is the expected body; nil accepts any. Other bodies count as wrong.
	Expect []byte
	// Token, if not nil, is in each chunk of a streamed answer whose time is measured. gRPC has none.
	Token []byte
	// Owner returns the server process that has accepted the connection with this local address, 0
	// while none has. If it is set, connections are closed and reopened until each of Owners
	// processes has the same number.
	Owner  func(local netip.AddrPort) (int, error)
	Owners int
}

// Result has the observations of the counted time.
type Result struct {
	Requests int // right answers
	Failed   int // other statuses, wrong bodies, broken connections
	Took     time.Duration
	Latency  Histogram // of right answers
	// Late is the number of requests of an open loop without an answer at the end. Latency has the
	// time until then.
	Late int
	// Tokens is the number of chunks with the Token that came in the counted time. First is the time until the first one
	// of a right answer, Between the times between those of an answer.
	Tokens         int
	First, Between Histogram
	// FirstFailure describes the first failed request.
	FirstFailure error
	// Uneven means that an Owner was set, but connections stayed uneven.
	Uneven bool
}

// PerSecond is the rate of right answers.
func (r *Result) PerSecond() float64 { return float64(r.Requests) / r.Took.Seconds() }

// maxFailures ends a connection's loop: a server that only fails must not be measured.
const maxFailures = 100

// Run sends requests until Duration is over or ctx ends. It returns an error only if it could not
// send any; failed requests are in the Result. onCount, if not nil, is called when the counted time
// begins, on a separate goroutine.
func Run(ctx context.Context, o Options, onCount func()) (*Result, error) {
	if o.Connections < 1 {
		o.Connections = 1
	}
	host, request, dial, err := o.prepare()
	if err != nil {
		return nil, err
	}
	sum := &Result{}
	conns := make([]link, o.Connections) // nil: opened at the first request
	if o.Owner != nil && o.Owners > 1 && o.Connections >= o.Owners {
		conns, sum.Uneven, err = spread(ctx, dial, host, o)
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
	if o.Rate > 0 {
		results = open(ctx, dial, host, o, request, counted, end)
	} else {
		for i := range results {
			all.Go(func() { ask(ctx, dial, host, conns[i], request, o.Expect, counted, end, &results[i]) })
		}
	}
	all.Wait()

	sum.Took = time.Since(counted)
	for i := range results {
		r := &results[i]
		sum.Requests += r.Requests
		sum.Failed += r.Failed
		sum.Late += r.Late
		sum.Tokens += r.Tokens
		sum.Latency.Add(&r.Latency)
		sum.First.Add(&r.First)
		sum.Between.Add(&r.Between)
		if sum.FirstFailure == nil {
			sum.FirstFailure = r.FirstFailure
		}
	}
	return sum, nil
}

// prepare returns where the request goes, its bytes, and how to get there.
func (o *Options) prepare() (host string, request []byte, dial dialer, err error) {
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	if o.Method == "" {
		o.Method = http.MethodPost
	}
	target, err := url.Parse(o.URL)
	if err != nil || (target.Scheme != "http" && target.Scheme != "grpc") || target.Host == "" {
		return "", nil, nil, fmt.Errorf("load %q: neither a plain http URL nor a grpc one", o.URL)
	}
	host = target.Host
	if target.Port() == "" {
		host = net.JoinHostPort(target.Hostname(), "80")
	}
	request = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nAccept: application/json\r\nContent-Length: %d\r\n%s\r\n",
		o.Method, target.RequestURI(), target.Host, o.ContentType, len(o.Body), o.Header)
	request = append(request, o.Body...)
	dial = dialHTTP(o.Token)
	if target.Scheme == "grpc" {
		request, dial = grpcRequest(target.Host, target.Path, o.Body), dialGRPC
	}
	return host, request, dial, nil
}

// Once sends one request and returns its answer; of a gRPC call, the message.
func Once(ctx context.Context, o Options) ([]byte, error) {
	host, request, dial, err := o.prepare()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, host)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := c.exchange(request, nil); err != nil {
		return nil, err
	}
	return c.answer(), nil
}

// ask is one connection's loop. A broken connection is reopened.
func ask(ctx context.Context, dial dialer, host string, c link, request, expect []byte, counted, end time.Time, r *Result) {
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
			r.timed(c.tokens(), sent, counted, end, err == nil && sent.After(counted))
		}
		done := time.Now()
		// Requests that the end of the run has interrupted are not failures. A dial detects the
		// end by the clock, possibly before the context's timer has fired.
		if ctx.Err() != nil || !done.Before(end) {
			return
		}
		if !sent.After(counted) && err == nil {
			c = orNone(c)
			continue
		}
		c = r.take(c, err, done.Sub(sent))
	}
}

// timed counts the tokens of an answer. Those of a whole answer of the counted time give times.
func (r *Result) timed(tokens []time.Time, sent, counted, end time.Time, whole bool) {
	for i, at := range tokens {
		if at.After(counted) && at.Before(end) {
			r.Tokens++
		}
		switch {
		case !whole:
		case i == 0:
			r.First.Record(at.Sub(sent))
		default:
			r.Between.Record(at.Sub(tokens[i-1]))
		}
	}
}

// take counts one exchange, and returns the connection for the next one, nil if it was closed.
func (r *Result) take(c link, err error, took time.Duration) link {
	if err == nil {
		r.Requests++
		r.Latency.Record(took)
		return orNone(c)
	}
	r.Failed++
	if r.FirstFailure == nil {
		r.FirstFailure = err
	}
	var answer *answerError
	if c != nil && (!errors.As(err, &answer) || answer.closed) {
		c.close()
		return nil
	}
	return c
}

// orNone closes a connection that the server closes, and returns nil for it.
func orNone(c link) link {
	if c.closing() {
		c.close()
		return nil
	}
	return c
}
