// Package sqlite keeps the control plane's state in one SQLite file.
//
// It owns that file and the lock beside it: one process at a time. What is committed
// survives the death of the process at any moment (write-ahead log). It never decides
// what a filter means: what SQL can't say exactly is left to store.Expr's Match.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"

	"clearmlserving/controlplane/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many queries may run at once beside the one writer.
const readers = 4

// Store keeps documents, events, and settings in a SQLite file. It fulfils store.Store.
type Store struct {
	reader
	write *sql.DB // one connection: SQLite knows one writer at a time
	read  *sql.DB
	lock  *os.File
}

var _ store.Store = (*Store)(nil)

// Open opens the database file, makes it when it is missing, and brings its tables up
// to date. It returns store.ErrInUse when another process has it open, and
// store.ErrReadOnly or store.ErrFull when it can't be written.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, explain(err))
	}
	return s, nil
}

func open(ctx context.Context, path string) (_ *Store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	lock, err := acquire(path + ".lock")
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
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
	if err := migrate(ctx, s.write); err != nil {
		return nil, err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, "&_pragma=query_only(1)")); err != nil {
		return nil, err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.reader = reader{s.read}
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

// migrate brings the tables to the newest form, each step in its own transaction.
func migrate(ctx context.Context, db *sql.DB) error {
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, steps)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	known := int64(0)
	for _, step := range provider.ListSources() {
		known = max(known, step.Version)
	}
	at, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the tables: %w", err)
	}
	if at > known {
		return fmt.Errorf("its tables are of version %d, this program knows up to %d: use the newer program that wrote it", at, known)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the tables up to date: %w", err)
	}
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Tx implements store.Store.
func (s *Store) Tx(ctx context.Context, change func(store.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", explain(err))
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit; keeps a panic from holding the writer
	if err := change(writer{reader{tx}, tx}); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", explain(err))
	}
	return nil
}
