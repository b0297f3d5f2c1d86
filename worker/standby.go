package worker

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"
)

// zygoteProcess is a process that forks workers: one that was started, or a standby. A
// standby is a fork of the zygote, made once all imports are done. It takes over when the
// zygote dies, so that nothing is imported again, and shares its memory.
type zygoteProcess struct {
	f     *forker
	done  chan struct{} // closed when the process is gone
	kill  func()
	death func() error // valid after done
}

// standbyPause is the minimum time between two starts of a standby.
const standbyPause = time.Second

// startStandby has p fork a standby; nil if that fails.
func (z *zygote) startStandby(p *zygoteProcess) *zygoteProcess {
	f, theirs, err := newForker()
	if err != nil {
		z.o.Logger.Warn("standby zygote not started", "err", err)
		return nil
	}
	message, err := json.Marshal(map[string]any{"do": "standby"})
	if err == nil {
		_, _, err = p.f.conn.WriteMsgUnix(message, unix.UnixRights(int(theirs.Fd())), nil)
	}
	_ = theirs.Close()
	if err != nil {
		f.close()
		return nil // p is gone, which superviseStandby sees
	}
	next := &zygoteProcess{f: f, done: make(chan struct{}), kill: f.close, death: func() error { return errForkerGone }}
	go func() { // ends with the process, which end waits for
		defer close(next.done)
		f.read(func(control) {})
	}()
	return next
}

// end ends the process and its children, and waits for that.
func (p *zygoteProcess) end() {
	if p == nil {
		return
	}
	p.f.retire()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.kill()
		<-p.done
	}
}

// superviseStandby keeps a standby of p running until p is gone or ctx ends, and returns
// it; nil when there is none at that moment.
func (z *zygote) superviseStandby(ctx context.Context, p *zygoteProcess) *zygoteProcess {
	for {
		standby := z.startStandby(p)
		var lost chan struct{}
		if standby != nil {
			lost = standby.done
		}
		select {
		case <-p.done:
			if standby != nil && standby.f.alive() {
				return standby
			}
			return nil
		case <-ctx.Done():
			return standby
		case <-lost:
		}
		pause := time.NewTimer(standbyPause)
		select {
		case <-pause.C:
		case <-p.done:
			pause.Stop()
			return nil
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}
