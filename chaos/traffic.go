package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// tempo is the pause of a client between two requests.
	tempo = 2 * time.Millisecond
	// One of this many requests is large: its body is in memory shared with the workers.
	largeEvery = 32
	largeSize  = 400 << 10
)

// seen are the observations of the clients of one endpoint in a window of time.
type seen struct {
	requests int
	wrong    int
	failed   map[int]int // by status, 0 for a connection that broke
	slowest  time.Duration
	example  string // an example of a wrong or failed answer
	probes   int
	lies     []string // of /readyz
}

// traffic sends requests to all endpoints continuously, and knows the right answers.
type traffic struct {
	w      *world
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu       sync.Mutex
	seen     map[string]*seen
	good     map[string]sign
	flying   map[int]time.Time // since when each client waits for an answer
	answered int
}

// sign is an endpoint's last right answer: the times of its request and arrival, and its instance.
type sign struct {
	begun, at time.Time
	from      *server
}

// newTraffic starts the clients; end stops them.
func newTraffic(w *world) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	t := &traffic{w: w, cancel: cancel, seen: map[string]*seen{}, good: map[string]sign{}, flying: map[int]time.Time{}}
	w.traffic = t
	// Endpoints that answer many requests at once have more clients.
	for n, name := range slices.Concat(bystanders, []string{victim, victim, "steady_batched", "steady_batched", "steady_own", "steady_own"}) {
		t.all.Go(func() { t.client(ctx, n, name) })
	}
	for _, name := range append(slices.Clone(bystanders), victim) {
		t.all.Go(func() { t.probe(ctx, name) })
	}
	return t
}

func (t *traffic) end() {
	t.cancel()
	t.all.Wait()
}

// settled waits until all earlier requests have been recorded.
func (t *traffic) settled(ctx context.Context) error {
	now := time.Now()
	waits := func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		for begun := range maps.Values(t.flying) {
			if begun.Before(now) {
				return true
			}
		}
		return false
	}
	for waits() {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (t *traffic) begin(client int, begun time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flying[client] = begun
}

func (t *traffic) client(ctx context.Context, n int, name string) {
	// Each has its own connection, like real clients.
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer c.CloseIdleConnections()
	for pause(ctx, tempo) == nil {
		x := rand.IntN(1000) //nolint:gosec // an input
		begun := time.Now()
		t.begin(n, begun)
		s := t.w.serving()
		question := fmt.Appendf(nil, `{"x": %d}`, x)
		if x%largeEvery == 0 {
			question = append(question, bytes.Repeat([]byte(" "), largeSize)...)
		}
		status, body, err := post(ctx, c, s.endpoint(name), question)
		if ctx.Err() != nil {
			return
		}
		t.note(n, name, s, x, status, body, err)
	}
}

func (t *traffic) note(client int, name string, from *server, x, status int, body []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, begun, now := t.of(name), t.flying[client], time.Now()
	delete(t.flying, client)
	s.requests++
	s.slowest = max(s.slowest, now.Sub(begun))
	switch {
	case err != nil:
		s.failed[0]++
		s.example = err.Error()
	case status != http.StatusOK:
		s.failed[status]++
		s.example = fmt.Sprintf("%d %.400s", status, body)
	case !right(name, x, body):
		s.wrong++
		s.example = fmt.Sprintf("x=%d: %.400s", x, body)
	default:
		t.answered++
		t.good[name] = sign{begun, now, from}
	}
}

func (t *traffic) lastGood(name string) sign {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.good[name]
}

// of is the window of an endpoint. Requires mu.
func (t *traffic) of(name string) *seen {
	s := t.seen[name]
	if s == nil {
		s = &seen{failed: map[int]int{}}
		t.seen[name] = s
	}
	return s
}

// right reports whether body is the right answer of an endpoint.
func right(name string, x int, body []byte) bool {
	var got struct {
		Y    *int
		From string
	}
	return json.Unmarshal(body, &got) == nil && got.From == name && got.Y != nil && *got.Y == 7*x+len(name)
}

// total is the number of right answers.
func (t *traffic) total() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.answered
}

// take ends a window of time and returns its observations: of the affected endpoint, and of all
// others together.
func (t *traffic) take(hit string) (w window) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.onHit.failed, w.elsewhere.failed = map[int]int{}, map[int]int{}
	for name, s := range t.seen {
		to := &w.elsewhere
		if name == hit || hit == everything {
			to = &w.onHit
		}
		to.requests += s.requests
		to.wrong += s.wrong
		to.slowest = max(to.slowest, s.slowest)
		to.probes += s.probes
		to.lies = append(to.lies, s.lies...)
		for status, n := range s.failed {
			to.failed[status] += n
		}
		if s.example != "" {
			to.example = name + ": " + s.example
		}
	}
	clear(t.seen)
	return w
}

type window struct{ onHit, elsewhere seen }

func (s *seen) failures() int {
	n := 0
	for k := range maps.Values(s.failed) {
		n += k
	}
	return n
}

func post(ctx context.Context, c *http.Client, url string, body []byte, header ...string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}
