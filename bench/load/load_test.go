package load_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clearmlserving/bench/load"
	"clearmlserving/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// serve starts a server with a handler and returns its URL.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// run sends requests to a handler until it has received so many that most
// answers have been counted.
func run(t *testing.T, handler http.HandlerFunc, o load.Options) *load.Result {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var asked atomic.Int64
	o.URL = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 100 {
			end()
		}
		handler(w, r)
	})
	o.Duration = time.Hour
	result, err := load.Run(ctx, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestEveryFormOfAnswerIsReadWhole(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"with a length": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"y":[1]}`) },
		"in chunks": func(w http.ResponseWriter, _ *http.Request) {
			for _, piece := range []string{`{"y"`, `:[1`, `]}`} {
				fmt.Fprint(w, piece)
				w.(http.Flusher).Flush()
			}
		},
		"and closed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, `{"y":[1]}`)
		},
	}
	for name, handler := range answers {
		t.Run(name, func(t *testing.T) {
			result := run(t, handler, load.Options{Body: []byte(`{}`), Connections: 3, Expect: []byte(`{"y":[1]}`)})
			if result.Requests == 0 || result.Failed != 0 {
				t.Errorf("%d right, %d failed (%v), want right ones only", result.Requests, result.Failed, result.FirstFailure)
			}
			if got := result.Latency.Count(); got != uint64(result.Requests) {
				t.Errorf("%d latencies for %d requests", got, result.Requests)
			}
		})
	}
}

func TestTheBodyArrivesAsSent(t *testing.T) {
	var wrong atomic.Int64
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"x0": 1}` || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			wrong.Add(1)
		}
	}
	if result := run(t, handler, load.Options{Body: []byte(`{"x0": 1}`)}); result.Requests == 0 || wrong.Load() != 0 {
		t.Errorf("%d requests, %d of them wrong (%v)", result.Requests, wrong.Load(), result.FirstFailure)
	}
}

func TestAWrongAnswerIsAFailureAndTold(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"other status": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "overloaded", http.StatusTooManyRequests) },
		"other body":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "overloaded") },
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		},
	}
	for name, handler := range answers {
		t.Run(name, func(t *testing.T) {
			result := run(t, handler, load.Options{Expect: []byte("right")})
			if result.Requests != 0 || result.Failed == 0 || result.FirstFailure == nil {
				t.Errorf("%d right, %d failed (%v), want failures only", result.Requests, result.Failed, result.FirstFailure)
			}
			if name != "broken off" && !strings.Contains(result.FirstFailure.Error(), "overloaded") {
				t.Errorf("first failure %q does not show the answer", result.FirstFailure)
			}
		})
	}
}

func TestTheEndOfTheRunCutsAWaitingRequest(t *testing.T) {
	release := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	result, err := load.Run(t.Context(), load.Options{URL: url, Connections: 2, Duration: 100 * time.Millisecond}, nil) // ends without an answer
	if err != nil {
		t.Fatal(err)
	}
	if result.Requests != 0 || result.Failed != 0 {
		t.Errorf("%d right, %d failed, want neither: the end of the run is not a failure", result.Requests, result.Failed)
	}
}

func TestAURLThatCannotBeAskedIsAnError(t *testing.T) {
	for _, url := range []string{"", "https://127.0.0.1/x", "127.0.0.1:80", "http://", "http://%zz"} {
		if _, err := load.Run(context.Background(), load.Options{URL: url}, nil); err == nil {
			t.Errorf("%q was accepted", url)
		}
	}
}

func TestWhatTheWarmUpSeesIsNotCounted(t *testing.T) {
	warmup := 300 * time.Millisecond
	for ; !warmUpIsNotCounted(t, warmup); warmup *= 2 { // too short for a stalled machine
		if warmup > time.Minute {
			t.Fatal("no requests in the warm-up")
		}
	}
}

// warmUpIsNotCounted reports whether there were requests in a warm-up of that length.
func warmUpIsNotCounted(t *testing.T, warmup time.Duration) bool {
	t.Helper()
	var early, late atomic.Int64
	begun := time.Now()
	url := serve(t, func(http.ResponseWriter, *http.Request) {
		// The counted time begins later than this, so counted requests arrive late on machines of
		// any speed.
		if time.Since(begun) < warmup {
			early.Add(1)
		} else {
			late.Add(1)
		}
	})
	result, err := load.Run(t.Context(), load.Options{URL: url, Warmup: warmup, Duration: warmup}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if int64(result.Requests) > late.Load() {
		t.Errorf("counted %d, but only %d arrived after the warm-up", result.Requests, late.Load())
	}
	return early.Load() > 0
}

func TestEachProcessGetsAsManyConnections(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }
	opened := map[int]int{}
	var n int
	owner := func(netip.AddrPort) (int, error) { // three of four land on the first process
		n++
		process := 1
		if n%4 == 0 {
			process = 2
		}
		opened[process]++
		return process, nil
	}
	result := run(t, handler, load.Options{Connections: 8, Owner: owner, Owners: 2})
	if result.Uneven || result.Requests == 0 || result.Failed != 0 {
		t.Errorf("%+v", result)
	}
	if opened[2] != 4 {
		t.Errorf("%v connections were opened; it ends when the second process has its 4", opened)
	}
}

func TestChunksWithATokenAreTimed(t *testing.T) {
	const pause = 5 * time.Millisecond
	result := run(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, piece := range []string{"role", "token 0", "token 1", "token 2", "end"} {
			fmt.Fprint(w, piece)
			w.(http.Flusher).Flush()
			time.Sleep(pause)
		}
	}, load.Options{Token: []byte("token")})
	if n := uint64(result.Requests); n == 0 || result.First.Count() != n || result.Between.Count() != 2*n || result.Tokens < 3*result.Requests {
		t.Errorf("%d answers, %d first tokens, %d after others, %d in all", n, result.First.Count(), result.Between.Count(), result.Tokens)
	}
	if result.First.Percentile(1) < pause || result.Latency.Percentile(1) < 4*pause {
		t.Errorf("the first token after %v, the whole answer after %v", result.First.Percentile(1), result.Latency.Percentile(1))
	}
}

func TestOneProcessThatTakesAllIsTold(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }
	result := run(t, handler, load.Options{Connections: 2, Owner: func(netip.AddrPort) (int, error) { return 1, nil }, Owners: 2})
	if !result.Uneven || result.Requests == 0 {
		t.Errorf("%+v", result)
	}
}

func TestAnOpenLoopCountsTheTimeSinceTheArrival(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(20 * time.Millisecond) // 50 a second at most
		fmt.Fprint(w, `{}`)
	})
	result, err := load.Run(t.Context(), load.Options{URL: url, Body: []byte(`{}`), Rate: 1000, Connections: 1, Duration: 400 * time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if result.Requests == 0 || result.Failed != 0 || result.Late == 0 {
		t.Errorf("%d right, %d failed (%v), %d late", result.Requests, result.Failed, result.FirstFailure, result.Late)
	}
	if got := result.Latency.Percentile(50); got < 100*time.Millisecond {
		t.Errorf("half of the requests waited %v at most, but nearly all waited for others", got)
	}
	if got, want := result.Latency.Count(), uint64(result.Requests+result.Late); got != want {
		t.Errorf("%d latencies for %d requests", got, want)
	}
}
