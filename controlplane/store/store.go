// Package store is the contract between the embedded control plane and its database:
// documents of a few kinds, found by a small filter language, the events of tasks, and a few
// settings, all changed in serialised transactions.
//
// It owns the contract (Store), the document (Doc), and the meaning of a filter
// (Expr and its Match); the adapters below it, named after the database, own tables
// and SQL. It does not know the ClearML protocol, users, or HTTP.
package store

import (
	"context"
	"errors"
	"time"
)

// The errors of a store that callers distinguish.
var (
	// ErrNotFound: no document has the kind and id.
	ErrNotFound = errors.New("not found")
	// ErrExists: a document of the kind and id exists.
	ErrExists = errors.New("exists already")
	// ErrInUse: another process has the database open.
	ErrInUse = errors.New("in use by another process")
	// ErrFull: the disk is full; nothing of the transaction was stored.
	ErrFull = errors.New("disk full")
	// ErrReadOnly: the database cannot be written.
	ErrReadOnly = errors.New("read-only")
	// ErrUnavailable: the database cannot be reached at present.
	ErrUnavailable = errors.New("database not reached")
	// ErrTooLong: a name, a comment, a tag, or the name of a metric is too long for the
	// database.
	ErrTooLong = errors.New("text too long")
	// ErrTooLarge: a document would become too large.
	ErrTooLarge = errors.New("document too large")
	// ErrTooMuch: a transaction or a query exceeded its time; nothing of it was stored.
	ErrTooMuch = errors.New("too much for one transaction")
)

// Kind names a collection of documents.
type Kind string

// The kinds of documents of the control plane.
const (
	Task       Kind = "task"
	Model      Kind = "model"
	Project    Kind = "project"
	Queue      Kind = "queue"
	User       Kind = "user"
	Company    Kind = "company"
	Credential Kind = "credential"
	// ConfigurationEdit documents are the history of tasks' configurations.
	ConfigurationEdit Kind = "configuration_edit"
	// Scroll documents are the positions of clients in lists.
	Scroll Kind = "scroll"
	// Worker documents are machines that run tasks.
	Worker Kind = "worker"
	// EndedSession documents are sessions that were logged out.
	EndedSession Kind = "ended_session"
)

// Store stores the control plane's state. It is safe for use by many goroutines.
type Store interface {
	// Reader sees what was committed before the call.
	Reader
	// Tx runs change in one transaction: all of its writes are stored if it returns nil, none
	// if it returns an error, which is then returned unchanged. Transactions run as if one
	// after the other, so a read inside is current until the end. change may be called again
	// if the database requires it: outside it may only set variables, each time anew. It
	// must not use the Store itself.
	Tx(ctx context.Context, change func(Tx) error) error
	// Export calls each with the content of a snapshot: settings, then documents and events
	// in the order of insertion. It does not block other calls.
	Export(ctx context.Context, each func(Record) error) error
	// Import stores records of an Export until next returns io.EOF: all or, on an error,
	// none. It returns ErrExists if the database has documents.
	Import(ctx context.Context, next func() (Record, error)) error
	// Close closes the database. It is called once, after all other calls.
	Close() error
}

// Record is a setting, a document, or an event: exactly one of the fields is set.
type Record struct {
	Setting  *Setting  `json:"setting,omitempty"`
	Document *Document `json:"document,omitempty"`
	Event    *Event    `json:"event,omitempty"`
}

// Setting is a key with its value.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Document is a document with its kind.
type Document struct {
	Kind Kind `json:"kind"`
	Doc  Doc  `json:"doc"`
}

// Shared is a Store whose database several servers use at the same time.
type Shared interface {
	Store
	// Tell notifies the other servers that something was written.
	Tell(ctx context.Context) error
	// Hear calls heard when another server has written, until ctx ends, whose error it
	// returns. It restores broken connections, and then calls heard once, since
	// notifications may be lost. heard must not block.
	Hear(ctx context.Context, heard func()) error
}

// Reader reads documents, events, and settings. The returned documents belong to the caller.
type Reader interface {
	// Get returns one document, or ErrNotFound.
	Get(ctx context.Context, kind Kind, id string) (Doc, error)
	// Query returns the documents of a kind that match, in order, without duplicates.
	Query(ctx context.Context, kind Kind, q Query) ([]Doc, error)
	// Count returns how many documents of a kind match; nil matches all.
	Count(ctx context.Context, kind Kind, where Expr) (int, error)
	// Distinct returns the different texts in a field of the matching documents, sorted. Each
	// element of a list counts.
	Distinct(ctx context.Context, kind Kind, field Path, where Expr) ([]string, error)
	// Events returns the matching events, in order.
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	// CountEvents returns how many events match, whatever Limit and Offset say.
	CountEvents(ctx context.Context, q EventQuery) (int, error)
	// Setting returns the value of a key, or ErrNotFound.
	Setting(ctx context.Context, key string) (string, error)
}

