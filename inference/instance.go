package inference

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// Recording keeps an instance's record on a ClearML server, as the original
// does: a task "<service> - serve instance" with the instance's console and a
// mirror of the configuration that it serves. The service's own task is kept
// alive by pings. A server that is away costs the record, never the serving.
type Recording struct {
	Client *clearml.Client
	// TaskID continues that task; "" makes one.
	TaskID string
	// Console takes the log lines for the task's console, nil for none.
	Console *Console
	Logger  *slog.Logger

	mu      sync.Mutex // guards pending
	pending *applied
	wake    chan struct{}
	once    sync.Once
}

const (
	pingEvery    = 30 * time.Second // as the SDK pings its tasks
	consoleEvery = 5 * time.Second
	lastWords    = 3 * time.Second // for marking the task as ended
)

func (r *Recording) signal() chan struct{} {
	r.once.Do(func() { r.wake = make(chan struct{}, 1) })
	return r.wake
}

// applied is a configuration that the instance has taken in.
type applied struct {
	state *reconcile.State
	plan  serving.Plan
}

// Applied notes the newest configuration; Run mirrors it.
func (r *Recording) Applied(state *reconcile.State, plan serving.Plan) {
	r.mu.Lock()
	r.pending = &applied{state, plan}
	r.mu.Unlock()
	select {
	case r.signal() <- struct{}{}:
	default:
	}
}

func (r *Recording) take() *applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.pending
	r.pending = nil
	return newest
}

// Run keeps the record until ctx ends, then marks the task as stopped.
func (r *Recording) Run(ctx context.Context) error {
	ping, console := time.NewTicker(pingEvery), time.NewTicker(consoleEvery)
	defer ping.Stop()
	defer console.Stop()
	var record instanceRecord
	for {
		var err error
		select {
		case <-ctx.Done():
			return r.end(context.WithoutCancel(ctx), record)
		case <-r.signal():
			err = r.mirror(ctx, &record)
		case <-ping.C:
			err = r.ping(ctx, record)
		case <-console.C:
			err = r.flush(ctx, record)
		}
		if err != nil && ctx.Err() == nil {
			level := slog.LevelWarn
			if record.troubled || errors.Is(err, clearml.ErrUnavailable) {
				level = slog.LevelDebug // the reconciler tells when the server is away
			}
			r.Logger.Log(ctx, level, "the instance's record cannot be kept on the control plane", "err", err)
		}
		record.troubled = err != nil
	}
}

// instanceRecord is what Run knows of the tasks.
type instanceRecord struct {
	serviceID string
	taskID    string
	hash      string // of the mirrored configuration
	troubled  bool
}

// mirror opens the instance's task when that has not been done yet, and copies
// the configuration in force onto it.
func (r *Recording) mirror(ctx context.Context, record *instanceRecord) error {
	newest := r.take()
	if newest == nil {
		return nil
	}
	service, err := r.Client.LoadService(ctx, newest.state.ServiceID)
	if err != nil {
		return fmt.Errorf("read the service's task: %w", err)
	}
	if record.serviceID == "" {
		record.serviceID = service.ID
		if service.Status != clearml.StatusInProgress {
			if err := r.Client.StartService(ctx, service.ID); err != nil {
				return fmt.Errorf("mark the service as in progress: %w", err)
			}
		}
	}
	if record.taskID == "" {
		if record.taskID, err = r.open(ctx, service); err != nil {
			return err
		}
		r.Logger.Info("instance recorded", "task", record.taskID, "service", service.Name)
	}
	if hash := newest.state.Hash(); hash != record.hash {
		if err := r.Client.MirrorService(ctx, service, record.taskID); err != nil {
			return fmt.Errorf("mirror the configuration: %w", err)
		}
		events, err := layoutEvents(record.taskID, newest.plan)
		if err == nil && len(events) > 0 {
			err = r.Client.AddEvents(ctx, events)
		}
		if err != nil {
			return fmt.Errorf("draw the layout of the endpoints: %w", err)
		}
		record.hash = hash
	}
	return nil
}

func (r *Recording) open(ctx context.Context, service *clearml.Service) (string, error) {
	if r.TaskID != "" {
		return r.TaskID, r.Client.ContinueInstance(ctx, r.TaskID)
	}
	return r.Client.OpenInstance(ctx, service, "serve instance", "inference")
}

// ping keeps the watchdogs of a ClearML server from taking the tasks for dead.
func (r *Recording) ping(ctx context.Context, record instanceRecord) error {
	var all error
	for _, id := range []string{record.serviceID, record.taskID} {
		if id != "" {
			all = errors.Join(all, r.Client.PingTask(ctx, id))
		}
	}
	return all
}

// flush sends the log lines since the last time to the task's console.
func (r *Recording) flush(ctx context.Context, record instanceRecord) error {
	if r.Console == nil || record.taskID == "" {
		return nil
	}
	lines := r.Console.take()
	if len(lines) == 0 {
		return nil
	}
	return r.Client.LogLines(ctx, record.taskID, "info", []string{strings.Join(lines, "\n")})
}

// end says the last words, in bounded time: the server may be gone.
func (r *Recording) end(ctx context.Context, record instanceRecord) error {
	if record.taskID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	return errors.Join(r.flush(ctx, record), r.Client.StopTask(ctx, record.taskID, "the instance has ended"))
}
