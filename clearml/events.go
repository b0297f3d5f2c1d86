package clearml

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// maxBatch bounds the bytes of one events.add_batch, below the SDK's own limit.
const maxBatch = 8 << 20

// Event is a report for a task: a line of its log, a scalar, a plot.
type Event struct {
	Type      string   `json:"type"` // see the constants
	Task      string   `json:"task"`
	Timestamp int64    `json:"timestamp"` // milliseconds; AddEvents fills it in
	Worker    string   `json:"worker,omitempty"`
	Level     string   `json:"level,omitempty"`
	Msg       string   `json:"msg,omitempty"`
	Metric    string   `json:"metric,omitempty"`
	Variant   string   `json:"variant,omitempty"`
	Iter      *int64   `json:"iter,omitempty"`
	Value     *float64 `json:"value,omitempty"` // NaN and infinities cannot be sent
	PlotStr   string   `json:"plot_str,omitempty"`
}

// The types of events.
const (
	EventLog    = "log"
	EventScalar = "training_stats_scalar"
	EventPlot   = "plot"
)

// AddEvents reports events, in several requests if there are many.
func (c *Client) AddEvents(ctx context.Context, events []Event) error {
	var batch bytes.Buffer
	flush := func() error {
		if batch.Len() == 0 {
			return nil
		}
		// The transport may read a request's body after the end of the call, so each request gets
		// its own bytes.
		body := bytes.Clone(bytes.TrimSuffix(batch.Bytes(), []byte("\n")))
		batch.Reset()
		return c.call(ctx, "events.add_batch", "application/json-lines", body, nil)
	}
	now := time.Now().UnixMilli()
	for _, e := range events {
		e.Timestamp = cmp.Or(e.Timestamp, now)
		e.Worker = cmp.Or(e.Worker, c.config.WorkerName.Value)
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("events.add_batch: %s of task %s: %w", e.Type, e.Task, err)
		}
		if batch.Len() > 0 && batch.Len()+len(line) > maxBatch {
			if err := flush(); err != nil {
				return err
			}
		}
		batch.Write(line)
		batch.WriteByte('\n')
	}
	return flush()
}

// LogLines adds lines to the console of a task.
func (c *Client) LogLines(ctx context.Context, taskID, level string, lines []string) error {
	events := make([]Event, len(lines))
	for i, line := range lines {
		events[i] = Event{Type: EventLog, Task: taskID, Level: level, Msg: line}
	}
	return c.AddEvents(ctx, events)
}
