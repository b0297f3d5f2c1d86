// Package requestlog writes a share of the requests and answers of an instance as tables in Parquet
// files, into a folder or a bucket. Rows are first appended to spool files, which outlive the process;
// a full or old spool file becomes a Parquet file whose columns fit all of its rows, and is delivered.
// Requests never wait: rows that cannot be stored are counted.
package requestlog

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"clearmlserving/serving"
)

// The default bounds.
const (
	DefaultFileBytes = 64 << 20 // of a spool file
	DefaultFileTime  = 15 * time.Minute
	DefaultMaxBytes  = 4 << 30 // of all files on this machine

	queueLength = 4096
	queueBytes  = 64 << 20
	maxObserved = 8 << 20 // of one request and its answer
	pause       = 200 * time.Millisecond

	lastDelivery = 5 * time.Second // at the end
	maxSlots     = 64              // instances that share a folder
)

// Placer stores files. The adapters of package storage fulfil it.
type Placer interface {
	Put(ctx context.Context, url string, r io.Reader, size int64) error
}

// Options of a Log.
type Options struct {
	// Dir is the folder of spool files, and of files that have not been delivered.
	Dir string
	// Destination is the folder or the URL below which the Parquet files are put.
	Destination string
	// Local is the path of a Destination on this machine, whose files MaxBytes bounds too; "" for others.
	Local string
	// Place stores files at the Destination.
	Place Placer
	// FileBytes and FileTime end a file: at this size of its rows, or this time after its first row.
	FileBytes int64
	FileTime  time.Duration
	// MaxBytes bounds the files on this machine: the oldest ones are removed.
	MaxBytes int64
	Logger   *slog.Logger
	now      func() time.Time
}

// Log writes the request log of one instance.
type Log struct {
	o       Options
	queue   chan serving.Observed
	pending atomic.Int64
	table   atomic.Pointer[table]
	problem atomic.Pointer[string] // why rows or files cannot be written now
	ready   chan struct{}          // has one signal: there are files to deliver

	counting sync.Mutex // guards counts
	counts   map[countKey]uint64

	slot atomic.Pointer[string] // the folder of this instance, nil before the first row

	// The fields below belong to Run's goroutine.
	lock  *os.File // of slot
	files map[serving.EndpointURL]*spool
	full  bool // the files on this machine exceed MaxBytes
}

type countKey struct {
	url    serving.EndpointURL
	result string
}

// The results of rows.
const (
	resultLogged  = "logged"
	resultSkipped = "skipped" // cannot be redacted, or too large
	resultDropped = "dropped" // the queue was full, or the disk could not be written
	resultRemoved = "removed" // to stay within MaxBytes, or by something else
)

// table is what a plan says about the request log. It is never changed.
type table struct {
	options map[serving.EndpointURL]*serving.RequestLog
	names   serving.Names
}

