package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// beside is the endpoint whose model is on a server beside the instance.
const beside = "beside"

// back is the time in which an endpoint answers again after its engine.
const back = 5 * time.Second

// engineFaults are faults of a server that computes the model of an endpoint: it has the documented statuses, and no
// other endpoint notices.
func engineFaults() []fault {
	during := func(m mood, statuses ...int) func(context.Context, *world) error {
		return withEngine(func(ctx context.Context, w *world, p *proxy, load *engineLoad) error {
			p.be(m)
			if err := load.see(ctx, statuses); err != nil {
				return err
			}
			p.be(honest)
			return load.answers(ctx)
		})
	}
	return []fault{
		{name: "engine-killed", about: "the server of an endpoint's model refuses connections, and those that are open end: 503, and 500 for what it worked on", inject: during(refuse, 500, 503)},
		{name: "engine-stopped", about: "the server accepts connections and answers nothing, as after SIGSTOP: 503 within 3 s, and 504 for what it worked on", slow: true, inject: during(silent, 500, 503, 504)},
		{name: "engine-garbage", about: "the server answers something that is not HTTP", inject: during(garbage, 500, 503)},
		{name: "engine-lies", about: "the server answers JSON that is broken", slow: true, inject: during(lies, 500, 503)},
		{
			name: "engine-restarted", about: "the server is replaced five times under load", slow: true,
			inject: withEngine(func(ctx context.Context, _ *world, p *proxy, load *engineLoad) error {
				for range 5 {
					p.be(refuse)
					if err := pause(ctx, 200*time.Millisecond); err != nil {
						return err
					}
					p.be(honest)
					if err := load.answers(ctx); err != nil {
						return err
					}
				}
				return nil
			}),
		},
	}
}

// withEngine runs a server of the V2 protocol behind a proxy, deploys an endpoint whose model it has, and asks that
// during the fault. The endpoint is removed afterwards.
func withEngine(inject func(context.Context, *world, *proxy, *engineLoad) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) (err error) {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
		if err != nil {
			return err
		}
		server := &http.Server{Handler: http.HandlerFunc(serveDouble), ReadHeaderTimeout: time.Minute}
		var serves sync.WaitGroup
		serves.Go(func() { _ = server.Serve(l) })
		defer func() {
			err = errors.Join(err, server.Close())
			serves.Wait()
		}()
		p, err := newProxy("http://" + l.Addr().String())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		add := []string{"model", "add", "--engine", "v2", "--endpoint", beside, "--aux-config", "address=" + p.listener.Addr().String(), "protocol=rest", "model=double"}
		if err := w.cli(ctx, add...); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.cli(ctx, "model", "remove", "--endpoint", beside)) }()
		if err := w.waitReady(ctx, beside); err != nil {
			return err
		}
		load := newEngineLoad(w)
		defer load.end()
		if err := load.answers(ctx); err != nil {
			return err
		}
		if err := inject(ctx, w, p, load); err != nil {
			return err
		}
		load.end()
		return load.fault()
	}
}

// serveDouble is a server of the V2 protocol with the model double.
func serveDouble(rw http.ResponseWriter, r *http.Request) {
	put := func(v any) { _ = json.NewEncoder(rw).Encode(v) }
	tensor := func(name string, data []float64) map[string]any {
		t := map[string]any{"name": name, "datatype": "FP64", "shape": []int{-1}}
		if data != nil {
			t["shape"], t["data"] = []int{len(data)}, data
		}
		return t
	}
	switch r.URL.Path {
	case "/v2":
		put(map[string]any{"name": "double", "extensions": []string{}})
	case "/v2/models/double":
		put(map[string]any{"name": "double", "inputs": []any{tensor("x", nil)}, "outputs": []any{tensor("y", nil)}})
	case "/v2/models/double/infer":
		var asked struct {
			Inputs []struct{ Data []float64 }
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil || json.Unmarshal(body, &asked) != nil || len(asked.Inputs) != 1 {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		for i := range asked.Inputs[0].Data {
			asked.Inputs[0].Data[i] *= 2
		}
		put(map[string]any{"model_name": "double", "outputs": []any{tensor("y", asked.Inputs[0].Data)}})
	} // the rest are questions whether it is ready
}

// engineLoad asks the endpoint all the time.
type engineLoad struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup

	mu    sync.Mutex
	seen  map[int]int // answers by status
	wrong string
}

func newEngineLoad(w *world) *engineLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &engineLoad{cancel: cancel, seen: map[int]int{}}
	for client := range 4 {
		l.clients.Go(func() {
			for n := client; ctx.Err() == nil; n += 4 {
				status, body, err := post(ctx, http.DefaultClient, w.endpoint(beside), fmt.Appendf(nil, "[%d]", n), "X-Request-Timeout", "2")
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				if err != nil {
					status = 0
				}
				l.seen[status]++
				if status == http.StatusOK && string(body) != fmt.Sprintf("[%d.0]", 2*n) {
					l.wrong = fmt.Sprintf("[%d] was answered %s", n, body)
				}
				l.mu.Unlock()
				_ = pause(ctx, tempo) // the end is looked at above
			}
		})
	}
	return l
}

func (l *engineLoad) end() {
	l.cancel()
	l.clients.Wait()
}

func (l *engineLoad) count(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[status]
}

// see waits until requests are refused because the server is not there, which is the end of each fault of it.
func (l *engineLoad) see(ctx context.Context, statuses []int) error {
	before := l.count(http.StatusServiceUnavailable)
	for end := time.Now().Add(patience); l.count(http.StatusServiceUnavailable) < before+20; {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("endpoint %s does not answer 503: %v", beside, l.counts())
		}
	}
	for status := range l.counts() {
		if status != http.StatusOK && !slices.Contains(statuses, status) {
			return fmt.Errorf("endpoint %s answers %d: %v", beside, status, l.counts())
		}
	}
	return nil
}

func (l *engineLoad) counts() map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.seen)
}

// answers waits until requests are answered, as long after their server as is promised.
func (l *engineLoad) answers(ctx context.Context) error {
	begun, before := time.Now(), l.count(http.StatusOK)
	for l.count(http.StatusOK) < before+10 {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		if time.Since(begun) > back {
			return fmt.Errorf("endpoint %s does not answer %v after its engine: %v", beside, back, l.counts())
		}
	}
	return nil
}

// fault is what the clients have seen that they must not.
func (l *engineLoad) fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wrong != "" {
		return fmt.Errorf("endpoint %s: %s", beside, l.wrong)
	}
	return nil
}
