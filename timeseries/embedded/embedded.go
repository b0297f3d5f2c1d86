// Package embedded stores time series in this process, in Prometheus' own database, and evaluates
// PromQL on them with Prometheus' own engine.
//
// It never stops the program that contains it: a database that cannot be opened is repaired, or set
// aside, or opened later, and meanwhile queries and writes fail with timeseries.Unavailable.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
)

// The limits. They bound the memory: a query holds at most maxSamples of 16 bytes.
const (
	maxSamples   = 10_000_000
	maxQueries   = 4               // at a time; others wait
	queryTimeout = 2 * time.Minute // with the time in which it waits
	lookback     = 5 * time.Minute

	maxSeries    = 100_000 // in memory: those of the last hours; 3 to 4 kB each
	maxExemplars = 10_000  // in memory; the newest

	// late is how old a sample may be, compared with the newest, and early how far in the future.
	late  = time.Hour
	early = 10 * time.Minute

	// again is the time between two attempts to open the database.
	again = time.Minute
)

// Options are the place of the data and its bounds.
type Options struct {
	// Dir is the folder of the data; it is created. Required.
	Dir string
	// Retention is for how long samples are kept; 0 means 15 days.
	Retention time.Duration
	// MaxBytes is how much disk the data may use; 0 means 2 GiB. The oldest is removed first. The last
	// two to three hours are kept in any case.
	MaxBytes int64
	// Forward gets every batch too. Nil: none.
	Forward gather.Sink
	// Version is the version of this program, for status/buildinfo.
	Version string
	// Logger gets messages for operators; nil discards them.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Store is a database of time series. New makes one, and Run opens and closes it.
type Store struct {
	o        Options
	log      *slog.Logger
	parser   parser.Parser
	engine   *promql.Engine
	registry *prometheus.Registry
	metas    metas
	counts   counts
	origins  origins

	mu      sync.RWMutex       // guards db and failure; held for reading while db is used
	db      *tsdb.DB           // nil: not open
	failure error              // why not
	tried   chan struct{}      // closed after the first attempt to open
	folders []os.FileInfo      // of the open database; they belong to Run's goroutine
	broken  atomic.Bool        // a write to the log of the open database has failed
	unsafe  atomic.Bool        // chunks of the open database cannot be written: it must be closed, see writeChunks
	wake    chan struct{}      // Run looks at once
	series  atomic.Int64       // the bound of series, for tests
	running context.Context    //nolint:containedctx // ends running queries when the database is closed
	stop    context.CancelFunc // of running
}

// New makes a Store. It opens nothing.
func New(o Options) *Store {
	if o.Retention == 0 {
		o.Retention = 15 * 24 * time.Hour
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 2 << 30
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{o: o, log: o.Logger, registry: prometheus.NewRegistry(), parser: parser.NewParser(parser.Options{}), tried: make(chan struct{}), wake: make(chan struct{}, 1), failure: errOpening}
	s.running, s.stop = context.WithCancel(context.Background())
	s.series.Store(maxSeries)
	s.engine = promql.NewEngine(s.engineOptions())
	return s
}

func (s *Store) engineOptions() promql.EngineOpts {
	return promql.EngineOpts{
		Logger: slog.New(quiet{s.log.Handler()}), MaxSamples: maxSamples, Timeout: queryTimeout, LookbackDelta: lookback,
		ActiveQueryTracker: make(slots, maxQueries), EnableAtModifier: true, EnableNegativeOffset: true, Parser: s.parser,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
	}
}

var (
	errOpening = errors.New("the time series are being opened")
	errClosed  = errors.New("the time series are closed")
)

// Run opens the database, keeps it usable until ctx ends, and closes it. It is called at most once.
func (s *Store) Run(ctx context.Context) {
	defer func() {
		s.stop() // running queries end, so that the database can be closed
		if err := s.replace(nil, errClosed); err != nil {
			s.log.Warn("time series not closed", "err", err)
		}
	}()
	s.keep(ctx)
	close(s.tried)
	look, tryAgain := time.NewTicker(lookEvery), time.NewTicker(again)
	defer look.Stop()
	defer tryAgain.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			s.endGone(ctx)
			if s.db != nil && (s.removed() || s.broken.Load() || s.unsafe.Load()) {
				s.keep(ctx)
			}
		case <-s.wake:
			s.keep(ctx)
		case <-tryAgain.C:
			s.keep(ctx)
		}
	}
}