// New returns a Log; Run writes.
func New(o Options) *Log {
	if o.FileBytes <= 0 {
		o.FileBytes = DefaultFileBytes
	}
	if o.FileTime <= 0 {
		o.FileTime = DefaultFileTime
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	l := &Log{o: o, queue: make(chan serving.Observed, queueLength), ready: make(chan struct{}, 1), counts: map[countKey]uint64{}, files: map[serving.EndpointURL]*spool{}}
	l.table.Store(&table{})
	return l
}

// Follow sets the endpoints that are logged.
func (l *Log) Follow(plan serving.Plan) {
	next := &table{options: map[serving.EndpointURL]*serving.RequestLog{}, names: plan.Names()}
	for u, o := range plan.Options {
		if o.Log != nil {
			next.options[u] = o.Log
		}
	}
	l.table.Store(next)
}

func (t *table) option(asked, answered serving.EndpointURL) *serving.RequestLog {
	if o := t.options[asked]; o != nil {
		return o
	}
	return t.options[answered]
}

// Share implements the data plane's Observer.
func (l *Log) Share(o serving.EndpointOptions) float64 {
	if o.Log == nil {
		return 0
	}
	return o.Log.Share
}

// Admits implements the data plane's Observer.
func (l *Log) Admits(u serving.EndpointURL, size int64) bool {
	switch {
	case size > maxObserved:
		l.count(u, resultSkipped, 1)
	case len(l.queue) == cap(l.queue) || l.pending.Load()+size > queueBytes:
		l.count(u, resultDropped, 1)
	default:
		return true
	}
	return false
}

// Observe implements the data plane's Observer. It never blocks.
func (l *Log) Observe(o serving.Observed) {
	size := sizeOf(o)
	l.pending.Add(size)
	select {
	case l.queue <- o:
	default:
		l.pending.Add(-size)
		l.count(o.Answerer(), resultDropped, 1)
	}
}

func sizeOf(o serving.Observed) int64 { return int64(len(o.Body) + len(o.Answer)) }

func (l *Log) count(u serving.EndpointURL, result string, n uint64) {
	l.counting.Lock()
	defer l.counting.Unlock()
	l.counts[countKey{u, result}] += n
}

func (l *Log) counted() map[countKey]uint64 {
	l.counting.Lock()
	defer l.counting.Unlock()
	return maps.Clone(l.counts)
}

// fails records why rows or files cannot be written.
func (l *Log) fails(err error) {
	text := err.Error()
	if l.problem.Swap(&text) == nil {
		l.o.Logger.Warn("request log cannot be written", "err", err)
	}
}

func (l *Log) works() {
	if l.problem.Swap(nil) != nil {
		l.o.Logger.Info("request log can be written again")
	}
}

// Run writes rows until ctx ends, and then the rest of the queue. Files that have not been delivered
// stay for the next start.
func (l *Log) Run(ctx context.Context) {
	var delivery sync.WaitGroup
	delivering := false
	tick := time.NewTicker(min(l.o.FileTime, time.Minute) / 4)
	defer tick.Stop()
	if l.leftOver() {
		l.open()
	}
	for {
		if l.lock != nil && !delivering {
			delivering = true
			delivery.Go(func() { l.deliver(ctx) })
		}
		select {
		case first := <-l.queue:
			wait(ctx, pause) // one write for several rows
			l.write(l.take([]serving.Observed{first}))
		case <-tick.C:
			l.rotate(false)
			l.prune()
		case <-ctx.Done():
			for batch := l.take(nil); len(batch) > 0; batch = l.take(nil) {
				l.write(batch)
			}
			delivery.Wait()
			l.end(context.WithoutCancel(ctx))
			return
		}
	}
}

// end converts what is left, and tries to deliver it.
func (l *Log) end(ctx context.Context) {
	if l.lock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastDelivery)
	defer cancel()
	l.rotate(true)
	if err := l.deliverAll(ctx); err != nil {
		l.o.Logger.Info("files of the request log are delivered after the next start", "err", err)
	}
	_ = l.lock.Close()
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *Log) take(batch []serving.Observed) []serving.Observed {
	for len(batch) < cap(l.queue) {
		select {
		case o := <-l.queue:
			batch = append(batch, o)
		default:
			return batch
		}
	}
	return batch
}

// leftOver reports whether an earlier process has left files.
func (l *Log) leftOver() bool {
	found, err := filepath.Glob(filepath.Join(l.o.Dir, "*", "*.*"))
	return err == nil && len(found) > 0
}

// folder is the folder of this instance, "" before the first row.
func (l *Log) folder() string {
	if slot := l.slot.Load(); slot != nil {
		return *slot
	}
	return ""
}

// open takes a folder that no other instance has, and adopts the files in all such folders. It does so
// again if the folder was removed.
func (l *Log) open() {
	if l.lock != nil {
		if is(l.lock) {
			return
		}
		l.o.Logger.Warn("folder of the request log was removed", "folder", l.folder())
		for u, s := range l.files {
			l.forget(u, s)
		}
		_ = l.lock.Close() // it has no content
		l.lock = nil
	}
	for i := 1; i <= maxSlots; i++ {
		dir := filepath.Join(l.o.Dir, fmt.Sprint(i))
		if l.lock != nil {
			if _, err := os.Stat(dir); err != nil {
				return
			}
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			l.fails(err)
			return
		}
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			l.fails(err)
			return
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = lock.Close() // another instance has it
			continue
		}
		if l.lock == nil {
			l.lock = lock
			l.slot.Store(&dir)
		}
		l.adopt(dir)
		if l.lock != lock {
			_ = lock.Close() // releases it
		}
	}
	if l.lock == nil {
		l.fails(fmt.Errorf("all folders in %s are in use by other instances", l.o.Dir))
	}
}

// adopt takes over the files that an earlier process has left.
func (l *Log) adopt(dir string) {
	found, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil {
		return
	}
	for _, path := range found {
		base := filepath.Base(path)
		switch filepath.Ext(path) {
		case spoolEnd:
			base = strings.TrimSuffix(base, spoolEnd) + fullEnd
		case partEnd:
			_ = os.Remove(path) // its spool file is still there
			continue
		}
		if to := filepath.Join(l.folder(), base); to != path {
			if err := os.Rename(path, to); err != nil {
				l.fails(err)
			}
		}
	}
	l.signal()
}

func (l *Log) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// The ends of the names of files.
const (
	spoolEnd   = ".jsonl"   // rows are appended to it
	fullEnd    = ".full"    // a spool file that is complete
	partEnd    = ".part"    // an incomplete Parquet file
	parquetEnd = ".parquet" // a Parquet file to deliver
)

