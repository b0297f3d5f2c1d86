//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer is a reverse proxy that polls /readyz of its instances and distributes requests, in
// turn, to those that answer 200. Like most balancers it learns of an instance's end
// only by /readyz, and does not repeat requests.
type balancer struct {
	*httptest.Server
	next atomic.Uint64
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex // guards ready
	ready map[string]*httputil.ReverseProxy
}

// balance starts a balancer for the serve addresses that of returns at each poll.
func balance(t *testing.T, of func() []string) *balancer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{stop: cancel, ready: map[string]*httputil.ReverseProxy{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	b.Server = httptest.NewServer(http.HandlerFunc(b.forward))
	b.all.Go(func() {
		for ctx.Err() == nil {
			b.look(t, transport, of())
			time.Sleep(tick)
		}
	})
	t.Cleanup(func() {
		cancel()
		b.all.Wait()
		b.Close()
		transport.CloseIdleConnections()
	})
	return b
}

func (b *balancer) look(t *testing.T, transport http.RoundTripper, addresses []string) {
	t.Helper()
	now := map[string]*httputil.ReverseProxy{}
	for _, address := range addresses {
		target, err := url.Parse(address)
		if err != nil {
			t.Errorf("the instance's address: %v", err)
			continue
		}
		if status, _ := roundTrip(http.MethodGet, address+"/readyz", "", nil); status == http.StatusOK {
			now[address] = &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = now
}

func (b *balancer) forward(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	var to *httputil.ReverseProxy
	skip := int(b.next.Add(1)) % max(len(b.ready), 1)
	for _, to = range b.ready {
		if skip--; skip < 0 {
			break
		}
	}
	b.mu.Unlock()
	if to == nil {
		http.Error(w, "no instance is ready", http.StatusServiceUnavailable)
		return
	}
	to.ServeHTTP(w, r)
}

// has waits until n instances accept requests.
func (b *balancer) has(t *testing.T, s *system, n int) {
	t.Helper()
	s.eventually(t, patience, fmt.Sprintf("the balancer knows %d instances", n), func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.ready) != n {
			return fmt.Errorf("%d are ready", len(b.ready))
		}
		return nil
	})
}

func TestNoRequestIsLostInARollingRestartBehindABalancer(t *testing.T) {
	t.Parallel() // mostly waits
	plane := controlPlane(t)
	id := createdID(t, plane.must(t, "create"))
	plane.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "rolled", "--preprocess", writeCode(t, plane, "rolled.py", answersWith("rolled")))
	var mu sync.Mutex // guards addresses
	addresses := map[int]string{}
	var instances [2]*system
	begin := func(i int, drain string) {
		t.Helper()
		s := instances[i]
		s.start(t, role{
			args: []string{"--id", id, "inference", "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--drain-delay", drain},
			env:  append([]string{"CLEARML_SERVING_POLL_FREQ=" + pollMinutes}, plane.sdk...),
		})
		mu.Lock()
		defer mu.Unlock()
		addresses[i] = s.urls["serve"]
	}
	for i := range instances {
		instances[i] = install(t)
		begin(i, "10") // longer than the balancer's interval
		t.Cleanup(func() { instances[i].stop(t) })
	}
	b := balance(t, func() (all []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, address := range addresses {
			all = append(all, address)
		}
		return all
	})
	b.has(t, plane, 2)

	front := &system{urls: map[string]string{"serve": b.URL}}
	c := front.clients(8, "rolled", `{"x":1}`, func(answer string) error {
		return answerError(http.StatusOK, answer, `{"code":"rolled"}`)
	})
	for i, s := range instances {
		s.stop(t)
		begin(i, "0") // no requests are left when this one ends
		b.has(t, plane, 2)
	}
	c.end(t)
}
