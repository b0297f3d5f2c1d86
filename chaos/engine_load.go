package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// beside is the endpoint whose model is on a server beside the instance; those for other protocols of the server begin with it.
const beside = "beside"

const (
	// back is the time in which an endpoint answers again after its engine, and the most in which one that is stopped is
	// seen: 3 s, and the deadline of a request that was at it.
	back = 5 * time.Second
	// besideDeadline is the deadline of requests to it.
	besideDeadline = "2"
	// besideClients ask each endpoint.
	besideClients = 4
)

// question is what the clients of an endpoint ask, and what they know of the answer.
type question struct {
	name string // of the endpoint
	path string // below that of the service
	body func(n int) string
	// judge says what an answer with the status 200 is worth: the same if it is right, 0 if it is wrong. A stream that ends with an
	// error is as good as the status of that.
	judge func(n int, body string) (status int)
	// binary: the server cannot answer it with JSON.
	binary bool
}

// engineLoad asks the endpoints of a server all the time. Its observations are those of the traffic for beside.
type engineLoad struct {
	w       *world
	asked   []question
	cancel  context.CancelFunc
	clients sync.WaitGroup

	mu   sync.Mutex
	seen map[string]map[int]int // answers by endpoint and status
}

func newEngineLoad(w *world, asked []question) *engineLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &engineLoad{w: w, asked: asked, cancel: cancel, seen: map[string]map[int]int{}}
	for _, q := range asked {
		l.seen[q.name] = map[int]int{}
		for client := range besideClients {
			l.clients.Go(func() { l.client(ctx, q, client) })
		}
	}
	return l
}

func (l *engineLoad) client(ctx context.Context, q question, first int) {
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer c.CloseIdleConnections()
	for n := first; pause(ctx, tempo) == nil; n += besideClients {
		begun := time.Now()
		status, body, err := post(ctx, c, l.w.serving().urls["serve"]+"/serve/"+q.path, []byte(q.body(n)), "X-Request-Timeout", besideDeadline)
		if ctx.Err() != nil {
			return
		}
		told := fmt.Sprintf("%s was answered %d %.400s", q.body(n), status, body)
		wrong := false
		if err == nil && status == http.StatusOK {
			status = q.judge(n, string(body))
			wrong = status == 0
		}
		if err != nil { // also after the event that ends a stream with an error
			if status == http.StatusOK {
				status = q.judge(n, string(body))
			}
			if status != http.StatusInternalServerError {
				status, told = 0, fmt.Sprintf("%s (%v)", told, err)
			}
		}
		l.mu.Lock()
		if !wrong {
			l.seen[q.name][status]++
		}
		l.mu.Unlock()
		l.w.traffic.noteBeside(q.name+": "+told, status, wrong, time.Since(begun))
	}
}

// noteBeside records an answer of an endpoint whose model is beside the instance.
func (t *traffic) noteBeside(told string, status int, wrong bool, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.of(beside)
	s.requests++
	s.slowest = max(s.slowest, took)
	switch {
	case wrong:
		s.wrong++
		s.example = told
	case status != http.StatusOK:
		s.failed[status]++
		if status == 0 || s.example == "" { // the others are documented
			s.example = told
		}
	default:
		t.answered++
	}
}

func (l *engineLoad) end() {
	l.cancel()
	l.clients.Wait()
}

// counts are the answers of an endpoint by status.
func (l *engineLoad) counts(name string) map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.seen[name])
}

// fails is the number of answers other than right ones.
func fails(counts map[int]int) (n int) {
	for status, k := range counts {
		if status != http.StatusOK {
			n += k
		}
	}
	return n
}

// until waits until the answers of every endpoint since now are as wanted. what says that in words.
func (l *engineLoad) until(ctx context.Context, limit time.Duration, what string, wanted func(counts map[int]int) bool) error {
	return l.ofUntil(ctx, l.asked, limit, what, wanted)
}

// ofUntil is until for some of the endpoints.
func (l *engineLoad) ofUntil(ctx context.Context, asked []question, limit time.Duration, what string, wanted func(counts map[int]int) bool) error {
	before := map[string]map[int]int{}
	for _, q := range asked {
		before[q.name] = l.counts(q.name)
	}
	begun := time.Now()
	for _, q := range asked {
		for {
			since := l.counts(q.name)
			for status, n := range before[q.name] {
				since[status] -= n
			}
			if wanted(since) {
				break
			}
			if time.Since(begun) > limit {
				var told []string
				for status, n := range since {
					told = append(told, fmt.Sprintf("%d: %d", status, n))
				}
				return fmt.Errorf("endpoint %s: not %s within %v: %s", q.name, what, limit, strings.Join(told, ", "))
			}
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// refused waits until requests are answered 503 because the server is not there.
func (l *engineLoad) refused(ctx context.Context) error { return l.ofRefused(ctx, l.asked) }

// ofRefused is refused for some of the endpoints.
func (l *engineLoad) ofRefused(ctx context.Context, asked []question) error {
	return l.ofUntil(ctx, asked, back, "answered 503", func(counts map[int]int) bool { return counts[http.StatusServiceUnavailable] >= 20 })
}

// failing waits until requests fail.
func (l *engineLoad) failing(ctx context.Context) error {
	return l.until(ctx, back, "failing", func(counts map[int]int) bool { return fails(counts) > 0 })
}

// answers waits until requests are answered, as long after their server as is promised.
func (l *engineLoad) answers(ctx context.Context) error {
	begun := time.Now()
	err := l.until(ctx, back, "answered after the engine", func(counts map[int]int) bool { return counts[http.StatusOK] >= 10 })
	l.w.back = max(l.w.back, time.Since(begun))
	return err
}
