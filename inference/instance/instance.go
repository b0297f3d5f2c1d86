// Package instance maintains the record of an inference instance on the control plane: a
// task with its console, its configuration and its state. It follows what is served and
// uses the control plane only by its HTTP API.
package instance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/inference/reconcile"
	"clearmlserving/process"
	"clearmlserving/serving"
)

// Options of a Task.
type Options struct {
	Client *clearml.Client
	// TaskID continues that task; "" creates one.
	TaskID string
	// Name and URL are those of the report.
	Name, URL string
	// Role is what the process does instead of answering requests, "" if it answers them, and Kind the end of the
	// name of its task. Default "serve instance".
	Role, Kind string
	// Suffix is the first part of every endpoint's path; "" is "serve".
	Suffix string
	// Key is the public half of the instance's identity.
	Key string
	// Opened, if set, is called with the id of the instance's task.
	Opened func(taskID string)
	// Usage returns the instance's use of its machine's resources, nil if unknown.
	Usage func() serving.Usage
	// Machine returns the state of the machine, nil if it is not reported.
	Machine func(context.Context) process.Health
	// Console has the log lines for the task's console, nil for none.
	Console *Console
	Logger  *slog.Logger
}

// Task maintains an instance's record on a ClearML server, as the original
// does: a task "<service> - serve instance" with the instance's console and a
// copy of the configuration that it serves. In addition it has the
// instance's report, written at each change of the instance's state. The service's
// task is kept alive by pings. An unreachable server affects only the record, never
// serving.
type Task struct {
	o    Options
	wake chan struct{} // has one signal: there is work

	mu      sync.Mutex // guards pending
	pending *applied
}

// New prepares a Task; Run maintains it.
func New(o Options) *Task {
	o.Kind = cmp.Or(o.Kind, "serve instance")
	return &Task{o: o, wake: make(chan struct{}, 1)}
}

const (
	// PingEvery is the time between two pings of an instance on its task.
	PingEvery = 5 * time.Second

	servicePings = 6 // every n-th ping is also for the service: every 30 seconds, as in the SDK
	consoleEvery = 5 * time.Second
	reportGap    = 200 * time.Millisecond // the minimum time between two reports
	countsEvery  = 15 * time.Second       // between two reports that differ only in their counts
	changedEvery = PingEvery              // or in when their state was changed, for which somebody may wait
	lastWords    = 3 * time.Second        // for marking the task as ended
)

// applied is a configuration that the instance has applied.
type applied struct {
	state *reconcile.State
	plan  serving.Plan
}

// Planned implements reconcile.Follower: it stores a new configuration, which Run copies.
func (r *Task) Planned(state *reconcile.State, plan serving.Plan, changed bool) {
	if !changed {
		return
	}
	r.mu.Lock()
	r.pending = &applied{state, plan}
	r.mu.Unlock()
	r.wakeUp()
}

func (r *Task) take() *applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.pending
	r.pending = nil
	return newest
}

// putBack keeps a configuration that could not be copied, unless there is a newer one.
func (r *Task) putBack(a *applied) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = a
	}
}

// StatusChanged implements reconcile.Follower: Run writes a report.
func (r *Task) StatusChanged(func() serving.Status) { r.wakeUp() }

func (r *Task) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run maintains the record until ctx ends, then marks the task as stopped.
func (r *Task) Run(ctx context.Context, status func() serving.Status) error {
	ping, console := time.NewTicker(PingEvery), time.NewTicker(consoleEvery)
	defer ping.Stop()
	defer console.Stop()
	gap := time.NewTimer(0) // fires when the next report is allowed
	defer gap.Stop()
	<-gap.C
	record := instanceRecord{status: status}
	for {
		var err error
		select {
		case <-ctx.Done():
			return r.end(context.WithoutCancel(ctx), record)
		case <-r.wake:
			if err = r.mirror(ctx, &record); err == nil && !record.waiting {
				record.waiting = true
				gap.Reset(max(0, reportGap-time.Since(record.reported)))
			}
		case <-gap.C:
			record.waiting = false
			err = r.report(ctx, &record)
		case <-ping.C:
			if err = r.mirror(ctx, &record); err == nil { // retried if it failed before
				err = errors.Join(r.ping(ctx, &record), r.report(ctx, &record), record.monitor.report(ctx, r, record.taskID, record.usage.Memory, time.Now()))
			}
		case <-console.C:
			err = r.flush(ctx, record)
		}
		if err != nil && ctx.Err() == nil {
			level := slog.LevelWarn
			if record.troubled || errors.Is(err, clearml.ErrUnavailable) {
				level = slog.LevelDebug // the reconciler logs when the server is unreachable
			}
			r.o.Logger.Log(ctx, level, "instance record not written to the control plane", "err", err)
		}
		record.troubled = err != nil
	}
}

