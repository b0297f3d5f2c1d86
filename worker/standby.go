package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// standby is a fork of the zygote, made once it is ready, that takes over when the
// zygote dies, so that nothing is imported again. It shares the zygote's memory.
type standby struct {
	f    *forker
	done chan struct{} // closed when the process is gone
}

// standbyPause is the least time between two standbys, so that one that dies at once is
// not forked in a loop.
const standbyPause = time.Second

// startStandby has the process behind f fork a standby; nil if that fails.
func (z *zygote) startStandby(f *forker) *standby {
	next, theirs, err := newForker()
	if err != nil {
		z.o.Logger.Warn("standby zygote not started", "err", err)
		return nil
	}
	message, err := json.Marshal(map[string]any{"do": "standby"})
	if err == nil {
		_, _, err = f.conn.WriteMsgUnix(message, unix.UnixRights(int(theirs.Fd())), nil)
	}
	_ = theirs.Close()
	if err != nil {
		next.close()
		return nil // f is gone, which its owner sees
	}
	h := &standby{f: next, done: make(chan struct{})}
	go func() { // ends with the process, for which end waits
		defer close(h.done)
		next.read(func(control) {})
	}()
	return h
}

func (h *standby) alive() bool {
	select {
	case <-h.done:
		return false
	default:
		return h.f.alive()
	}
}

// end ends the standby and its children, and waits for that.
func (h *standby) end() {
	if h == nil {
		return
	}
	h.f.retire()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-h.done:
	case <-timer.C:
		h.f.close()
		<-h.done
	}
}

// superviseStandby keeps a standby of f running until f is gone or ctx ends, and returns
// it; nil when there is none at that moment.
func (z *zygote) superviseStandby(ctx context.Context, f *forker, gone <-chan struct{}) *standby {
	h := z.startStandby(f)
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
		pause := time.NewTimer(standbyPause)
		select {
		case <-pause.C:
			h = z.startStandby(f)
		case <-gone:
			pause.Stop()
			return nil
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// failOver lets h, and after it the standbys of its own, be the zygote, until none is
// left or ctx ends.
func (z *zygote) failOver(ctx context.Context, h *standby, cause error) error {
	for h != nil && ctx.Err() == nil {
		z.set(h.f, nil)
		z.o.Logger.Error("zygote died, its standby has taken over", "worker", "zygote", "err", cause)
		next := z.superviseStandby(ctx, h.f, h.done)
		z.orphaned.Store(new(time.Now()))
		if ctx.Err() != nil {
			h.end()
			next.end()
			return cause
		}
		h, cause = next, fmt.Errorf("zygote died: %w", errForkerGone)
	}
	h.end()
	return cause
}
