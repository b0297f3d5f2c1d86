// Package tables implements the store's contract in SQL, for every database with the tables
// documents, bodies, terms, events, and settings.
//
// It owns the queries, and the translation of filters to SQL; the adapters beside it own the
// connections, the migrations, and the differences (Dialect). store.Expr's Match defines the
// meaning of a filter, and evaluates what SQL cannot express exactly.
package tables

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"

	"clearmlserving/controlplane/store"
)

// Dialect is the difference between databases. Its methods are called from many goroutines.
type Dialect interface {
	// Mark returns the n-th parameter mark of a statement, n from 1.
	Mark(n int) string
	// Explain adds one of store's errors to an error, and what to do for the user.
	Explain(err error) error
	// Text returns a text in a form that a column can store.
	Text(text string) string
	// Pattern returns the exact SQL for a pattern that is found in a text column; false if
	// the database has none.
	Pattern(column string, pattern *regexp.Regexp) (Condition, bool)
	// Analyze is the statement to run after an import.
	Analyze() string
	// Begin is the first statement of each writing transaction, or "".
	Begin() string
}

// Condition is a piece of SQL, with a ? for each argument.
type Condition struct {
	SQL  string
	Args []any
}

// Options are the connections of a Store.
type Options struct {
	// Read answers queries, Write runs transactions; they may be the same. Required.
	Read, Write *sql.DB
	// Dialect is that of the database. Required.
	Dialect Dialect
	// Export is for exports, which may take long. Nil means Read.
	Export *sql.DB
	// Snapshot makes all queries of a transaction see the same state; nil if every
	// transaction does.
	Snapshot *sql.TxOptions
}

// Store implements the contract except Close, which the adapter does.
type Store struct {
	reader
	write, export *sql.DB
}

// New makes a Store on tables that are up to date.
func New(opts Options) Store {
	return Store{
		reader: reader{db: opts.Read, dialect: opts.Dialect, snapshot: opts.Snapshot},
		write:  opts.Write, export: cmp.Or(opts.Export, opts.Read),
	}
}

// Tx implements store.Store.
func (s Store) Tx(ctx context.Context, change func(store.Tx) error) error {
	return s.within(ctx, maxHold, change)
}

// maxHold is the maximal time of a transaction, after which it is rolled back, and of a query:
// far more than calls should take. It is a variable for tests only.
var maxHold = time.Minute

// within runs a transaction of at most the given time.
func (s Store) within(ctx context.Context, hold time.Duration, change func(store.Tx) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", s.dialect.Explain(err))
	}
	defer func() { _ = tx.Rollback() }()         // does nothing after the commit; after a panic it frees the writer
	if first := s.dialect.Begin(); first != "" { // it waits for others, which is not counted
		if _, err := tx.ExecContext(ctx, first); err != nil {
			return fmt.Errorf("begin transaction: %w", s.dialect.Explain(err))
		}
	}
	limit := time.AfterFunc(hold, func() { cancel(store.ErrTooMuch) })
	defer limit.Stop()
	if err = change(writer{reader{db: tx, dialect: s.dialect}, tx}); err == nil {
		if err = tx.Commit(); err == nil {
			return nil
		}
		err = fmt.Errorf("commit: %w", s.dialect.Explain(err))
	}
	if errors.Is(context.Cause(ctx), store.ErrTooMuch) {
		return fmt.Errorf("transaction rolled back after %s: %w (%w)", hold, store.ErrTooMuch, err)
	}
	return err
}

// Export implements store.Store.
func (s Store) Export(ctx context.Context, each func(store.Record) error) error {
	return reader{db: s.export, dialect: s.dialect, snapshot: s.snapshot}.inSnapshot(ctx, func(r reader) error {
		return r.export(ctx, each)
	})
}

// conn is a transaction or a pool of connections.
type conn interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// reader implements store.Reader, inside and outside of a transaction.
type reader struct {
	db       conn
	dialect  Dialect
	snapshot *sql.TxOptions
}

// writer is a transaction.
type writer struct {
	reader
	tx *sql.Tx
}

var _ store.Tx = writer{}

// query, queryRow, and exec are those of the database for SQL with ? marks. No statement here
// has a question mark in a text.
func (r reader) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return r.db.QueryContext(ctx, r.marked(text), args...)
}

func (r reader) queryRow(ctx context.Context, text string, args ...any) *sql.Row {
	return r.db.QueryRowContext(ctx, r.marked(text), args...)
}

func (w writer) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return w.tx.ExecContext(ctx, w.marked(text), args...)
}

// marked replaces question marks by the database's parameter marks.
func (r reader) marked(text string) string {
	var out []byte
	n := 0
	for i := range len(text) {
		if text[i] != '?' {
			out = append(out, text[i])
			continue
		}
		n++
		out = append(out, r.dialect.Mark(n)...)
	}
	return string(out)
}
