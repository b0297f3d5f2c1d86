// Package recurring keeps logs short: of recurring records it passes
// on the first, and then one with their number for a growing interval.
package recurring

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Mark returns the value of an attribute, of any name, that marks a record as recurring.
// Records with equal keys are equivalent. Those after the first have the attributes in
// brief instead of their own, if there are any. No handler writes the attribute.
func Mark(key string, brief ...slog.Attr) slog.LogValuer { return mark{key, brief} }

type mark struct {
	key   string
	brief []slog.Attr
}

// LogValue implements slog.LogValuer: handlers omit an empty group.
func (mark) LogValue() slog.Value { return slog.GroupValue() }

const (
	// Recurring records are summed up after firstInterval, then after twice the last
	// interval, up to lastInterval. After an interval without one, the next counts as the first.
	firstInterval, lastInterval = 10 * time.Second, 5 * time.Minute
	// maxKeys bounds the memory. The records of further keys share one key for each message.
	maxKeys = 1000
)

// Handler is a slog.Handler that sums up recurring records for the next one.
type Handler struct {
	next slog.Handler
	*episodes
}

// episodes are shared by a Handler and those derived from it.
type episodes struct {
	mu  sync.Mutex // guards all
	all map[string]*episode
}

// episode is a series of records with one key.
type episode struct {
	interval time.Duration
	timer    *time.Timer // calls sumUp
	count    int         // since the last record that was passed on
	newest   slog.Record // of those
	next     slog.Handler
}

// NewHandler wraps a handler.
func NewHandler(next slog.Handler) *Handler {
	return &Handler{next, &episodes{all: map[string]*episode{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.next.WithAttrs(attrs), h.episodes}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.episodes}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	var m mark
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindLogValuer {
			if found, ok := a.Value.Any().(mark); ok {
				m = found
			}
		}
		return m.key == ""
	})
	if m.key != "" && h.recurs(r, m) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// recurs counts a record that is not to be passed on.
func (h *Handler) recurs(r slog.Record, m mark) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := m.key
	e := h.all[key]
	if e == nil && len(h.all) >= maxKeys {
		key = r.Message
		e = h.all[key]
	}
	if e == nil {
		e = &episode{interval: firstInterval}
		e.timer = time.AfterFunc(e.interval, func() { h.sumUp(key, e) })
		h.all[key] = e
		return false
	}
	if m.brief != nil {
		r = slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
		r.AddAttrs(m.brief...)
	}
	e.count++
	e.newest, e.next = r, h.next
	return true
}

// sumUp passes on the number of the records since the last one that was passed on, and ends
// the episode if there are none.
func (h *episodes) sumUp(key string, e *episode) {
	h.mu.Lock()
	switch {
	case h.all[key] != e: // Flush has ended it
	case e.count == 0:
		delete(h.all, key)
	default:
		e.interval = min(2*e.interval, lastInterval)
		e.timer.Reset(e.interval)
	}
	pass := e.take()
	h.mu.Unlock()
	pass()
}

// Flush passes on the numbers of all records that have not been passed on.
func (h *episodes) Flush() {
	h.mu.Lock()
	var left []func()
	for _, e := range h.all {
		e.timer.Stop()
		left = append(left, e.take())
	}
	h.all = map[string]*episode{}
	h.mu.Unlock()
	for _, pass := range left {
		pass()
	}
}

// take returns a function that passes on the newest record with the number, and resets the count.
// episodes.mu is held, but must not be held when the function is called.
func (e *episode) take() (pass func()) {
	count, newest, next := e.count, e.newest, e.next
	e.count = 0
	return func() {
		if count == 0 {
			return
		}
		record := newest.Clone()
		record.AddAttrs(slog.Int("times", count))
		_ = next.Handle(context.Background(), record) // there is no other log
	}
}
