package instance

import (
	"context"
	"time"
)

// Monitor is what reports the machine.
type Monitor = monitor

// Report is called by Run at each ping.
func (m *monitor) Report(ctx context.Context, r *Task, task string, memory int64, now time.Time) error {
	return m.report(ctx, r, task, memory, now)
}

// CountsEvery is the time between two reports that differ only in their counts.
const CountsEvery = countsEvery