// keep opens the database if it is not open, and sets it aside if its clock was wrong. Only Run's
// goroutine changes db.
func (s *Store) keep(ctx context.Context) {
	switch {
	case s.db == nil:
	case s.removed():
		s.log.Error("time series begin again", "reason", "their folder was removed or replaced", "folder", s.o.Dir)
		s.leave()
	case s.unsafe.Load():
		s.log.Error("time series closed", "reason", "their chunks cannot be written: is the disk full?", "folder", s.o.Dir)
		s.leave()
	case s.broken.Load():
		// A record that was written in part hides those behind it at the next start. Opening repairs it.
		if !s.room() {
			return // until then, queries are answered
		}
		s.log.Warn("time series opened again", "reason", "a write to their log has failed")
		s.leave()
	case s.inFuture():
		s.log.Warn("time series set aside", "reason", "their newest sample is in the future, and hides those of now: the clock was set back", "newest", time.UnixMilli(s.db.Head().MaxTime()))
		s.leave()
		if err := errors.Join(s.setAside("wal", "wbl", "chunks_head", "chunk_snapshot"), s.dropFuture()); err != nil {
			s.log.Warn("time series of the future not set aside", "err", err)
		}
	default:
		return
	}
	before := s.failure
	var db *tsdb.DB
	err := s.mayOpen()
	if err == nil {
		db, err = s.open(ctx)
	}
	if err != nil && err.Error() != before.Error() {
		s.log.Error("time series cannot be opened", "effect", "samples are not stored and queries fail; retried every minute", "err", err)
	}
	s.broken.Store(false)
	s.unsafe.Store(false)
	s.folders = s.look()
	_ = s.replace(db, err) // there was none
}

// leave closes the database.
func (s *Store) leave() {
	if err := s.replace(nil, errOpening); err != nil {
		s.log.Debug("time series not closed", "err", err) // it may have no place to write to
	}
}

// look describes the folders that the open database writes to.
func (s *Store) look() (all []os.FileInfo) {
	for _, dir := range []string{s.o.Dir, filepath.Join(s.o.Dir, "wal")} {
		if info, err := os.Stat(dir); err == nil {
			all = append(all, info)
		}
	}
	return all
}

// removed reports whether something else has removed or replaced a folder of the open database, so that
// what is written is lost.
func (s *Store) removed() bool { return !slices.EqualFunc(s.folders, s.look(), os.SameFile) }

// replace exchanges the database when it is not used, and closes the one before. failure is why
// there is none.
func (s *Store) replace(db *tsdb.DB, failure error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.db
	s.db, s.failure = db, failure
	if before == nil {
		return nil
	}
	return guarded(before.Close)
}

// guarded calls a function of the database, which panics if it cannot write chunks. It releases its locks
// before.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return call()
}

