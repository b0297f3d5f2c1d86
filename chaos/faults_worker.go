package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lost are the statuses of a request whose worker died: it had begun (500), or no worker could take
// it (503).
var lost = []int{http.StatusInternalServerError, http.StatusServiceUnavailable}

// workerFaults end or stop processes.
func workerFaults() []fault {
	signal := func(which syscall.Signal) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			pid, err := w.workerOf(ctx, victim)
			if err != nil {
				return err
			}
			return syscall.Kill(pid, which)
		}
	}
	return []fault{
		{name: "worker-killed", about: "SIGKILL to a worker, three times", hit: victim, statuses: lost, inject: several(3, 300*time.Millisecond, signal(syscall.SIGKILL))},
		{name: "worker-terminated", about: "SIGTERM to a worker", slow: true, hit: victim, statuses: lost, inject: signal(syscall.SIGTERM)},
		{name: "worker-aborted", about: "SIGABRT to a worker, as from a failed assertion of a library", slow: true, hit: victim, statuses: lost, inject: signal(syscall.SIGABRT)},
		{name: "worker-leaves-daemons", about: "SIGKILL to a worker that has started processes in separate sessions: they end too", hit: victim, statuses: lost, inject: daemons},
		{
			name: "worker-stopped", about: "SIGSTOP to a worker for two seconds: its clients wait", slow: true, hit: victim, statuses: lost,
			inject: func(ctx context.Context, w *world) error {
				pid, err := w.workerOf(ctx, victim)
				if err != nil {
					return err
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					return err
				}
				if err := pause(ctx, 2*time.Second); err != nil {
					return err
				}
				_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been replaced
				return nil
			},
		},
		{
			name: "zygote-killed", about: "SIGKILL to the zygote, from which all workers are forked", hit: everything, statuses: append([]int{http.StatusGatewayTimeout}, lost...),
			inject: func(ctx context.Context, w *world) error {
				pid, err := w.zygote(ctx)
				if err != nil {
					return err
				}
				return syscall.Kill(pid, syscall.SIGKILL)
			},
		},
		{
			name: "zygote-stopped", about: "SIGSTOP to the zygote while a worker dies, for two seconds", slow: true, hit: victim, statuses: lost,
			inject: func(ctx context.Context, w *world) error {
				pid, err := w.zygote(ctx)
				if err != nil {
					return err
				}
				worker, err := w.workerOf(ctx, victim) // before: none can be created while the zygote is stopped
				if err != nil {
					return err
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					return err
				}
				if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
					return err
				}
				if err := pause(ctx, 2*time.Second); err != nil {
					return err
				}
				_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been replaced
				return nil
			},
		},
	}
}

// daemons makes a worker start processes that detach themselves, kills it, and waits for their end.
func daemons(ctx context.Context, w *world) error {
	status, body, err := post(ctx, http.DefaultClient, w.endpoint(victim), []byte(`{"x": 1, "do": "daemons"}`))
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("answered %d %.300s %w", status, body, err)
	}
	var started struct {
		PIDs   []int
		Worker int
	}
	if err := json.Unmarshal(body, &started); err != nil {
		return err
	}
	for _, pid := range started.PIDs {
		if syscall.Kill(pid, 0) != nil {
			return fmt.Errorf("process %d did not stay", pid)
		}
	}
	if err := syscall.Kill(started.Worker, syscall.SIGKILL); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; {
		left := slices.DeleteFunc(slices.Clone(started.PIDs), func(pid int) bool { return syscall.Kill(pid, 0) != nil })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v outlive the worker that has started them", left)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// workerOf returns the process that answers for an endpoint, and waits until there is one.
func (w *world) workerOf(ctx context.Context, endpoint string) (pid int, err error) {
	s := w.serving()
	err = s.wait(ctx, func() error {
		e, err := s.statusOf(ctx, endpoint)
		if err != nil {
			return err
		}
		if len(e.Model.Workers) == 0 {
			return fmt.Errorf("/status names no worker of %s (%s)", endpoint, e.Model.Reason)
		}
		pid = e.Model.Workers[0].PID
		return nil
	})
	return pid, err
}

// zygote is the parent of a worker.
func (w *world) zygote(ctx context.Context) (int, error) {
	pid, err := w.workerOf(ctx, "steady_1")
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0, fmt.Errorf("no parent in %q", stat)
	}
	return strconv.Atoi(fields[1])
}
