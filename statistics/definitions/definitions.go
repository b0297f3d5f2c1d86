// Package definitions follows the logged variables of a serving service on a ClearML server, and
// maintains the task of a process that counts them.
package definitions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/statistics"
)

const (
	lookEvery   = time.Second // at an embedded server, whether the service has changed
	renewWithin = 5 * time.Second
	pingEvery   = 30 * time.Second
	lastWords   = 3 * time.Second
)

// Options of a Follower.
type Options struct {
	Client *clearml.Client
	// ServiceID, or else ServiceName, selects the service; if both are empty: the first active one.
	ServiceID, ServiceName string
	Poll                   time.Duration
	// Read is called after each reading.
	Read   func(serving.Service)
	Logger *slog.Logger
}

// Follower knows the definitions of a service. It implements kafka.Definitions.
type Follower struct {
	o      Options
	chosen string // id of the service

	mu      sync.Mutex // guards the fields below
	reading sync.Mutex // is held while the service is read
	service serving.Service
	names   map[serving.EndpointURL]statistics.Names
	version int
	err     error
}

// New returns a Follower; Choose comes first.
func New(o Options) *Follower {
	return &Follower{o: o, err: errors.New("the serving service has not been read yet")}
}

// Choose selects the service and reads it. It waits until there is one, and until the server answers.
func (f *Follower) Choose(ctx context.Context) (*clearml.Service, error) {
	logged := ""
	for failures := 1; ; failures++ {
		found, err := f.find(ctx)
		if err == nil {
			f.chosen = found.ID
			f.apply(found)
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		f.fail(err)
		if logged != err.Error() {
			logged = err.Error()
			f.o.Logger.Warn("serving service not read", "err", err)
		}
		if err := retry.Sleep(ctx, retry.Jittered(retry.Doubled(failures, time.Second, 30*time.Second))); err != nil {
			return nil, err
		}
	}
}

func (f *Follower) find(ctx context.Context) (*clearml.Service, error) {
	id := f.o.ServiceID
	if id == "" {
		services, err := f.o.Client.ListServices(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range services {
			if id == "" && (f.o.ServiceName == "" || s.Name == f.o.ServiceName) {
				id = s.ID
			}
		}
		if id == "" {
			return nil, errors.New("there is no active serving service; create one or name one with --id")
		}
	}
	return f.o.Client.LoadService(ctx, id)
}

// Run reads the service again until ctx ends: at each poll, and if it has changed on an embedded
// server.
func (f *Follower) Run(ctx context.Context) {
	var seen clearml.Time
	polled := time.Now()
	for retry.Sleep(ctx, retry.Jittered(min(lookEvery, f.o.Poll))) == nil {
		due := time.Since(polled) >= f.o.Poll
		if !due {
			at, ok := f.look(ctx)
			if !ok || at.Equal(seen.Time) {
				continue
			}
			seen = at
		}
		polled = time.Now()
		f.Renew(ctx)
	}
}

// look returns when the service was last written, if the server is an embedded one.
func (f *Follower) look(ctx context.Context) (at clearml.Time, ok bool) {
	if info, err := f.o.Client.Info(ctx); err != nil || !info.Embedded() {
		return at, false
	}
	tasks, err := f.o.Client.Tasks(ctx, clearml.TaskFilter{IDs: []string{f.chosen}, Fields: []string{"last_update"}, Hidden: true, Limit: 1})
	if err != nil || len(tasks) == 0 {
		return at, false
	}
	return tasks[0].LastUpdate, true
}

// Renew implements kafka.Definitions. A server that does not answer changes nothing.
func (f *Follower) Renew(ctx context.Context) {
	f.reading.Lock()
	defer f.reading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	found, err := f.o.Client.LoadService(ctx, f.chosen)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			f.fail(fmt.Errorf("read serving service %s: %w", f.chosen, err))
		}
		return
	}
	f.apply(found)
}

func (f *Follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// apply uses what was read. A section that cannot be read keeps its last form.
func (f *Follower) apply(found *clearml.Service) {
	configuration := found.Configuration()
	next := serving.Decode(configuration.Sections, configuration.General)
	f.mu.Lock()
	if _, broken := configuration.Unreadable[serving.SectionMetrics]; broken || len(next.BrokenIn(serving.SectionMetrics)) > 0 && len(next.Metrics) == 0 {
		next.Metrics = f.service.Metrics
	}
	before, err := f.service.Encode(serving.SectionMetrics)
	after, err2 := next.Encode(serving.SectionMetrics)
	if f.version == 0 || before != after || err != nil || err2 != nil {
		f.version++
	}
	f.service, f.err = next, nil
	f.names = map[serving.EndpointURL]statistics.Names{}
	for _, endpoints := range []map[string]serving.Endpoint{next.MonitoringEndpoints, next.Endpoints} {
		for _, e := range endpoints {
			f.names[e.URL()] = statistics.Names{Endpoint: string(serving.CleanURL(e.ServingURL)), Version: e.Version}
		}
	}
	f.mu.Unlock()
	if f.o.Read != nil {
		f.o.Read(next)
	}
}

// Version implements kafka.Definitions.
func (f *Follower) Version() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

// For implements kafka.Definitions.
func (f *Follower) For(url serving.EndpointURL) map[string]serving.Metric {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.service.MetricsFor(url).Metrics
}

// Names returns the labels of an endpoint.
func (f *Follower) Names(url serving.EndpointURL) statistics.Names {
	f.mu.Lock()
	defer f.mu.Unlock()
	if names, known := f.names[url]; known {
		return names
	}
	return statistics.NamesOf(url)
}

// Ready returns nil if the service has been read, also if it cannot be read at the moment.
func (f *Follower) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.version == 0 {
		return f.err
	}
	return nil
}

// RecordTask creates the process's task on the control plane, as the original does, and keeps it alive
// until ctx ends. Errors are logged only.
func (f *Follower) RecordTask(ctx context.Context, service *clearml.Service) {
	id := ""
	for failures := 0; ; {
		var err error
		if id == "" {
			id, err = f.o.Client.OpenInstance(ctx, service, "statistics controller", "monitor")
		} else {
			err = f.o.Client.PingTask(ctx, id)
		}
		if err != nil && ctx.Err() == nil {
			if failures++; failures == 1 {
				f.o.Logger.Warn("task not written to the control plane", "err", err)
			}
		} else {
			failures = 0
		}
		if retry.Sleep(ctx, retry.Jittered(pingEvery)) != nil {
			break
		}
	}
	if id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if err := f.o.Client.StopTask(ctx, id, "the statistics have ended"); err != nil {
		f.o.Logger.Debug("task not stopped", "err", err)
	}
}