// Tx reads and writes within one transaction, and sees its own writes. It is valid only in the
// call of change, on its goroutine.
type Tx interface {
	Reader
	// Insert stores a new document under its "id", or returns ErrExists.
	Insert(ctx context.Context, kind Kind, doc Doc) error
	// Put replaces the document with the same "id", or returns ErrNotFound.
	Put(ctx context.Context, kind Kind, doc Doc) error
	// Delete removes a document, or returns ErrNotFound. It does not remove events.
	Delete(ctx context.Context, kind Kind, id string) error
	// AppendEvents stores events in the order given. An event with a stored ID replaces that
	// event and keeps its place.
	AppendEvents(ctx context.Context, events []Event) error
	// DeleteEvents removes the events that match, whatever Limit and Offset say, and
	// returns how many there were.
	DeleteEvents(ctx context.Context, q EventQuery) (int, error)
	// ExpireEvents removes events whose Timestamp is before a time in milliseconds, the
	// oldest first and at most limit of them, and returns how many there were.
	ExpireEvents(ctx context.Context, before int64, limit int) (int, error)
	// SetSetting stores the value of a key.
	SetSetting(ctx context.Context, key, value string) error
}

// Query says which documents to return. The zero value returns all, oldest first.
type Query struct {
	// Where is what they must match; nil matches all.
	Where Expr
	// Order sorts them; documents without the field come last, whatever the direction.
	// Ties are broken by id; without Order they come as they were inserted.
	Order []Order
	// From leaves out the documents at and before this place of the order. It needs an Order.
	// Unlike that of an Offset, its cost does not depend on the place.
	From *Place
	// Backwards returns the last documents, or the last before From, in the same order.
	Backwards bool
	// Offset is the number of documents to leave out at the start.
	Offset int
	// Limit is the maximal number to return; 0 means all.
	Limit int
}

// Place is a place in an order: that of a document with these values.
type Place struct {
	// Keys are the values of the order's fields; nil for a missing one.
	Keys []any
	ID   string
}

// Order sorts by one field.
type Order struct {
	Path Path
	Desc bool
}

// Update changes one document in its own transaction, so that no concurrent change is lost. It
// returns ErrNotFound if there is none, and change's error unchanged; nothing is stored then.
// change may be called again, see Store.Tx.
func Update(ctx context.Context, s Store, kind Kind, id string, change func(Doc) error) error {
	return s.Tx(ctx, func(tx Tx) error {
		doc, err := tx.Get(ctx, kind, id)
		if err != nil {
			return err
		}
		if err := change(doc); err != nil {
			return err
		}
		return tx.Put(ctx, kind, doc)
	})
}

// IfThere turns ErrNotFound into no document: IfThere(s.Get(…)).
func IfThere(doc Doc, err error) (Doc, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return doc, err
}

// DeleteFound removes the documents that a query returns.
func DeleteFound(ctx context.Context, tx Tx, kind Kind, q Query) error {
	found, err := tx.Query(ctx, kind, q)
	if err != nil {
		return err
	}
	for _, doc := range found {
		if err := tx.Delete(ctx, kind, doc.ID()); err != nil {
			return err
		}
	}
	return nil
}

// Expire removes documents whose last_update is before a time, the oldest first and a few at
// a time, so that other writers do not wait long.
func Expire(ctx context.Context, tx Tx, kind Kind, before time.Time) error {
	updated := Path{"last_update"}
	return DeleteFound(ctx, tx, kind, Query{
		Where: Compare{Path: updated, Op: Less, Value: FormatTime(before)}, Order: []Order{{Path: updated}}, Limit: 100,
	})
}

// Keep replaces a document, or inserts it and expires old ones of its kind, see Expire.
func Keep(ctx context.Context, tx Tx, kind Kind, doc Doc, before time.Time) error {
	err := tx.Put(ctx, kind, doc)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := Expire(ctx, tx, kind, before); err != nil {
		return err
	}
	return tx.Insert(ctx, kind, doc)
}

// Event is one report of a task or model: a log line, a scalar, a plot.
type Event struct {
	// ID identifies the event: a second one with the same ID replaces it. Never empty.
	ID string `json:"id"`
	// Task is the id of the task or model that reported.
	Task string `json:"task"`
	// Type is the kind of event in ClearML's words, such as "log".
	Type string `json:"type"`
	// Metric and Variant name the series; empty for log lines.
	Metric  string `json:"metric,omitempty"`
	Variant string `json:"variant,omitempty"`
	// Iter is the iteration reported for.
	Iter int64 `json:"iter"`
	// Timestamp is the time of the report in milliseconds since 1970.
	Timestamp int64 `json:"timestamp"`
	// Seq is the position in the order of insertion, set by the store; a cursor.
	Seq int64 `json:"-"`
	// Body is the whole event as clients get it.
	Body Doc `json:"body"`
}

// EventQuery says which events to return. An empty field, except Tasks, is no condition.
type EventQuery struct {
	// Tasks are the tasks and models of the events; without one there are none.
	Tasks   []string
	Types   []string
	Metric  string
	Variant string
	// From and To are times in milliseconds, both inclusive; 0 means open.
	From, To int64
	// After continues after the event with these Timestamp and Seq, in the same order.
	After *EventCursor
	// ByIter orders by metric, variant, and iteration instead of by time.
	ByIter bool
	// Desc reverses the order by time: newest first.
	Desc bool
	// Offset is the number of events to leave out at the start.
	Offset int
	// Limit is the maximal number to return; 0 means all.
	Limit int
}

// EventCursor is a place in the order of events by time.
type EventCursor struct{ Timestamp, Seq int64 }
