package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// diary notes what parts do, in order.
type diary struct {
	mu    sync.Mutex
	notes []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes = append(d.notes, s)
}

func (d *diary) part(name string, fail error) part {
	return part{name, func(ctx context.Context, ready func()) error {
		d.note("start " + name)
		if fail != nil {
			return fail
		}
		ready()
		<-ctx.Done()
		d.note("stop " + name)
		return nil
	}}
}

func TestPartsStopInReverseOrder(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(t.Context())
	last := part{"last", func(partCtx context.Context, ready func()) error {
		ready()
		cancel()
		<-partCtx.Done()
		d.note("stop last")
		return nil
	}}
	if err := runParts(ctx, slog.New(slog.DiscardHandler), d.part("a", nil), d.part("b", nil), last); err != nil {
		t.Fatal(err)
	}
	if want := []string{"start a", "start b", "stop last", "stop b", "stop a"}; !slices.Equal(d.notes, want) {
		t.Errorf("got %v", d.notes)
	}
}

func TestAFailedPartStopsAllAndIsNamed(t *testing.T) {
	var d diary
	boom := errors.New("boom")
	err := runParts(t.Context(), slog.New(slog.DiscardHandler), d.part("a", nil), d.part("b", boom), d.part("never", nil))
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "b: ") {
		t.Errorf("got %v", err)
	}
	if want := []string{"start a", "start b", "stop a"}; !slices.Equal(d.notes, want) {
		t.Errorf("got %v", d.notes)
	}
}