// instanceRecord is Run's state of the tasks.
type instanceRecord struct {
	status    func() serving.Status
	serviceID string
	taskID    string
	hash      string // of the copied configuration
	pings     int
	standing  string    // of the last stored report
	reported  time.Time // when
	changed   time.Time // when its state was
	waiting   bool      // a report is due after the gap
	troubled  bool

	containers containers
	planned    map[serving.EndpointURL]serving.PlannedEndpoint
	usage      serving.Usage // last reported
	monitor    monitor
}

// mirror opens the instance's task unless that has been done, and copies
// the current configuration to it. A failed step is retried at the next ping.
func (r *Task) mirror(ctx context.Context, record *instanceRecord) (err error) {
	newest := r.take()
	if newest == nil {
		return nil
	}
	defer func() {
		if err != nil {
			r.putBack(newest)
		}
	}()
	service, err := r.o.Client.LoadService(ctx, newest.state.ServiceID)
	if err != nil {
		return fmt.Errorf("read the service's task: %w", err)
	}
	if record.serviceID == "" {
		record.serviceID = service.ID
		if service.Status != clearml.StatusInProgress {
			if err := r.o.Client.StartService(ctx, service.ID); err != nil {
				return fmt.Errorf("mark the service as in progress: %w", err)
			}
		}
	}
	if record.taskID == "" {
		if record.taskID, err = r.open(ctx, service); err != nil {
			return err
		}
		r.o.Logger.Info("instance recorded", "task", record.taskID, "service", service.Name)
		if r.o.Opened != nil {
			r.o.Opened(record.taskID)
		}
	}
	record.planned = newest.plan.Endpoints
	if hash := newest.state.Hash(); hash != record.hash {
		if err := r.o.Client.MirrorService(ctx, service, record.taskID); err != nil {
			return fmt.Errorf("mirror the configuration: %w", err)
		}
		events, err := layoutEvents(record.taskID, newest.plan)
		if err == nil && len(events) > 0 {
			err = r.o.Client.AddEvents(ctx, events)
		}
		if err != nil {
			return fmt.Errorf("draw the layout of the endpoints: %w", err)
		}
		record.hash = hash
	}
	return nil
}

func (r *Task) open(ctx context.Context, service *clearml.Service) (string, error) {
	if r.o.TaskID != "" {
		return r.o.TaskID, r.o.Client.ContinueInstance(ctx, service, r.o.TaskID)
	}
	return r.o.Client.OpenInstance(ctx, service, r.o.Kind, "inference")
}

// report stores the instance's state if it has changed, or if its counts are old.
func (r *Task) report(ctx context.Context, record *instanceRecord) error {
	if record.taskID == "" {
		return nil
	}
	report := serving.InstanceReport{Name: r.o.Name, Role: r.o.Role, URL: r.o.URL, Path: r.o.Suffix, Key: r.o.Key, PID: os.Getpid(), Status: record.status()}
	standing, err := report.Standing()
	if err != nil {
		return err
	}
	gap := countsEvery
	if !report.StateChanged.Equal(record.changed) {
		gap = changedEvery
	}
	if standing == record.standing && time.Since(record.reported) < gap {
		return nil
	}
	if r.o.Usage != nil {
		report.Usage = r.o.Usage()
		record.usage = report.Usage
	}
	report.Reported = r.o.Client.ServerTime().UTC()
	text, err := report.Text()
	if err != nil {
		return err
	}
	if err := r.o.Client.ReportInstance(ctx, record.taskID, text); err != nil {
		return fmt.Errorf("report the instance's state: %w", err)
	}
	record.standing, record.reported, record.changed = standing, time.Now(), report.StateChanged
	return nil
}

// ping updates the tasks, so that clients see that the instance is alive, and
// a ClearML server's watchdog does not stop the tasks.
func (r *Task) ping(ctx context.Context, record *instanceRecord) error {
	if record.taskID == "" {
		return nil
	}
	err := r.o.Client.PingTask(ctx, record.taskID)
	if record.pings%servicePings == 0 {
		err = errors.Join(err, r.o.Client.PingTask(ctx, record.serviceID))
		if r.o.Role == "" { // it answers requests
			err = errors.Join(err, record.containers.report(ctx, r, record.status(), record.serviceID, record.planned, record.usage))
		}
	}
	record.pings++
	return err
}

// flush sends the log lines since the last time to the task's console.
func (r *Task) flush(ctx context.Context, record instanceRecord) error {
	if r.o.Console == nil || record.taskID == "" {
		return nil
	}
	lines := r.o.Console.take()
	if len(lines) == 0 {
		return nil
	}
	return r.o.Client.LogLines(ctx, record.taskID, "info", []string{strings.Join(lines, "\n")})
}

// end sends the last lines and stops the task, in bounded time, because the server may be unreachable.
func (r *Task) end(ctx context.Context, record instanceRecord) error {
	if record.taskID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	return errors.Join(r.flush(ctx, record), record.containers.end(ctx, r), r.o.Client.StopTask(ctx, record.taskID, "the instance has ended"))
}
