package worker

import (
	"fmt"
	"slices"
	"time"
)

// The number of workers of an endpoint is between Spec.Workers without the elastic ones and
// Spec.Workers. It grows while requests wait, and shrinks when workers are idle.

const (
	// growLooks is the number of consecutive looks at which requests must wait before
	// another worker is started.
	growLooks = 2
	// firstRest is the idle timeout of an endpoint that has had no request: its worker was
	// started only to check that it loads.
	firstRest = 2 * time.Second
	// recyclePause is the minimum time between two replacements in a seat.
	recyclePause = 10 * time.Second
)

// look decides how many seats are wanted, and which workers are replaced. It reports whether
// the endpoint has started and is not closed.
func (s *seats) look(now time.Time, r demand) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil || !s.started {
		return false
	}
	if r.ready > 0 || len(s.seats) == 0 && r.waiting == 0 {
		s.without = time.Time{}
	} else if s.without.IsZero() {
		s.without = now
	}
	s.grow(r)
	s.shrink(now, r)
	for _, one := range s.seats {
		if n := s.spec.Limits.RecycleRequests; n > 0 && one.w != nil {
			if served, _ := s.d.Served(one.w); served >= uint64(n) {
				s.recycle(one.w, now, fmt.Sprintf("%d requests answered", served))
			}
		}
	}
	return true
}

// grow asks for a worker when requests have waited for a while. mu is held.
func (s *seats) grow(r demand) {
	// Requests that were sent ahead to a busy worker wait too.
	waits := r.waiting > 0 || (!r.async && r.ready > 0 && r.inFlight > r.ready)
	switch {
	case len(s.seats) == 0 && r.waiting > 0:
		s.wake()
	case !waits || len(s.seats) >= s.spec.Workers || r.ready < len(s.seats):
		s.waitLooks = 0
	default:
		if s.waitLooks++; s.waitLooks >= growLooks {
			s.waitLooks = 0
			s.wanted = max(s.wanted, len(s.seats)+1)
			s.wake()
			s.log.Info("another worker is started: requests wait", "workers", s.wanted, "most", s.spec.Workers)
		}
	}
}

// shrink ends idle elastic workers. mu is held.
func (s *seats) shrink(now time.Time, r demand) {
	idle := s.spec.Limits.IdleAfter()
	if r.served == 0 {
		idle = min(idle, firstRest)
	}
	for i := 0; i < len(s.seats); {
		if !s.vacate(s.seats[i].w, now, idle) {
			i++
		}
	}
}

// vacate ends a worker and removes its seat, if the endpoint has more than its minimum, no
// request waits, and the worker has been idle for that time. mu is held.
func (s *seats) vacate(w *worker, now time.Time, idle time.Duration) bool {
	if w == nil || len(s.seats) <= s.least() {
		return false
	}
	i := slices.Index(s.seats, w.seat)
	if i < 0 || w.seat.w != w || !s.d.RetireIdle(w, now, idle) {
		return false
	}
	w.seat.left = true
	s.seats = slices.Delete(s.seats, i, i+1)
	s.wanted = len(s.seats)
	s.publish()
	s.log.Debug("idle worker leaves", "worker", w.pid, "workers", len(s.seats))
	return true
}

// Spare ends a worker before its idle timeout, under the same conditions. sleeps reports
// that the endpoint has none left.
func (s *seats) Spare(w *worker, now time.Time, idle time.Duration) (gone, sleeps bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone = s.life.Err() == nil && s.vacate(w, now, idle)
	return gone, gone && len(s.seats) == 0
}

// Recycle has a worker replaced.
func (s *seats) Recycle(w *worker, now time.Time, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recycle(w, now, why)
}

// recycle has a worker replaced; it serves until the new one is ready. mu is held.
func (s *seats) recycle(w *worker, now time.Time, why string) {
	one := w.seat
	if one == nil || one.left || one.w != w || now.Before(one.notBefore) {
		return
	}
	if _, ready := s.d.Served(w); !ready {
		return
	}
	one.notBefore = now.Add(recyclePause)
	select {
	case one.renew <- why:
	default: // it is being replaced
	}
}
