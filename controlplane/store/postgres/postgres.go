// Package postgres stores the control plane's state in a PostgreSQL database, which several
// servers may share.
//
// It owns the connections, the migrations, PostgreSQL's dialect, and the notifications between
// servers on one database. Package tables owns the meaning of filters.
package postgres

import (
	"cmp"
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

// Options are the address and the limits of the database.
type Options struct {
	// URL is the address: postgres://user:password@host:port/database?sslmode=…. Required.
	URL string
	// Conns is the maximal number of open connections; 0 means 16.
	Conns int
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
}

// Store stores documents, events, and settings in PostgreSQL. It implements store.Store and
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

// Open connects to the database, which must exist, and migrates its tables. Servers that open
// it at the same time do so one after the other.
func Open(ctx context.Context, opts Options) (*Store, error) {
	opts.Conns = cmp.Or(opts.Conns, 16)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	config, err := pgx.ParseConfig(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("open the database: its URL must be like postgres://user:password@host:5432/name: %w", withoutPassword(err))
	}
	config.RuntimeParams["application_name"] = "clearml-serving"
	config.RuntimeParams["timezone"] = "UTC"
	// A search with a slow pattern must not hold a connection for long.
	limited := config.Copy()
	limited.RuntimeParams["statement_timeout"] = "60000"
	// The number of documents with a value differs too much for one plan: a query for a value
	// of no document would read all of them.
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

// Name is the URL of a database without its password, for messages and logs.
func Name(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "postgres://…"
	}
	return u.Redacted()
}

// withoutPassword is the cause of an error of parsing a URL; the error itself contains the
// URL.
func withoutPassword(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return errors.New("it cannot be parsed")
}

// Close implements store.Store.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }
