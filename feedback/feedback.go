// Package feedback joins what was predicted with what turned out to be true. It owns the kept
// predictions and the truths of one instance, in one SQLite file, and the measures of quality that
// follow from them. Predictions are kept after their answers, by one goroutine; truths are stored
// before they are acknowledged.
package feedback

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/serving"
)

const (
	queueLength = 4096     // observed requests that wait to be kept
	queueBytes  = 32 << 20 // of their bodies
	batchLength = 1000     // of one transaction
	tidyEvery   = time.Minute
	windowRows  = 1000 // the newest joined rows, which the gauges are computed of
)

// Options of a Store.
type Options struct {
	// Dir is the folder of the store. Instances that share it have a file each.
	Dir string
	// Peers returns the other instances of the service, nil: there are none.
	Peers func(ctx context.Context) ([]Peer, error)
	// Client and Identity are for requests to other instances.
	Client   Doer
	Identity serving.Identity
	Logger   *slog.Logger
	now      func() time.Time
}

// Store keeps the predictions and truths of one instance.
type Store struct {
	o       Options
	queue   chan serving.Observed
	pending atomic.Int64 // bytes in the queue
	table   atomic.Pointer[table]
	planned chan struct{} // has one signal: there is a plan
	offered chan struct{} // has one signal: truths wait for other instances
	peers   peers

	mu sync.Mutex // guards writing; it is held while the disk is written
	// db is nil while the store cannot be opened, or nothing is kept. Only the holder of mu changes it.
	db atomic.Pointer[database]
	// problem is why the store cannot be used now, nil if it can.
	problem atomic.Pointer[string]

	dropping sync.Mutex // guards dropped
	// dropped counts predictions that were not kept since the start, because the queue was full or
	// the store could not be written.
	dropped map[serving.EndpointURL]uint64
}

// table is what a plan says about feedback. It is never changed.
type table struct {
	options map[serving.EndpointURL]*serving.Feedback
	names   serving.Names
}

// New returns a Store. It opens its file when the first endpoint keeps predictions, or if there is one.
func New(o Options) *Store {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	s := &Store{o: o, queue: make(chan serving.Observed, queueLength), planned: make(chan struct{}, 1), offered: make(chan struct{}, 1), dropped: map[serving.EndpointURL]uint64{}}
	s.table.Store(&table{})
	return s
}

// Follow sets the endpoints that keep predictions.
func (s *Store) Follow(plan serving.Plan) {
	next := &table{options: map[serving.EndpointURL]*serving.Feedback{}, names: plan.Names()}
	for url, o := range plan.Options {
		if o.Feedback != nil {
			next.options[url] = o.Feedback
		}
	}
	s.table.Store(next)
	select {
	case s.planned <- struct{}{}:
	default:
	}
}

// start opens the store if an endpoint keeps predictions, or did so before: those are still to be
// removed when their time is over.
func (s *Store) start() {
	if len(s.table.Load().options) == 0 && !fileIn(s.o.Dir) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open()
}

// open opens the store, unless it is open. s.mu is held.
func (s *Store) open() {
	if db := s.db.Load(); db != nil {
		if !db.gone() {
			return
		}
		s.o.Logger.Error("feedback file was removed, a new one is begun", "file", db.path)
		s.db.Store(nil)
		db.close()
	}
	db, err := openFree(s.o.Dir, s.o.now, s.o.Logger)
	if err != nil {
		s.fails(err)
		return
	}
	s.db.Store(db)
	s.works()
	s.o.Logger.Info("feedback file opened", "file", db.path)
}

// fails records that the store cannot be used. s.mu is held.
func (s *Store) fails(err error) {
	text := err.Error()
	if s.problem.Swap(&text) == nil {
		s.o.Logger.Warn("feedback cannot be stored", "err", err)
	}
}

func (s *Store) works() {
	if s.problem.Swap(nil) != nil {
		s.o.Logger.Info("feedback can be stored again")
	}
}

// option returns the option of the requested endpoint, or else of the one that answered.
func (t *table) option(asked, answered serving.EndpointURL) *serving.Feedback {
	if f := t.options[asked]; f != nil {
		return f
	}
	return t.options[answered]
}

// Share implements the data plane's Observer: every request of an endpoint with the option is observed.
func (s *Store) Share(o serving.EndpointOptions) float64 {
	if o.Feedback == nil {
		return 0
	}
	return 1
}

// Admits implements the data plane's Observer.
func (s *Store) Admits(url serving.EndpointURL, size int64) bool {
	if size <= maxObserved && len(s.queue) < cap(s.queue) && s.pending.Load()+size <= queueBytes {
		return true
	}
	s.drop(url, 1)
	return false
}

