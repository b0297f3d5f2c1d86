package openai

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// goneAfter is how long a server may fail its probes until the requests that it has are given up. Shorter than the
// time that a busy server may need for a probe, they would be lost for nothing.
const goneAfter = 10 * time.Second

var errGone = errors.New("it does not answer its probes")

// flights are the requests that a server has.
type flights struct {
	address string

	signs atomic.Uint64 // of progress: what the server has sent

	mu   sync.Mutex
	bad  time.Time // since when probes fail and it sends nothing, zero: they do not
	seen uint64    // of signs
	held map[*context.CancelCauseFunc]struct{}
}

// hold keeps what ends a request until life ends, or release is called.
func (f *flights) hold(life context.Context, cancel context.CancelCauseFunc) (release func()) {
	key := &cancel
	f.mu.Lock()
	if f.held == nil {
		f.held = map[*context.CancelCauseFunc]struct{}{}
	}
	f.held[key] = struct{}{}
	f.mu.Unlock()
	drop := func() {
		f.mu.Lock()
		delete(f.held, key)
		f.mu.Unlock()
	}
	stop := context.AfterFunc(life, drop)
	return func() {
		stop()
		drop()
	}
}

// probed takes the result of a probe. A server that sends answers is alive, however long its probes take.
func (f *flights) probed(err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	signs := f.signs.Load()
	sends := signs != f.seen
	f.seen = signs
	switch {
	case err == nil:
		f.bad = time.Time{}
	case f.bad.IsZero() || sends:
		f.bad = now
	case now.Sub(f.bad) >= goneAfter:
		for cancel := range f.held {
			(*cancel)(fmt.Errorf("%w: %w", errGone, err))
		}
	}
}

// holder is a RoundTripper for one request, which tells its server what ends it.
type holder struct {
	m      *model
	life   context.Context //nolint:containedctx // of one request
	cancel context.CancelCauseFunc
}

// RoundTrip implements http.RoundTripper.
func (h *holder) RoundTrip(r *http.Request) (*http.Response, error) {
	url := r.URL.Scheme + "://" + r.URL.Host + r.URL.Path
	for _, f := range h.m.flights {
		if strings.HasPrefix(url, f.address+"/") {
			release := f.hold(h.life, h.cancel)
			response, err := h.m.e.transport.RoundTrip(r)
			if err != nil { // another server may get it
				release()
				return nil, err
			}
			response.Body = &inFlight{response.Body, f, release}
			return response, nil
		}
	}
	return h.m.e.transport.RoundTrip(r)
}

// inFlight is the body of an answer. Once it is closed, the end of its server is nothing to the request any more: another
// server may have the next part of it.
type inFlight struct {
	io.ReadCloser

	f       *flights
	release func()
}

// Read implements io.Reader.
func (b *inFlight) Read(p []byte) (n int, err error) {
	if n, err = b.ReadCloser.Read(p); n > 0 {
		b.f.signs.Add(1)
	}
	return n, err
}

// Close implements io.Closer.
func (b *inFlight) Close() error {
	b.release()
	return b.ReadCloser.Close()
}
