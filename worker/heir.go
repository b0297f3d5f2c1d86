package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// heir is a copy of the zygote, forked from it as soon as it is ready, that does
// nothing until the zygote dies and then takes its place: nobody waits for the
// imports again. Being a fork it shares the zygote's memory, so it costs next to
// nothing.
type heir struct {
	f    *forker
	done chan struct{} // closed when the process is gone
}

// heirPause is the least time between two heirs of one zygote: one that dies at
// once must not be forked in a loop.
const heirPause = time.Second

// appoint has the process behind f fork an heir, nil when it can't.
func (z *zygote) appoint(f *forker) *heir {
	next, theirs, err := newForker()
	if err != nil {
		z.o.Logger.Warn("zygote has no heir", "err", err)
		return nil
	}
	message, err := json.Marshal(map[string]any{"do": "heir"})
	if err == nil {
		_, _, err = f.conn.WriteMsgUnix(message, unix.UnixRights(int(theirs.Fd())), nil)
	}
	_ = theirs.Close()
	if err != nil {
		next.close()
		return nil // f is gone, which its owner sees
	}
	h := &heir{f: next, done: make(chan struct{})}
	go func() { // ends with the process, for which end waits
		defer close(h.done)
		next.read(func(control) {})
	}()
	return h
}

func (h *heir) alive() bool {
	select {
	case <-h.done:
		return false
	default:
		return h.f.alive()
	}
}

// end asks the heir to end, its children with it, and waits for that.
func (h *heir) end(grace time.Duration) {
	if h == nil {
		return
	}
	h.f.retire()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-h.done:
	case <-timer.C:
		h.f.close()
		<-h.done
	}
}

// reign keeps an heir of f at hand until f is gone or ctx ends, and returns it:
// nil when there is none at that moment.
func (z *zygote) reign(ctx context.Context, f *forker, gone <-chan struct{}) *heir {
	h := z.appoint(f)
	for {
		lost := make(<-chan struct{})
		if h != nil {
			lost = h.done
		}
		select {
		case <-gone:
			if h != nil && !h.alive() {
				return nil
			}
			return h
		case <-ctx.Done():
			return h
		case <-lost:
		}
		h = nil
		pause := time.NewTimer(heirPause)
		select {
		case <-pause.C:
			h = z.appoint(f)
		case <-gone:
			pause.Stop()
			return nil
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// succeed lets h, and after it its own heirs, be the zygote, until none is left or
// ctx ends.
func (z *zygote) succeed(ctx context.Context, h *heir, cause error) error {
	for h != nil && ctx.Err() == nil {
		z.set(h.f, nil)
		z.o.Logger.Error("zygote died, its heir has taken its place", "worker", "zygote", "err", cause)
		next := z.reign(ctx, h.f, h.done)
		z.orphaned.Store(new(time.Now()))
		if ctx.Err() != nil {
			h.end(stopGrace)
			next.end(stopGrace)
			return cause
		}
		h, cause = next, fmt.Errorf("zygote died: %w", errForkerGone)
	}
	h.end(stopGrace)
	return cause
}
