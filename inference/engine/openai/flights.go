package openai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// goneAfter is how long a server may fail its probes until the requests that it has are given up. Shorter than the
// time that a busy server may need for a probe, they would be lost for nothing.
const goneAfter = 10 * time.Second

var errGone = errors.New("it does not answer its probes")

// flights are the requests that a server has.
type flights struct {
	address string

	mu   sync.Mutex
	bad  time.Time // since when probes fail, zero: they do not
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
	release = func() {
		f.mu.Lock()
		delete(f.held, key)
		f.mu.Unlock()
	}
	context.AfterFunc(life, release)
	return release
}

// probed takes the result of a probe.
func (f *flights) probed(err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.bad = time.Time{}
	case f.bad.IsZero():
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
	release := func() {}
	url := r.URL.Scheme + "://" + r.URL.Host + r.URL.Path
	for _, f := range h.m.flights {
		if strings.HasPrefix(url, f.address+"/") {
			release = f.hold(h.life, h.cancel)
			break
		}
	}
	response, err := h.m.e.transport.RoundTrip(r)
	if err != nil { // another server may get it
		release()
	}
	return response, err
}
