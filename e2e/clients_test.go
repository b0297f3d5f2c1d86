//go:build linux

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clients send requests to an endpoint continuously, while a test makes changes.
type clients struct {
	requests atomic.Int64
	stopping atomic.Bool
	all      sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	failures []string
	answers  map[string]int // the count of each different right answer
	last     string
}

// clients starts n clients. Each sends at least one request, and goes on without a pause until
// end. check returns what is wrong with an answer.
func (s *system) clients(n int, endpoint, body string, check func(answer string) error) *clients {
	c := &clients{answers: map[string]int{}}
	url := s.urls["serve"] + "/serve/" + endpoint
	for range n {
		c.all.Go(func() {
			for asked := false; !asked || !c.stopping.Load(); asked = true {
				status, answer := roundTrip(http.MethodPost, url, "application/json", strings.NewReader(body))
				c.requests.Add(1)
				c.note(status, answer, check)
			}
		})
	}
	return c
}

func (c *clients) note(status int, answer string, check func(string) error) {
	var problem string
	if status != http.StatusOK {
		problem = fmt.Sprintf("status %d: %s", status, answer)
	} else if err := check(answer); err != nil {
		problem = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if problem != "" {
		c.failures = append(c.failures, fmt.Sprintf("%s at %s", problem, time.Now().Format("15:04:05.000")))
		return
	}
	c.answers[answer]++
	c.last = answer
}

// further waits until the clients have sent n more requests.
func (c *clients) further(t *testing.T, s *system, n int64) {
	t.Helper()
	want := c.requests.Load() + n
	s.eventually(t, patience, fmt.Sprintf("%d more requests", n), func() error {
		if got := c.requests.Load(); got < want {
			return fmt.Errorf("%d are missing", want-got)
		}
		return nil
	})
}

// end stops the clients and fails the test for every request that went wrong.
func (c *clients) end(t *testing.T) {
	t.Helper()
	c.stopping.Store(true)
	c.all.Wait()
	if len(c.failures) > 0 {
		t.Errorf("%d of %d requests went wrong, the first: %s", len(c.failures), c.requests.Load(), c.failures[0])
	}
	if c.requests.Load() == 0 {
		t.Error("the clients sent no requests")
	}
}
