package reconcile

import (
	"context"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/retry"
)

// ServiceChanges looks often, and cheaply, whether the service of a Source has changed on an
// embedded server, so that a deployment or a rollback is live there before the next poll. Other
// ClearML servers are only polled: their operators may limit the rate of calls.
type ServiceChanges struct {
	Source *ClearMLSource
	// Every is the interval between two looks. Default one second.
	Every time.Duration

	looks chan struct{} // has one signal: the service has changed
	id    string        // of the service that was looked at
	seen  clearml.Time
}

// NewServiceChanges looks at the service of a source.
func NewServiceChanges(source *ClearMLSource) *ServiceChanges {
	return &ServiceChanges{Source: source, looks: make(chan struct{}, 1)}
}

// Look makes Next return at once: this process has changed the service.
func (c *ServiceChanges) Look() {
	select {
	case c.looks <- struct{}{}:
	default:
	}
}

// Next implements Changes. A server that does not answer has no news: the reader of the
// configuration reports it.
func (c *ServiceChanges) Next(ctx context.Context) error {
	every := c.Every
	if every <= 0 {
		every = time.Second
	}
	for {
		pause := time.NewTimer(retry.Jittered(every))
		select {
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		case <-c.looks:
			pause.Stop()
			return nil
		case <-pause.C:
		}
		if c.changed(ctx) {
			return nil
		}
	}
}

// changed reports whether the service was written since the last look. The first look at a service
// counts as a change, because a write may have come between its reading and this look.
func (c *ServiceChanges) changed(ctx context.Context) bool {
	id := c.Source.selected.Load()
	if id == nil {
		return false
	}
	if info, err := c.Source.Client.Info(ctx); err != nil || !info.Embedded() {
		return false
	}
	tasks, err := c.Source.Client.Tasks(ctx, clearml.TaskFilter{IDs: []string{*id}, Fields: []string{"last_update"}, Hidden: true, Limit: 1})
	if err != nil || len(tasks) == 0 || *id == c.id && tasks[0].LastUpdate.Equal(c.seen.Time) {
		return false
	}
	c.id, c.seen = *id, tasks[0].LastUpdate
	return true
}
