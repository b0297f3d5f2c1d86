package controlplane

import (
	"context"
	"time"

	"clearmlserving/controlplane/store"
)

const (
	// expireEvery is how often old events are looked for.
	expireEvery = 10 * time.Minute
	// expireAtOnce is how many events one transaction removes: other writers wait for it.
	expireAtOnce = 2000
)

// expireEvents removes the events that are older than what is kept, until ctx ends.
func (s *Server) expireEvents(ctx context.Context) error {
	if s.opts.EventsRetention <= 0 {
		return nil
	}
	for {
		n, err := s.expireOnce(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("old events not removed", "err", err) // the next time may do it
		case n > 0:
			s.log.Info("old events removed", "events", n)
		}
		select {
		case <-time.After(expireEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) expireOnce(ctx context.Context) (int, error) {
	before := s.opts.Now().Add(-s.opts.EventsRetention).UnixMilli()
	total := 0
	for {
		n := 0
		err := s.store.Tx(ctx, func(tx store.Tx) error {
			var err error
			n, err = tx.ExpireEvents(ctx, before, expireAtOnce)
			return err
		})
		total += n
		if err != nil || n < expireAtOnce {
			return total, err
		}
	}
}
