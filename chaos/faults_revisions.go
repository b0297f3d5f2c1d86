package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// refused are deployments that every instance refuses. Each has an endpoint with a good revision
// before it.
var refused = []struct{ endpoint, code, why string }{
	{"refused_golden", "", "does not reproduce the golden samples"},
	{"refused_syntax", "class Preprocess(:\n", "invalid syntax"},
	{"refused_package", "import package_that_does_not_exist\n", "No module named 'package_that_does_not_exist'"},
	{"refused_model", "", "is not a model that the sklearn engine can load"},
	{"refused_death", "import os\n\n\nclass Preprocess:\n    def __init__(self):\n        os._exit(3)\n", "worker died while it loaded"},
}

// revisionFaults are starts of instances after refused deployments: the last good revision answers
// wherever an instance runs, and the refused one is named.
func revisionFaults() []fault {
	// again ends an instance, while another answers, and starts it on the same data.
	again := func(end func(*server) error) func(context.Context, *world) error {
		return underRefused(func(ctx context.Context, w *world) error {
			old := w.serving()
			other, err := w.startAnother(ctx)
			if err != nil {
				return err
			}
			w.replaceServing(other)
			if err := errors.Join(w.traffic.settled(ctx), end(old)); err != nil {
				return err
			}
			s, err := w.startRefused(ctx, old.name)
			if err != nil {
				return errors.Join(err, other.stop())
			}
			w.replaceServing(s)
			return errors.Join(w.traffic.settled(ctx), other.stop())
		})
	}
	return []fault{
		{name: "refused-restart", about: "refused code, model, package and answers; the instance is started again", slow: true, inject: again((*server).stop)},
		{name: "refused-killed", about: "the same after SIGKILL to the instance", slow: true, inject: again(func(s *server) error {
			s.kill()
			return nil
		})},
		{
			name: "refused-second-instance", about: "refused code, model, package and answers; a second instance with an empty cache joins and leaves",
			inject: underRefused(func(ctx context.Context, w *world) error {
				s, err := w.startAnother(ctx)
				if err != nil {
					return err
				}
				old := w.serving()
				w.replaceServing(s) // it is asked like the first
				err = errors.Join(pause(ctx, time.Second), w.namesRefused(ctx, old))
				w.replaceServing(old)
				return errors.Join(err, w.traffic.settled(ctx), s.stop())
			}),
		},
		{
			name: "refused-new-machine", about: "every instance is gone with its data; a new one has the control plane only", slow: true, hit: everything, statuses: []int{0},
			inject: underRefused(func(ctx context.Context, w *world) error {
				old := w.serving()
				if err := old.stop(); err != nil {
					return err
				}
				if err := os.RemoveAll(filepath.Join(w.dir, old.name)); err != nil {
					return err
				}
				s, err := w.startAnother(ctx)
				if err != nil {
					return err
				}
				w.replaceServing(s)
				return w.traffic.settled(ctx)
			}),
		},
	}
}

// underRefused injects a fault while clients ask the endpoints whose newest revision is refused.
func underRefused(inject func(context.Context, *world) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		if err := w.deployRefused(ctx); err != nil {
			return err
		}
		end := w.traffic.also(ctx, refused[0].endpoint, refused[1].endpoint, refused[2].endpoint, refused[3].endpoint, refused[4].endpoint)
		defer end()
		if err := errors.Join(inject(ctx, w), pause(ctx, 500*time.Millisecond)); err != nil {
			return err
		}
		return w.namesRefused(ctx, w.serving())
	}
}

