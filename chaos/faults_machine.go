package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// machineFaults are faults of the machine, and ends of the service itself.
func machineFaults() []fault {
	return []fault{
		{
			name: "rolling-restart", about: "an instance is replaced by another behind a load balancer",
			inject: func(ctx context.Context, w *world) error {
				old := w.serving()
				next := "inference-" + fmt.Sprint(time.Now().UnixNano())
				if err := os.Mkdir(filepath.Join(w.dir, next), 0o755); err != nil {
					return err
				}
				s, err := w.startInference(ctx, next)
				if err != nil {
					return err
				}
				under := make(chan error, 1) // the running requests of the old instance when it is stopped
				go func() { under <- w.burn(ctx, old) }()
				w.replaceServing(s) // like a load balancer that has seen the announcement of the first one's end
				if err := errors.Join(w.traffic.settled(ctx), old.isAsked(ctx, victim, under)); err != nil {
					return err
				}
				return errors.Join(old.stop(), <-under)
			},
		},
		{
			name: "service-killed", about: "SIGKILL to the inference service: no process may outlive it; then a restart", hit: everything, statuses: []int{0, http.StatusServiceUnavailable},
			inject: func(ctx context.Context, w *world) error {
				old := w.serving()
				workers, err := w.workerOf(ctx, victim)
				if err != nil {
					return err
				}
				old.kill()
				for end := time.Now().Add(patience); ; {
					if syscall.Kill(workers, 0) != nil {
						break
					}
					if time.Now().After(end) {
						return fmt.Errorf("worker %d outlives the service", workers)
					}
					if err := pause(ctx, 20*time.Millisecond); err != nil {
						return err
					}
				}
				s, err := w.startInference(ctx, "inference") // another process may have taken its port
				if err != nil {
					return err
				}
				w.replaceServing(s)
				return nil
			},
		},
		{
			name: "disk-full", about: "the data folder's disk is full, then has space again", slow: true,
			inject: func(ctx context.Context, w *world) error {
				small := filepath.Join(w.dir, "small")
				if err := os.Mkdir(small, 0o755); err != nil {
					return err
				}
				if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=40m"); err != nil {
					say("disk-full: skipped: cannot mount a file system (%v)", err)
					return os.Remove(small)
				}
				s, err := w.startInference(ctx, "small")
				if err == nil {
					err = fillAndAsk(ctx, w, s, small)
				}
				if s != nil {
					err = errors.Join(err, s.stop())
				}
				return errors.Join(err, syscall.Unmount(small, syscall.MNT_DETACH), os.Remove(small))
			},
		},
		{
			name: "memory-of-machine", about: "the kernel kills a worker for memory (a worker has the highest oom_score_adj)", slow: true, hit: victim, statuses: lost,
			inject: func(ctx context.Context, w *world) error {
				return w.ask(ctx, victim, `{"x": 1, "do": "hog"}`, http.StatusOK, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusUnprocessableEntity)
			},
		},
	}
}

// burn sends a request of two seconds to an instance's victim.
func (w *world) burn(ctx context.Context, s *server) error {
	status, body, err := post(ctx, http.DefaultClient, s.endpoint(victim), []byte(`{"x": 3, "do": "burn"}`))
	if err == nil && !right(victim, 3, body) {
		err = fmt.Errorf("answered %d %.200s", status, body)
	}
	if err != nil {
		return fmt.Errorf("a request in progress: %w", err)
	}
	return nil
}

// isAsked waits until an endpoint of an instance executes a request, or has answered it.
func (s *server) isAsked(ctx context.Context, endpoint string, answered <-chan error) error {
	return s.wait(ctx, func() error {
		e, err := s.statusOf(ctx, endpoint)
		if err == nil && e.InUse == 0 && len(answered) == 0 {
			err = fmt.Errorf("%s gets no request", endpoint)
		}
		return err
	})
}

func fillAndAsk(ctx context.Context, w *world, s *server, dir string) error {
	if err := w.askAt(ctx, s, victim); err != nil {
		return err
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		return err
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, fill.Close())
	}
	if err := fill.Close(); err != nil {
		return err
	}
	for range 20 {
		if err := w.askAt(ctx, s, victim); err != nil {
			return fmt.Errorf("with a full disk: %w", err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return os.Remove(fill.Name())
}

// askAt sends a request to an instance that the clients do not use.
func (w *world) askAt(ctx context.Context, s *server, endpoint string) error {
	status, body, err := post(ctx, http.DefaultClient, s.urls["serve"]+"/serve/"+endpoint, []byte(`{"x": 3}`))
	if err != nil || !right(endpoint, 3, body) {
		return fmt.Errorf("%s answered %d %.200s %w", endpoint, status, body, err)
	}
	return nil
}
