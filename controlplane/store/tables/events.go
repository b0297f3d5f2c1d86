package tables

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// eventsAtOnce is the number of events in one statement: enough to save round trips, few
// enough for the databases' limits of parameters.
const eventsAtOnce = 200

// AppendEvents implements store.Tx.
func (w writer) AppendEvents(ctx context.Context, events []store.Event) error {
	for _, e := range events {
		if e.ID == "" {
			return fmt.Errorf("store events: one of task %q has no id", e.Task)
		}
	}
	for chunk := range slices.Chunk(latest(events), eventsAtOnce) {
		if err := w.storeEvents(ctx, chunk); err != nil {
			return fmt.Errorf("store %d events of task %q and others: %w", len(chunk), chunk[0].Task, w.dialect.Explain(err))
		}
	}
	return nil
}

// latest keeps the last of events with the same id, in the place of the first, because a
// statement may write each id only once.
func latest(events []store.Event) []store.Event {
	at := make(map[string]int, len(events))
	out := make([]store.Event, 0, len(events))
	for _, e := range events {
		if i, again := at[e.ID]; again {
			out[i] = e
			continue
		}
		at[e.ID] = len(out)
		out = append(out, e)
	}
	return out
}

func (w writer) storeEvents(ctx context.Context, events []store.Event) error {
	const columns = 8
	args := make([]any, 0, columns*len(events))
	for _, e := range events {
		body, err := e.Body.Encode()
		if err != nil {
			return err
		}
		text := w.dialect.Text
		args = append(args, text(e.ID), text(e.Task), text(e.Type), text(e.Metric), text(e.Variant), e.Iter, e.Timestamp, string(body))
	}
	_, err := w.exec(ctx, `INSERT INTO events (id, task, type, metric, variant, iter, ts, body) VALUES `+tuples(len(events), columns)+`
		ON CONFLICT (id) DO UPDATE SET task = excluded.task, type = excluded.type, metric = excluded.metric,
			variant = excluded.variant, iter = excluded.iter, ts = excluded.ts, body = excluded.body`, args...)
	return err
}

// Events implements store.Reader.
func (r reader) Events(ctx context.Context, q store.EventQuery) ([]store.Event, error) {
	return limited(ctx, r, "read events", func(ctx context.Context) ([]store.Event, error) { return r.events(ctx, q) })
}

func (r reader) events(ctx context.Context, q store.EventQuery) ([]store.Event, error) {
	where, args := eventConditions(q)
	if q.After != nil {
		than := ">"
		if q.Desc {
			than = "<"
		}
		where += ` AND (ts, seq) ` + than + ` (?, ?)`
		args = append(args, q.After.Timestamp, q.After.Seq)
	}
	order := `ts, seq`
	switch {
	case q.ByIter:
		order = `metric, variant, iter, seq`
	case q.Desc:
		order = `ts DESC, seq DESC`
	}
	text, args := window(`SELECT `+eventColumns+` FROM events WHERE `+where+` ORDER BY `+order, args, q.Offset, q.Limit)
	events := []store.Event{}
	err := r.each(ctx, text, args, func(scan scanner) error {
		e, err := scanEvent(scan)
		events = append(events, e)
		return err
	})
	return events, err
}

const eventColumns = `seq, id, task, type, metric, variant, iter, ts, body`

func scanEvent(scan scanner) (store.Event, error) {
	var e store.Event
	var body string
	if err := scan(&e.Seq, &e.ID, &e.Task, &e.Type, &e.Metric, &e.Variant, &e.Iter, &e.Timestamp, &body); err != nil {
		return e, err
	}
	var err error
	if e.Body, err = store.Decode([]byte(body)); err != nil {
		return e, fmt.Errorf("decode stored event %q: %w", e.ID, err)
	}
	return e, nil
}

// CountEvents implements store.Reader.
func (r reader) CountEvents(ctx context.Context, q store.EventQuery) (int, error) {
	where, args := eventConditions(q)
	return limited(ctx, r, "count events", func(ctx context.Context) (n int, err error) {
		err = r.queryRow(ctx, `SELECT count(*) FROM events WHERE `+where, args...).Scan(&n)
		return n, err
	})
}

// DeleteEvents implements store.Tx.
func (w writer) DeleteEvents(ctx context.Context, q store.EventQuery) (int, error) {
	where, args := eventConditions(q)
	return w.deleteEvents(ctx, where, args...)
}

// ExpireEvents implements store.Tx.
func (w writer) ExpireEvents(ctx context.Context, before int64, limit int) (int, error) {
	return w.deleteEvents(ctx, `seq IN (SELECT seq FROM events WHERE ts < ? ORDER BY ts LIMIT ?)`, before, limit)
}

func (w writer) deleteEvents(ctx context.Context, where string, args ...any) (int, error) {
	done, err := w.exec(ctx, `DELETE FROM events WHERE `+where, args...)
	if err != nil {
		return 0, fmt.Errorf("delete events: %w", w.dialect.Explain(err))
	}
	n, err := done.RowsAffected()
	return int(n), err
}

// eventConditions returns the SQL of all conditions except the cursor.
func eventConditions(q store.EventQuery) (string, []any) {
	if len(q.Tasks) == 0 {
		return "FALSE", nil
	}
	var parts []string
	var args []any
	among := func(column string, values []string) {
		if len(values) == 0 {
			return
		}
		parts = append(parts, column+" IN ("+marks(len(values))+")")
		for _, v := range values {
			args = append(args, v)
		}
	}
	add := func(text string, set bool, arg any) {
		if set {
			parts = append(parts, text)
			args = append(args, arg)
		}
	}
	among("task", q.Tasks)
	among("type", q.Types)
	add("metric = ?", q.Metric != "", q.Metric)
	add("variant = ?", q.Variant != "", q.Variant)
	add("ts >= ?", q.From != 0, q.From)
	add("ts <= ?", q.To != 0, q.To)
	return strings.Join(parts, " AND "), args
}
