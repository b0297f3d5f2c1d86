package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"clearmlserving/controlplane/store"
)

// channel is where servers on one database tell each other of writes.
const channel = "clearml_serving"

// newSender makes the name under which a server tells of its own writes.
func newSender() string {
	name := make([]byte, 8)
	_, _ = rand.Read(name) // never fails, says its documentation
	return hex.EncodeToString(name)
}

// Tell implements store.Shared.
func (s *Store) Tell(ctx context.Context, news []store.News) error {
	for _, n := range news {
		if _, err := s.write.ExecContext(ctx, `SELECT pg_notify($1, $2)`, channel, s.sender+" "+string(n.Kind)+" "+n.ID); err != nil {
			return fmt.Errorf("tell other servers of a change: %w", explain(err))
		}
	}
	return nil
}

// Hear implements store.Shared: it listens on a connection of its own, and connects again
// when that breaks.
func (s *Store) Hear(ctx context.Context, heard func(store.News)) error {
	const again = 2 * time.Second
	broken := false
	for {
		err := s.listen(ctx, func() {
			if broken {
				heard(store.News{}) // what was told meanwhile is lost
			}
			broken = false
		}, heard)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !broken {
			s.log.Warn("news of other servers interrupted", "err", explain(err))
		}
		broken = true
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listen hears on one connection until it breaks. ready is called once it listens.
func (s *Store) listen(ctx context.Context, ready func(), heard func(store.News)) (err error) {
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
		parts := strings.SplitN(note.Payload, " ", 3)
		if len(parts) == 3 && parts[0] != s.sender {
			heard(store.News{Kind: store.Kind(parts[1]), ID: parts[2]})
		}
	}
}