const maxObserved = 8 << 20 // bytes of one request and its answer

// Observe implements the data plane's Observer. It never blocks.
func (s *Store) Observe(o serving.Observed) {
	if o.Status >= 400 {
		return // not a prediction
	}
	size := sizeOf(o)
	s.pending.Add(size)
	select {
	case s.queue <- o:
	default:
		s.pending.Add(-size)
		s.drop(o.Answerer(), 1)
	}
}

func sizeOf(o serving.Observed) int64 { return int64(len(o.Body) + len(o.Answer)) }

func (s *Store) drop(url serving.EndpointURL, n uint64) {
	s.dropping.Lock()
	defer s.dropping.Unlock()
	s.dropped[url] += n
}

// Run keeps predictions until ctx ends, and then the rest of the queue.
func (s *Store) Run(ctx context.Context) {
	defer s.close()
	var offers sync.WaitGroup
	if s.o.Peers != nil {
		offers.Go(func() { s.offer(ctx) })
	}
	defer offers.Wait()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		select {
		case first := <-s.queue:
			s.keep([]serving.Observed{first})
		case <-s.planned:
			s.start()
		case <-tidy.C:
			s.start()
			s.tidy()
		case <-ctx.Done():
			s.keep(nil)
			return
		}
	}
}

func (s *Store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if db := s.db.Swap(nil); db != nil {
		db.close()
	}
}

// take adds waiting requests to a batch.
func (s *Store) take(batch []serving.Observed) []serving.Observed {
	for len(batch) < batchLength {
		select {
		case o := <-s.queue:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// keep stores the predictions of a batch and of the waiting requests.
func (s *Store) keep(batch []serving.Observed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepWaiting(batch)
}

// keepWaiting stores the predictions of a batch and of the requests that wait now. Those that come
// meanwhile are left: they may come faster than they are stored, and feedback waits for s.mu, which is
// held.
func (s *Store) keepWaiting(batch []serving.Observed) {
	for left := len(batch) + len(s.queue); left > 0; {
		batch = s.take(batch)
		if len(batch) == 0 {
			return
		}
		s.keepBatch(batch)
		left -= len(batch)
		batch = nil
	}
}

// keepBatch stores predictions. s.mu is held.
func (s *Store) keepBatch(batch []serving.Observed) {
	for _, o := range batch {
		s.pending.Add(-sizeOf(o))
	}
	t := s.table.Load()
	s.open()
	err := s.write(func(tx *tx) error {
		for _, o := range batch {
			if f := t.option(o.Endpoint, o.Answerer()); f != nil {
				if err := tx.keep(o, f); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		for _, o := range batch {
			s.drop(o.Answerer(), 1)
		}
	}
}

// write runs a transaction. s.mu is held.
func (s *Store) write(change func(*tx) error) error {
	db := s.db.Load()
	if db == nil {
		why := "no endpoint keeps predictions"
		if problem := s.problem.Load(); problem != nil {
			why = *problem
		}
		return &unavailableError{why}
	}
	err := db.write(change)
	if code := sqliteCode(err); code == damagedCode || code == foreignCode {
		s.o.Logger.Error("feedback file set aside, because it is damaged", "file", db.path, "err", err)
		s.db.Store(nil)
		db.close()
		err = errors.Join(err, setAside(db.path)) // the next use begins a new one
	}
	if _, refused := err.(*invalidError); err != nil && !refused { //nolint:errorlint // it is never wrapped
		s.fails(err)
		return &unavailableError{err.Error()}
	}
	if err == nil {
		s.works()
	}
	return err
}

// tidy removes what exceeds its time or size.
func (s *Store) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db.Load() == nil {
		return
	}
	t := s.table.Load()
	if err := s.write(func(tx *tx) error { return tx.tidy(t) }); err != nil {
		s.o.Logger.Debug("feedback store not tidied", "err", err)
	}
}

// unavailableError means that the store cannot be written now.
type unavailableError struct{ why string }

func (e *unavailableError) Error() string { return "feedback cannot be stored now: " + e.why }

// invalidError means that the client's feedback cannot be accepted.
type invalidError struct{ text string }

func (e *invalidError) Error() string { return e.text }

// drops returns the counts of predictions that were not kept.
func (s *Store) drops() map[serving.EndpointURL]uint64 {
	s.dropping.Lock()
	defer s.dropping.Unlock()
	return maps.Clone(s.dropped)
}