// deployRefused deploys a good and then a refused revision of each endpoint. Later faults find them.
func (w *world) deployRefused(ctx context.Context) error {
	if w.refused {
		return nil
	}
	code, err := filepath.Abs("chaos/code/steady.py")
	if err != nil {
		return err
	}
	steady, err := os.ReadFile(code)
	if err != nil {
		return err
	}
	golden := refused[0].endpoint
	files := map[string]string{
		"samples.jsonl":    fmt.Sprintf(`{"body": {"x": 3}, "answer": {"y": %d, "from": %q}}`+"\n", 7*3+len(golden), golden),
		golden + ".py":     strings.ReplaceAll(string(steady), "len(name)", "len(name) + 1"),
		"no_model.pkl":     "no pickle",
		"refused_model.py": string(steady),
	}
	for _, r := range refused {
		if r.code != "" {
			files[r.endpoint+".py"] = r.code
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	add := func(endpoint, file, model string) error {
		words := []string{"model", "add", "--endpoint", endpoint, "--engine", "custom", "--preprocess", file}
		if endpoint == "refused_model" {
			words = append(words, "--engine", "sklearn", "--name", model, "--project", "chaos")
		}
		return w.cli(ctx, words...)
	}
	for _, r := range refused {
		if err := add(r.endpoint, code, "steady model"); err != nil {
			return err
		}
	}
	for _, r := range refused {
		if err := w.waitReady(ctx, r.endpoint); err != nil {
			return err
		}
	}
	if err := errors.Join(
		w.cli(ctx, "model", "golden", "--endpoint", golden, "--samples", filepath.Join(w.dir, "samples.jsonl")),
		w.cli(ctx, "model", "upload", "--name", "no model", "--project", "chaos", "--path", filepath.Join(w.dir, "no_model.pkl")),
	); err != nil {
		return err
	}
	for _, r := range refused {
		if err := add(r.endpoint, filepath.Join(w.dir, r.endpoint+".py"), "no model"); err != nil {
			return err
		}
	}
	w.refused = true
	return w.namesRefused(ctx, w.serving())
}

// namesRefused waits until an instance, the list and the histories name every refused revision.
func (w *world) namesRefused(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.wait(ctx, func() error {
		for _, r := range refused {
			e, err := s.statusOf(ctx, r.endpoint)
			if err != nil {
				return err
			}
			if e.State != "refused" || !strings.Contains(e.Refused.Reason, r.why) || e.Revision >= e.Refused.Revision {
				return fmt.Errorf("/status does not name the refused revision of %s: %+v", r.endpoint, e)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	type revision struct{ State, Reason string }
	return s.wait(ctx, func() error {
		list, err := w.output(ctx, w.env, "--id", w.service, "model", "list", "--verbose")
		if err != nil {
			return err
		}
		for _, r := range refused {
			named := false
			for line := range bytes.Lines(list) {
				named = named || (bytes.HasPrefix(line, []byte("/"+r.endpoint+" ")) && bytes.Contains(line, []byte(" refused: ")) && bytes.Contains(line, []byte(r.why)))
			}
			if !named {
				return fmt.Errorf("model list does not name the refused revision of %s:\n%s", r.endpoint, list)
			}
			text, err := w.output(ctx, w.env, "--id", w.service, "--json", "model", "history", r.endpoint)
			if err != nil {
				return err
			}
			var history struct {
				Revisions []revision
			}
			if err := json.Unmarshal(text, &history); err != nil {
				return fmt.Errorf("read model history: %w", err)
			}
			all := history.Revisions // the newest first
			// One that was never seen, as it was followed at once, stays pending.
			good := slices.ContainsFunc(all, func(r revision) bool { return r.State == "good" })
			if !good || all[0].State != "refused" || !strings.Contains(all[0].Reason, r.why) {
				return fmt.Errorf("model history does not name the refused revision of %s: %s", r.endpoint, text)
			}
		}
		return nil
	})
}

// startAnother starts an instance on a data folder of its own.
func (w *world) startAnother(ctx context.Context) (*server, error) {
	name := fmt.Sprint("inference-", time.Now().UnixNano())
	if err := os.Mkdir(filepath.Join(w.dir, name), 0o755); err != nil {
		return nil, err
	}
	return w.startRefused(ctx, name)
}

// startRefused starts an instance, which must not load a refused revision again.
func (w *world) startRefused(ctx context.Context, name string) (*server, error) {
	log := filepath.Join(w.dir, name+".log")
	before, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s, err := w.startInference(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := w.namesRefused(ctx, s); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	text, err := os.ReadFile(log)
	if err == nil && bytes.Contains(text[len(before):], []byte("endpoint cannot be loaded")) {
		err = fmt.Errorf("a start loaded a refused revision again:\n%s", text[len(before):])
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// also asks more endpoints until end is called.
func (t *traffic) also(ctx context.Context, names ...string) (end func()) {
	const first = 1000 // the number of the first of these clients
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for i, name := range names {
		clients.Go(func() { t.client(ctx, first+i, name) })
	}
	return func() {
		cancel()
		clients.Wait()
		t.mu.Lock()
		defer t.mu.Unlock()
		for i := range names {
			delete(t.flying, first+i)
		}
	}
}
