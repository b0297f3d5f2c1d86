// Package sqlite stores the control plane's state in one SQLite file.
//
// It owns that file, the lock beside it (one process at a time), the migrations, and SQLite's
// dialect. Commits survive the death of the process at any moment (write-ahead log). Package
// tables owns the meaning of filters.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/tables"
)

//go:embed migrations/*.sql
var steps embed.FS

// readers is the number of queries that may run at once beside the one writer.
const readers = 4

// Store stores documents, events, and settings in a SQLite file. It implements store.Store.
type Store struct {
	tables.Store
	write *sql.DB // one connection: SQLite allows one writer at a time
	read  *sql.DB

	written atomic.Uint64 // transactions
	lock    *os.File
}

var _ store.Store = (*Store)(nil)

// Open opens the database file, creates it if it is missing, and migrates its tables. It
// returns store.ErrInUse if another process has it open, and store.ErrReadOnly or
// store.ErrFull if it cannot be written.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open database %s: %w", path, explain(errors.Join(err, s.Close())))
		}
	}()
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if s.lock, err = acquire(path + ".lock"); err != nil {
		return nil, err
	}
	// Created here and not by SQLite, with permissions for this user only; the files that
	// SQLite creates beside it get the same.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	if err := registerRegexp(); err != nil {
		return nil, err
	}
	if s.write, err = sql.Open("sqlite", dsn(path, "&_txlock=immediate")); err != nil {
		return nil, err
	}
	s.write.SetMaxOpenConns(1)
	if err := tables.Migrate(ctx, goose.DialectSQLite3, s.write, steps, false); err != nil {
		return nil, err
	}
	if err := optimize(ctx, s.write); err != nil {
		return nil, err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, "&_pragma=query_only(1)")); err != nil {
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.read.SetConnMaxLifetime(30 * time.Minute) // new connections read the newest statistics
	s.Store = tables.New(tables.Options{Read: s.read, Write: s.write, Dialect: dialect{}})
	return s, nil
}

// OpenBeside opens a database for Export only, while a server may use it. It changes nothing,
// so the tables must have this program's version.
func OpenBeside(ctx context.Context, path string) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("read database %s: %w", path, explain(errors.Join(err, s.Close())))
		}
	}()
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if err := registerRegexp(); err != nil {
		return nil, err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, "&_pragma=query_only(1)")); err != nil {
		return nil, err
	}
	if err := tables.Migrate(ctx, goose.DialectSQLite3, s.read, steps, true); err != nil {
		return nil, err
	}
	s.Store = tables.New(tables.Options{Read: s.read, Write: s.read, Dialect: dialect{}})
	return s, nil
}

// dsn has the file and the settings of each connection. NORMAL flushes at checkpoints and not
// at each commit: a killed process loses nothing, a power failure at most the last commits,
// and never the consistency.
func dsn(path, more string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	file := url.URL{Scheme: "file", Path: path}
	return file.String() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-16000)" + more
}

// Tx implements store.Store. From time to time it updates the planner's statistics.
func (s *Store) Tx(ctx context.Context, change func(store.Tx) error) error {
	if err := s.Store.Tx(ctx, change); err != nil {
		return err
	}
	if s.written.Add(1)%optimizeEvery == 0 {
		_ = optimize(context.WithoutCancel(ctx), s.write) // it is for speed only
	}
	return nil
}

// optimizeEvery is the number of transactions between checks of the statistics.
const optimizeEvery = 5000

// optimize updates the planner's statistics if there are twice as many documents as they say,
// or half as many. It counts everything: there are few kinds, so by a sample a kind seems to
// have some hundreds of documents, and all plans seem equally good.
func optimize(ctx context.Context, db *sql.DB) error {
	var there, believed, tables int64
	const counts = "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1')"
	if err := db.QueryRowContext(ctx, counts).Scan(&there, &tables); err != nil {
		return err
	}
	if tables > 0 { // the first number of each index is how many rows there were
		const rows = "SELECT coalesce(max(CAST(stat AS INTEGER)), 0) FROM sqlite_stat1 WHERE tbl = 'documents'"
		if err := db.QueryRowContext(ctx, rows).Scan(&believed); err != nil {
			return err
		}
	}
	if there <= 2*believed && 2*there >= believed {
		return nil
	}
	// A sample is sufficient for events, which may be many more.
	_, err := db.ExecContext(ctx, "PRAGMA analysis_limit = 1000; ANALYZE; PRAGMA analysis_limit = 0; ANALYZE documents; ANALYZE terms")
	return err
}

// Close implements store.Store.
func (s *Store) Close() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		if s.lock != nil {
			_ = optimize(context.Background(), s.write) // it is for speed only
		}
		errs = append(errs, s.write.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