// writeChunks writes the chunks that are complete. The database does so each minute in a goroutine of its own, and
// panics there if it cannot, for example on a full disk. So that is done here, where a panic is caught,
// right after the samples that complete a chunk; and after a failure the database is closed at once.
func (s *Store) writeChunks(db *tsdb.DB) {
	err := guarded(func() error {
		db.ForceHeadMMap()
		return nil
	})
	if err == nil {
		return
	}
	s.broken.Store(true)
	s.unsafe.Store(true)
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// inFuture reports whether the newest sample is of the future, so that samples of now are too old.
func (s *Store) inFuture() bool {
	return s.db.Head().NumSeries() > 0 && s.db.Head().MaxTime() > s.o.Now().Add(late+early).UnixMilli()
}

// opened returns the database for use until release.
func (s *Store) opened() (db *tsdb.DB, release func(), err error) {
	s.mu.RLock()
	if s.db == nil {
		defer s.mu.RUnlock()
		return nil, nil, timeseries.Errorf(timeseries.Unavailable, "%w", s.failure)
	}
	return s.db, s.mu.RUnlock, nil
}

// Opened waits until the first attempt to open has ended, and returns its error.
func (s *Store) Opened(ctx context.Context) error {
	select {
	case <-s.tried:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, release, err := s.opened()
	if err == nil {
		release()
	}
	return err
}

func (s *Store) tsdbOptions() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = s.o.Retention.Milliseconds()
	o.MaxBytes = s.o.MaxBytes
	// As Prometheus: blocks are merged up to a tenth of the retention.
	o.MaxBlockDuration = max(o.MinBlockDuration, min(o.RetentionDuration/10, (31*24*time.Hour).Milliseconds()))
	o.WALCompression = compression.Snappy
	o.EnableExemplarStorage, o.MaxExemplars = true, maxExemplars
	o.OutOfOrderTimeWindow = late.Milliseconds()
	return o
}

// Query implements timeseries.Querier.
func (s *Store) Query(ctx context.Context, expr string, at time.Time) (timeseries.Vector, error) {
	out := timeseries.Vector{}
	err := s.exec(ctx, func(db *tsdb.DB) (promql.Query, error) {
		return s.engine.NewInstantQuery(ctx, db, nil, expr, at)
	}, func(value parser.Value) error {
		switch v := value.(type) {
		case promql.Vector:
			for i := range v {
				out = append(out, sampleOf(&v[i]))
			}
		case promql.Scalar:
			out = append(out, &model.Sample{Metric: model.Metric{}, Value: model.SampleValue(v.V), Timestamp: model.Time(v.T)})
		default:
			return timeseries.Errorf(timeseries.BadData, "the expression is of type %q, and a vector or a scalar is needed", value.Type())
		}
		return nil
	})
	return out, err
}

// QueryRange implements timeseries.Querier.
func (s *Store) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (timeseries.Matrix, error) {
	if err := timeseries.CheckRange(start, end, step); err != nil {
		return nil, err
	}
	out := timeseries.Matrix{}
	err := s.exec(ctx, func(db *tsdb.DB) (promql.Query, error) {
		return s.engine.NewRangeQuery(ctx, db, nil, expr, start, end, step)
	}, func(value parser.Value) error {
		m, ok := value.(promql.Matrix)
		if !ok {
			return timeseries.Errorf(timeseries.Internal, "a range has a result of type %q", value.Type())
		}
		for _, series := range m {
			out = append(out, streamOf(series))
		}
		return nil
	})
	return out, err
}

// exec runs a query and passes its value on, which must not be kept.
func (s *Store) exec(ctx context.Context, prepare func(*tsdb.DB) (promql.Query, error), use func(parser.Value) error) error {
	db, release, err := s.opened()
	if err != nil {
		return err
	}
	defer release()
	q, err := prepare(db)
	if err != nil {
		return &timeseries.Error{Kind: timeseries.BadData, Err: err}
	}
	defer q.Close()
	ctx, cancel := s.until(ctx)
	defer cancel()
	result := q.Exec(ctx)
	if result.Err != nil {
		return &timeseries.Error{Kind: kindOf(result.Err), Err: result.Err}
	}
	return use(result.Value)
}

// until is ctx, but ends at the latest when the database is closed.
func (s *Store) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.running, cancel)
	return ctx, func() { stop(); cancel() }
}

// kindOf is the kind of an error of the engine.
func kindOf(err error) timeseries.Kind {
	var canceled promql.ErrQueryCanceled
	var timeout promql.ErrQueryTimeout
	var storage promql.ErrStorage
	switch {
	case errors.As(err, &timeout):
		return timeseries.Timeout
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return timeseries.Canceled
	case errors.As(err, &storage):
		return timeseries.Internal
	}
	return timeseries.Execution
}

// slots is the engine's limit of queries at a time.
type slots chan struct{}

// GetMaxConcurrent implements promql.QueryTracker.
func (s slots) GetMaxConcurrent() int { return cap(s) }

// Insert implements promql.QueryTracker.
func (s slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Delete implements promql.QueryTracker.
func (s slots) Delete(int) { <-s }

// Close implements promql.QueryTracker.
func (slots) Close() error { return nil }

// quiet passes on what concerns operators: the database's reports of its routine work are for debugging.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, lowered(level))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = lowered(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

func lowered(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}
