package batch

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/workertest"
)

const surrounds = `
class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        state["asked"] = body["x"]
        return body["x"] + 1

    def process_batch(self, data, state, collect_custom_statistics_fn=None):
        return [x * 1000 for x in data]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"asked": state["asked"], "got": data}
`

// running starts workers for the code; with batch they also batch requests.
func running(t *testing.T, batch serving.Batching) *worker.Group {
	t.Helper()
	found, env := workertest.Environment(t)
	path := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(path, []byte(surrounds), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := worker.New(worker.Options{Environment: found, RuntimeDir: t.TempDir(), ZygoteEnv: env, Preload: []string{}})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := pool.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		run.Wait()
	})
	g, err := pool.Start(ctx, worker.Spec{Endpoint: "middle", Engine: "custom", CodePath: path, CodeName: "py_code_middle", Env: env, Batch: batch})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// ask executes preprocess and postprocess in a worker, and the computation between them with b.
func ask(ctx context.Context, g *worker.Group, b *Batcher, x int) (string, error) {
	p, refused, err := g.Pre(ctx, &worker.Request{Body: fmt.Appendf(nil, `{"x":%d}`, x), ContentType: "application/json"})
	if err != nil || refused != nil {
		return "", fmt.Errorf("pre: %v, %w", refused, err)
	}
	defer p.Drop()
	var n int64
	if err := json.Unmarshal(p.Data.Body, &n); err != nil {
		return "", err
	}
	out, err := b.Do(ctx, numbers(n))
	if err != nil {
		return "", err
	}
	n = int64(binary.LittleEndian.Uint64(out[0].Data))
	r, err := p.Post(ctx, worker.Value{ContentType: "application/json", Body: fmt.Append(nil, n)})
	if err != nil {
		return "", err
	}
	return string(r.Body), nil
}

func TestPreprocessAndPostprocessOfWorkersSurroundABatchedMiddle(t *testing.T) {
	for name, own := range map[string]serving.Batching{"workers execute one by one": {}, "workers batch other requests": {MaxRows: 8}} {
		t.Run(name, func(t *testing.T) {
			g := running(t, own)
			d := &doubler{gate: make(chan struct{})}
			open := d.gate
			b := New(Options{Batching: serving.Batching{MaxRows: 16}, Compute: d.compute})
			defer b.Close()
			const clients = 9
			var all sync.WaitGroup
			for i := range clients {
				all.Go(func() {
					got, err := ask(t.Context(), g, b, 100*i)
					if want := fmt.Sprintf(`{"asked":%d,"got":%d}`, 100*i, 2*(100*i+1)); got != want || err != nil {
						t.Errorf("%s, %v; want %s", got, err, want)
					}
				})
			}
			first := func() int { // requests in the first batch
				d.mu.Lock()
				defer d.mu.Unlock()
				return len(slices.Concat(d.batches...))
			}
			waiting := func() int {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.queue)
			}
			for end := time.Now().Add(2 * time.Minute); first()+waiting() < clients && time.Now().Before(end); time.Sleep(time.Millisecond) {
				r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"x":4}`), ContentType: "application/json"}) // the worker is free meanwhile
				if err != nil || string(r.Body) != `{"asked":4,"got":5000}` {
					t.Fatalf("%+v, %v", r, err)
				}
			}
			close(open)
			all.Wait()
			if s := b.Report(); s.Batches != 2 || s.LastRequests != clients-len(d.batches[0]) {
				t.Errorf("batches %v, %+v", d.batches, s)
			}
		})
	}
}
