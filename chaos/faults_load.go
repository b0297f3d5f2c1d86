package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	loadWorkers  = 3
	loadRequests = 1000 // per program
	loadClients  = 12
	loadTogether = 8 // programs that are deployed at a time
)

// loadFaults are states that the load of user code may leave in its process.
func loadFaults() []fault {
	return []fault{
		{name: "load-state", about: "state that load() may leave, such as open files, processes and generators, with three workers each: 1,000 different requests at once", slow: true, inject: loadStates},
	}
}

// loadStates deploys the programs of worker/testdata/load, some at a time, and sends requests to
// each. Their answers are known: 7n+3. State that belongs to one worker must not be in another.
func loadStates(ctx context.Context, w *world) error {
	codes, err := filepath.Glob("worker/testdata/load/*.py")
	if err != nil {
		return err
	}
	if len(codes) == 0 {
		return errors.New("there are no programs in worker/testdata/load")
	}
	var lines bytes.Buffer
	for n := range loadRequests {
		fmt.Fprintf(&lines, "%07d\n", 7*n+3)
	}
	file := filepath.Join(w.dir, "lines")
	if err := os.WriteFile(file, lines.Bytes(), 0o600); err != nil {
		return err
	}
	if err := w.cli(ctx, "model", "upload", "--name", "lines", "--project", "chaos", "--path", file); err != nil {
		return err
	}
	for some := range slices.Chunk(codes, loadTogether) {
		if err := w.loadSome(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) loadSome(ctx context.Context, codes []string) (err error) {
	name := func(code string) string { return "load_" + strings.TrimSuffix(filepath.Base(code), ".py") }
	for _, code := range codes {
		path, err := filepath.Abs(code)
		if err != nil {
			return err
		}
		for _, c := range [][]string{
			{"model", "add", "--endpoint", name(code), "--engine", "custom", "--preprocess", path, "--name", "lines", "--project", "chaos"},
			{"model", "limits", "--endpoint", name(code), "--min-workers", fmt.Sprint(loadWorkers), "--max-workers", fmt.Sprint(loadWorkers)},
		} {
			if err := w.cli(ctx, c...); err != nil {
				return err
			}
		}
	}
	defer func() {
		for _, code := range codes {
			err = errors.Join(err, w.cli(ctx, "model", "remove", "--endpoint", name(code)))
		}
	}()
	for _, code := range codes {
		source, err := os.ReadFile(code)
		if err != nil {
			return err
		}
		if err := w.askLoaded(ctx, name(code), bytes.HasPrefix(source, []byte("# shared\n"))); err != nil {
			return fmt.Errorf("%s: %w", code, err)
		}
	}
	return nil
}

// askLoaded waits until all workers of an endpoint are running and sends all requests at once.
func (w *world) askLoaded(ctx context.Context, endpoint string, shared bool) error {
	for end := time.Now().Add(patience); ; {
		status, err := w.serving().statusOf(ctx, endpoint)
		if err == nil && len(status.Model.Workers) == loadWorkers {
			if status.Model.Shared != shared {
				return fmt.Errorf("shared: %t (%s), want %t", status.Model.Shared, status.Model.SharedReason, shared)
			}
			break
		}
		if time.Now().After(end) {
			return errors.Join(err, fmt.Errorf("not %d workers within %v: %+v", loadWorkers, patience, status.Model))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	var (
		mu      sync.Mutex
		wrong   []error
		own     = make(map[string]bool)
		clients sync.WaitGroup
		parts   = make(chan int)
	)
	for range loadClients {
		clients.Go(func() {
			for n := range parts {
				status, body, err := post(ctx, http.DefaultClient, w.endpoint(endpoint), fmt.Appendf(nil, `{"n": %d}`, n))
				var got struct {
					Y   *int
					Own json.RawMessage
				}
				mu.Lock()
				if err != nil || status != http.StatusOK || json.Unmarshal(body, &got) != nil || got.Y == nil || *got.Y != 7*n+3 {
					wrong = append(wrong, errors.Join(err, fmt.Errorf("n=%d: %d %.300s, want %d", n, status, body, 7*n+3)))
				}
				if got.Own != nil {
					own[string(got.Own)] = true
				}
				mu.Unlock()
			}
		})
	}
	for n := range loadRequests {
		parts <- n
	}
	close(parts)
	clients.Wait()
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d answers are wrong, one of them: %w", len(wrong), loadRequests, wrong[0])
	}
	if len(own) != 0 && len(own) != loadWorkers {
		return fmt.Errorf("%d workers have %d states of their own", loadWorkers, len(own))
	}
	return nil
}
