package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
)

// Limits of connections to servers.
const (
	connectTimeout = 2 * time.Second
	// Servers in Python close idle connections after 5 s: one that a request is sent on at that moment is
	// lost, and the request must not be repeated.
	idleTimeout = 3 * time.Second
	mostIdle    = 256
	mostHeaders = 256 << 10
)

// Dialer connects to servers, with keep-alive.
func Dialer() *net.Dialer {
	return &net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}
}

// Transport is for the connections to servers of HTTP. trust is nil for the machine's certificates. It
// follows no proxy: engines are beside this process.
func Transport(trust *tls.Config) *http.Transport {
	t := &http.Transport{
		DialContext: Dialer().DialContext, TLSClientConfig: trust, TLSHandshakeTimeout: connectTimeout, ForceAttemptHTTP2: trust != nil,
		MaxIdleConns: mostIdle, MaxResponseHeaderBytes: mostHeaders, ExpectContinueTimeout: time.Second,
	}
	Adapt(t)
	return t
}

// Adapt sets how a transport keeps the connections to servers, and that their answers come as they are.
func Adapt(t *http.Transport) {
	t.IdleConnTimeout, t.MaxIdleConnsPerHost, t.DisableCompression = idleTimeout, mostIdle, true
}

// Send sends a request by HTTP to one of the addresses, which are base URLs. The path and the query of
// request.URL are added to the base. request needs GetBody, as http.NewRequest makes it for bytes, to be
// sent to another address if the first cannot be connected. The body of the answer holds the address until
// it is read to its end or closed. Begun tells errors apart.
func (p *Pool) Send(transport http.RoundTripper, request *http.Request) (response *http.Response, err error) {
	err = p.Do(request.Context(), func(ctx context.Context, use *Use) error {
		if response, err = use.RoundTrip(ctx, transport, request); err != nil { //nolint:bodyclose // the caller's
			return err
		}
		use.Hold()
		held := *use
		response.Body = &body{ReadCloser: response.Body, ended: ctx.Err, use: &held}
		return nil
	})
	return response, err
}

// RoundTrip sends a request to the address of this use, as Send does. Its errors are marked. The caller
// closes the body of the answer before the use ends.
func (u *Use) RoundTrip(ctx context.Context, transport http.RoundTripper, request *http.Request) (*http.Response, error) {
	base, err := url.Parse(u.Address())
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", u.Address(), err)
	}
	var begun atomic.Bool
	r := request.Clone(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { begun.Store(true) }}))
	r.URL, r.Host = joined(base, request.URL), base.Host
	if u.again && request.Body != nil && request.Body != http.NoBody {
		if request.GetBody == nil {
			return nil, errors.New("the request cannot be repeated")
		}
		if r.Body, err = request.GetBody(); err != nil {
			return nil, err
		}
	}
	response, err := transport.RoundTrip(r)
	switch {
	case err == nil:
		return response, nil
	case begun.Load():
		return nil, Broken(err)
	}
	return nil, NotBegun(err)
}

// joined is the URL of a request at a server.
func joined(base, asked *url.URL) *url.URL {
	u := *base
	if prefix := strings.TrimSuffix(base.Path, "/"); prefix != "" {
		u.Path = prefix + asked.Path
		u.RawPath = ""
		if asked.RawPath != "" {
			u.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + asked.RawPath
		}
	} else {
		u.Path, u.RawPath = asked.Path, asked.RawPath
	}
	u.RawQuery = asked.RawQuery
	return &u
}

// body is the body of an answer, which holds its address.
type body struct {
	io.ReadCloser

	ended func() error // the end of the request's context
	use   *Use
	once  atomic.Bool
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	if n > 0 {
		b.use.Progress()
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.end(nil)
	case b.ended() != nil:
		b.drop()
	default:
		b.end(Broken(err))
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.drop()
	return err
}

func (b *body) drop() {
	if b.once.CompareAndSwap(false, true) {
		b.use.Drop()
	}
}

func (b *body) end(err error) {
	if b.once.CompareAndSwap(false, true) {
		b.use.End(err)
	}
}

// ReadBody reads the body of an answer to its end and closes it. More than limit bytes are an
// *engine.Error of KindTooLarge. Other errors are marked as Broken: the server has begun.
func ReadBody(response *http.Response, limit int64) ([]byte, error) {
	defer response.Body.Close()
	tooLarge := &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("the engine's answer is larger than %d bytes", limit)}
	if response.ContentLength > limit {
		return nil, tooLarge
	}
	const mostAtOnce = 1 << 20 // of memory that is allocated before the bytes are there
	data := make([]byte, 0, min(max(response.ContentLength+1, 512), mostAtOnce))
	for {
		n, err := response.Body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > limit:
			return nil, tooLarge
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, Broken(err)
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}
