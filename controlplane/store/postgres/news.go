package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is the one by which servers on a database notify each other of writes.
const channel = "clearml_serving"

// Tell implements store.Shared.
func (s *Store) Tell(ctx context.Context) error {
	if _, err := s.write.ExecContext(ctx, `SELECT pg_notify($1, $2)`, channel, s.sender); err != nil {
		return fmt.Errorf("notify other servers of a change: %w", explain(err))
	}
	return nil
}

// Hear implements store.Shared: it listens on a separate connection, and connects again if
// that breaks.
func (s *Store) Hear(ctx context.Context, heard func()) error {
	const again = 2 * time.Second
	broken := false
	for {
		err := s.listen(ctx, func() {
			if broken {
				heard() // notifications of the meantime are lost
			}
			broken = false
		}, heard)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !broken {
			s.log.Warn("notifications of other servers interrupted", "err", explain(err))
		}
		broken = true
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listen listens on one connection until it breaks. ready is called once it listens.
func (s *Store) listen(ctx context.Context, ready func(), heard func()) (err error) {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return err
	}
	defer func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(limit))
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	ready()
	for {
		note, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if note.Payload != s.sender {
			heard()
		}
	}
}
