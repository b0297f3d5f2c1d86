// Package sqlite keeps the control plane's state in one SQLite file.
//
// It owns that file, the lock beside it (one process at a time), the migrations, and what
// SQLite says in its own way. What is committed survives the death of the process at any
// moment (write-ahead log). It never decides what a filter means: package tables does.
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

// readers is how many queries may run at once beside the one writer.
const readers = 4

// Store keeps documents, events, and settings in a SQLite file. It fulfils store.Store.
type Store struct {
	tables.Store
	write *sql.DB // one connection: SQLite knows one writer at a time
	read  *sql.DB

	written atomic.Uint64 // transactions
	lock    *os.File
}

var _ store.Store = (*Store)(nil)

// Open opens the database file, makes it when it is missing, and brings its tables up
// to date. It returns store.ErrInUse when another process has it open, and
// store.ErrReadOnly or store.ErrFull when it can't be written.
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
	// Made here rather than by SQLite, so that nobody else may read it; the files that
	// SQLite puts beside it take over its permissions.
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
	s.read.SetConnMaxLifetime(30 * time.Minute) // a new one knows the newest statistics
	s.Store = tables.New(tables.Options{Read: s.read, Write: s.write, Dialect: dialect{}})
	return s, nil
}

// OpenBeside opens a database for Export only, while a server may be working on it. Its
// tables must be of this program's version: it changes nothing.
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

// dsn names the file and what each connection is set to. NORMAL flushes at checkpoints
// and not at each commit: a killed process loses nothing, a power cut at most the last
// commits, and never the consistency.
func dsn(path, more string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	file := url.URL{Scheme: "file", Path: path}
	return file.String() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-16000)" + more
}

// Tx implements store.Store. Now and then it lets the planner see what has become of the
// tables since it looked last.
func (s *Store) Tx(ctx context.Context, change func(store.Tx) error) error {
	if err := s.Store.Tx(ctx, change); err != nil {
		return err
	}
	if s.written.Add(1)%optimizeEvery == 0 {
		_ = optimize(context.WithoutCancel(ctx), s.write) // it is for speed only
	}
	return nil
}

// optimizeEvery is after how many transactions the planner looks again.
const optimizeEvery = 5000

// optimize has the planner count everything when there are twice as many documents as
// it believes, or half as many. All lie in few kinds, so a sample says little: by one
// a kind holds some hundreds of them, and every way to find them seems as good as
// the others.
func optimize(ctx context.Context, db *sql.DB) error {
	var there, believed int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM documents").Scan(&there); err != nil {
		return err
	}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'").Scan(&tables); err != nil {
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
	// Of events, of which there may be many more, a sample does.
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
