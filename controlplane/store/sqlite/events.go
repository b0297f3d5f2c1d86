package sqlite

import (
	"context"
	"fmt"
	"strings"

	"clearmlserving/controlplane/store"
)

// AppendEvents implements store.Tx.
func (w writer) AppendEvents(ctx context.Context, events []store.Event) error {
	insert, err := w.tx.PrepareContext(ctx, `INSERT INTO events (id, task, type, metric, variant, iter, ts, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET task = excluded.task, type = excluded.type, metric = excluded.metric,
			variant = excluded.variant, iter = excluded.iter, ts = excluded.ts, body = excluded.body`)
	if err != nil {
		return fmt.Errorf("store events: %w", explain(err))
	}
	defer func() { _ = insert.Close() }() // the transaction tells
	for _, e := range events {
		if e.ID == "" {
			return fmt.Errorf("store events: one of task %q has no id", e.Task)
		}
		body, err := e.Body.Encode()
		if err != nil {
			return fmt.Errorf("store event %q: %w", e.ID, err)
		}
		if _, err := insert.ExecContext(ctx, e.ID, e.Task, e.Type, e.Metric, e.Variant, e.Iter, e.Timestamp, string(body)); err != nil {
			return fmt.Errorf("store event %q: %w", e.ID, explain(err))
		}
	}
	return nil
}

// Events implements store.Reader.
func (r reader) Events(ctx context.Context, q store.EventQuery) ([]store.Event, error) {
	events, err := r.events(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", explain(err))
	}
	return events, nil
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
	limit := q.Limit
	if limit <= 0 {
		limit = -1
	}
	rows, err := r.db.QueryContext(ctx, `SELECT seq, id, task, type, metric, variant, iter, ts, body FROM events WHERE `+where+
		` ORDER BY `+order+` LIMIT ? OFFSET ?`, append(args, limit, q.Offset)...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	events := []store.Event{}
	for rows.Next() {
		var e store.Event
		var body string
		if err := rows.Scan(&e.Seq, &e.ID, &e.Task, &e.Type, &e.Metric, &e.Variant, &e.Iter, &e.Timestamp, &body); err != nil {
			return nil, err
		}
		if e.Body, err = store.Decode([]byte(body)); err != nil {
			return nil, fmt.Errorf("decode stored event %q: %w", e.ID, err)
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

// CountEvents implements store.Reader.
func (r reader) CountEvents(ctx context.Context, q store.EventQuery) (int, error) {
	where, args := eventConditions(q)
	var n int
	if err := r.db.QueryRowContext(ctx, `SELECT count(*) FROM events WHERE `+where, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count events: %w", explain(err))
	}
	return n, nil
}

// DeleteEvents implements store.Tx.
func (w writer) DeleteEvents(ctx context.Context, q store.EventQuery) (int, error) {
	where, args := eventConditions(q)
	done, err := w.tx.ExecContext(ctx, `DELETE FROM events WHERE `+where, args...)
	if err != nil {
		return 0, fmt.Errorf("delete events: %w", explain(err))
	}
	n, err := done.RowsAffected()
	return int(n), err
}

// eventConditions returns the SQL of all conditions but the cursor.
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