// spool is an open spool file.
type spool struct {
	file  *os.File
	size  int64
	rows  uint64
	begun time.Time
}

// line is a row of a spool file.
type line struct {
	Time           time.Time           `json:"time"`
	ID             string              `json:"id"`
	Asked          serving.EndpointURL `json:"asked"`
	Endpoint       string              `json:"endpoint"`
	Version        string              `json:"version"`
	Model          string              `json:"model"`
	Latency        float64             `json:"latency"`
	Status         int                 `json:"status"`
	Input          []byte              `json:"input"`
	Output         []byte              `json:"output"`
	InputEncoding  string              `json:"input_encoding"`
	OutputEncoding string              `json:"output_encoding"`
}

// write appends rows to their spool files.
func (l *Log) write(batch []serving.Observed) {
	t := l.table.Load()
	texts, rows := map[serving.EndpointURL][]byte{}, map[serving.EndpointURL]uint64{}
	for _, o := range batch {
		l.pending.Add(-sizeOf(o))
		u := o.Answerer()
		option := t.option(o.Endpoint, u)
		if option == nil {
			continue
		}
		text, ok := encode(o, option, t)
		if !ok {
			l.count(u, resultSkipped, 1)
			continue
		}
		texts[u] = append(append(texts[u], text...), '\n')
		rows[u]++
	}
	if len(texts) == 0 {
		return
	}
	l.open()
	for u, text := range texts {
		if err := l.append(u, text, rows[u]); err != nil {
			l.count(u, resultDropped, rows[u])
			l.fails(err)
			continue
		}
		l.count(u, resultLogged, rows[u])
	}
	l.rotate(false)
}

func encode(o serving.Observed, option *serving.RequestLog, t *table) ([]byte, bool) {
	body, answer := o.Body, o.Answer
	if len(option.Redact) > 0 {
		var err, err2 error
		body, _, err = serving.RedactJSON(body, option.Redact)
		if len(answer) > 0 || !o.Streamed {
			answer, _, err2 = serving.RedactJSON(answer, option.Redact)
		}
		if errors.Join(err, err2) != nil {
			return nil, false
		}
	}
	name := t.names.Of(o.Answerer())
	row := line{
		Time: o.Time, ID: o.ID, Asked: o.Endpoint, Endpoint: name.Endpoint, Version: name.Version, Model: string(o.ModelID),
		Latency: o.Latency.Seconds(), Status: o.Status, Input: body, Output: answer,
		InputEncoding: encodingOf(body), OutputEncoding: encodingOf(answer),
	}
	if o.Streamed {
		row.OutputEncoding = "stream"
	}
	text, err := json.Marshal(row)
	return text, err == nil
}

// append writes whole lines to a spool file. A file that may have half a line is ended.
func (l *Log) append(u serving.EndpointURL, text []byte, rows uint64) error {
	if l.lock == nil {
		return errors.New("there is no folder for it")
	}
	if l.full {
		return fmt.Errorf("the files on this machine exceed %d bytes", l.o.MaxBytes)
	}
	s := l.files[u]
	if s != nil && !is(s.file) {
		l.forget(u, s)
		s = nil
	}
	if s == nil {
		name := fmt.Sprintf("%s.%s%s", url.PathEscape(string(u)), rand.Text(), spoolEnd)
		f, err := os.OpenFile(filepath.Join(l.folder(), name), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		s = &spool{file: f, begun: l.o.now()}
		l.files[u] = s
	}
	if _, err := s.file.Write(text); err != nil {
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.size += int64(len(text))
	s.rows += rows
	return nil
}

// is reports whether the path of an open file still leads to it.
func is(f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	found, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(open, found)
}

// forget counts the rows of a spool file that something else has removed.
func (l *Log) forget(u serving.EndpointURL, s *spool) {
	delete(l.files, u)
	_ = s.file.Close() // nothing can be read from it any more
	l.count(u, resultRemoved, s.rows)
}

// rotate ends the spool files that are full or old, or all.
func (l *Log) rotate(all bool) {
	for u, s := range l.files {
		if !all && s.size < l.o.FileBytes && l.o.now().Sub(s.begun) < l.o.FileTime {
			continue
		}
		if !is(s.file) {
			l.forget(u, s)
			continue
		}
		delete(l.files, u)
		path := s.file.Name()
		err := s.file.Close()
		if err := errors.Join(err, os.Rename(path, strings.TrimSuffix(path, spoolEnd)+fullEnd)); err != nil {
			l.fails(err)
		}
		l.signal()
	}
}

// lines reads the rows of a spool file. A last line that was cut by a kill is ignored.
func lines(path string, each func(line) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it is only read
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var one line
		if json.Unmarshal(text, &one) != nil {
			continue // damaged
		}
		if err := each(one); err != nil {
			return err
		}
	}
}
