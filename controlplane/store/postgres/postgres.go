// Package postgres keeps the control plane's state in a PostgreSQL database, which
// several servers may share.
//
// It owns the connections, the migrations, what PostgreSQL says in its own way, and how
// servers on one database tell each other of writes. It never decides what a filter
// means: package tables does.
package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/tables"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options says which database to use.
type Options struct {
	// URL names it: postgres://user:password@host:port/database?sslmode=…. Required.
	URL string
	// Conns is how many connections are open at most; 0 means 16.
	Conns int
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
}

// Store keeps documents, events, and settings in PostgreSQL. It fulfils store.Store and
// store.Shared.
type Store struct {
	tables.Store
	read, write *sql.DB
	config      *pgx.ConnConfig
	sender      string // the name of this server in notifications
	log         *slog.Logger
}

var (
	_ store.Store  = (*Store)(nil)
	_ store.Shared = (*Store)(nil)
)

// Open connects to the database and brings its tables up to date; servers that open it
// at the same time do so one after the other. The database itself must exist.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Conns <= 0 {
		opts.Conns = 16
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	config, err := pgx.ParseConfig(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("open the database: its URL must be like postgres://user:password@host:5432/name: %w", withoutPassword(err))
	}
	config.RuntimeParams["application_name"] = "clearml-serving"
	config.RuntimeParams["timezone"] = "UTC"
	// A search with a pattern that takes for ever must not hold a connection for ever.
	limited := config.Copy()
	limited.RuntimeParams["statement_timeout"] = "60000"
	// How many documents have a value differs too much for one plan: whoever asks for what
	// none has would look at all of them.
	limited.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	s := &Store{
		config: config, sender: rand.Text(), log: opts.Logger,
		read: pool(limited, opts.Conns), write: pool(config, max(opts.Conns/2, 2)),
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err == nil {
		err = tables.Migrate(ctx, goose.DialectPostgres, s.write, migrations, false, goose.WithSessionLocker(locker))
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", Name(opts.URL), errors.Join(explain(err), s.Close()))
	}
	s.Store = tables.New(tables.Options{
		Read: s.read, Write: s.write, Export: s.write, Dialect: dialect{},
		Snapshot: &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
	})
	return s, nil
}

func pool(config *pgx.ConnConfig, conns int) *sql.DB {
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// Name is the URL of a database without its password, for people and logs.
func Name(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "postgres://…"
	}
	return u.Redacted()
}

// withoutPassword is the reason behind an error of parsing a URL; the error itself
// repeats the URL.
func withoutPassword(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return errors.New("it can't be read")
}

// Close implements store.Store.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }
