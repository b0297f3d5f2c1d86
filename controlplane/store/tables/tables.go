// Package tables answers the store's contract in SQL, the same for every database that
// can hold the tables: documents, bodies, terms, events, and settings.
//
// It owns the queries, and what of a filter is said in SQL; the adapters beside it own
// the connections, the migrations, and what differs (Dialect). It never decides what a
// filter means: what SQL can't say exactly is left to store.Expr's Match.
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

// Dialect is what differs between databases. Its methods are called from many goroutines.
type Dialect interface {
	// Mark returns the n-th parameter mark of a statement, n from 1.
	Mark(n int) string
	// Explain adds to an error what a caller decides by, and for a person what to do.
	Explain(err error) error
	// Text returns a text as a column can hold it.
	Text(text string) string
	// Pattern says in SQL, exactly, that a pattern is found in a text column; false when
	// the database can't.
	Pattern(column string, pattern *regexp.Regexp) (Condition, bool)
	// Analyze is run after much was written into empty tables.
	Analyze() string
	// Begin is run first in each writing transaction; "" is nothing.
	Begin() string
}

// Condition is a piece of SQL, with a ? for each argument.
type Condition struct {
	SQL  string
	Args []any
}

// Options says what a Store works on.
type Options struct {
	// Read answers queries, Write runs transactions; they may be the same. Required.
	Read, Write *sql.DB
	// Dialect is that of the database. Required.
	Dialect Dialect
	// Export is where everything is read from; nil is Read. A long time may pass in it.
	Export *sql.DB
	// Snapshot makes several queries of one transaction see the same state; nil when
	// every transaction does.
	Snapshot *sql.TxOptions
}

// Store is the contract but for Close, which is the adapter's.
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

// maxHold is how long a transaction may keep the others waiting before it is undone, and a
// query a connection: far more than what calls are meant to take. It is a variable for
// tests only.
var maxHold = time.Minute

// within runs a transaction of at most so long.
func (s Store) within(ctx context.Context, hold time.Duration, change func(store.Tx) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", s.dialect.Explain(err))
	}
	defer func() { _ = tx.Rollback() }()         // does nothing after the commit; keeps a panic from holding the writer
	if first := s.dialect.Begin(); first != "" { // waits for others, which is no part of the hold
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
		return fmt.Errorf("transaction undone after %s: %w (%w)", hold, store.ErrTooMuch, err)
	}
	return err
}

// Export implements store.Store.
func (s Store) Export(ctx context.Context, each func(store.Record) error) error {
	return reader{db: s.export, dialect: s.dialect, snapshot: s.snapshot}.inSnapshot(ctx, func(r reader) error {
		return r.export(ctx, each)
	})
}

// conn is what a transaction and a pool of connections have in common.
type conn interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// reader answers the reading half of the contract, inside a transaction and outside.
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

// query, queryRow, and exec are those of the database for SQL written with ? marks. No
// statement of ours has a question mark in a text.
func (r reader) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return r.db.QueryContext(ctx, r.marked(text), args...)
}

func (r reader) queryRow(ctx context.Context, text string, args ...any) *sql.Row {
	return r.db.QueryRowContext(ctx, r.marked(text), args...)
}

func (w writer) exec(ctx context.Context, text string, args ...any) (sql.Result, error) {
	return w.tx.ExecContext(ctx, w.marked(text), args...)
}

// marked puts the database's parameter marks in the place of question marks.
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
