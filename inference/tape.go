package inference

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/atomicfile"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

const (
	tapeQueue    = 1024     // exchanges waiting for the writer
	tapePending  = 64 << 20 // their bytes
	tapeExchange = 8 << 20  // maximum bytes of one exchange
	tapeFile     = 64 << 20 // bytes of one endpoint's file
	tapePause    = 200 * time.Millisecond
)

// tapes write recordings of live requests: one folder with a file of exchanges for each url,
// readable only by its owner. A file is a ring: the oldest lines are removed
// when it is full. One goroutine (run) owns the files.
type tapes struct {
	dir     string
	log     *slog.Logger
	queue   chan taped
	pending atomic.Int64 // bytes in the queue

	mu  sync.Mutex // guards all
	all map[serving.EndpointURL]*tape
}

// tape counts the recorded exchanges of one url.
type tape struct {
	url                        serving.EndpointURL
	owner                      *tapes
	recorded, dropped, skipped atomic.Uint64
	problem                    atomic.Pointer[string] // why writing fails now
}

// taped is a queued exchange.
type taped struct {
	tape     *tape
	record   serving.Record
	live     *router.Live // that has answered, and learns from it
	exchange serving.Exchange
}

func newTapes(dir string, log *slog.Logger) *tapes {
	return &tapes{dir: dir, log: log, queue: make(chan taped, tapeQueue), all: map[serving.EndpointURL]*tape{}}
}

// of returns the existing tape of a url, or a new one.
func (t *tapes) of(url serving.EndpointURL) *tape {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.all[url]; ok {
		return known
	}
	t.log.Info("recording requests", "endpoint", url, "file", t.file(url))
	return &tape{url: url, owner: t}
}

// keep sets the tapes in use. The files of others stay.
func (t *tapes) keep(used map[serving.EndpointURL]*tape) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for url := range t.all {
		if used[url] == nil {
			t.log.Info("recording ended", "endpoint", url)
		}
	}
	t.all = used
}

// status lists the tapes in use.
func (t *tapes) status() []serving.RecordingReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []serving.RecordingReport
	for _, url := range slices.Sorted(maps.Keys(t.all)) {
		p := t.all[url]
		s := serving.RecordingReport{URL: url, Recorded: p.recorded.Load(), Dropped: p.dropped.Load(), Skipped: p.skipped.Load()}
		if problem := p.problem.Load(); problem != nil {
			s.Problem = *problem
		}
		list = append(list, s)
	}
	return list
}

// admits reports whether an exchange fits the queue, and counts it if not.
func (p *tape) admits(size int64, answer *engine.Response) bool {
	switch {
	case answer.Stream != nil || size > tapeExchange:
		p.skipped.Add(1)
		return false
	case len(p.owner.queue) == cap(p.owner.queue) || p.owner.pending.Load()+size > tapePending:
		p.dropped.Add(1)
		return false
	}
	return true
}

// put queues an exchange for the writer, or drops it.
func (t *tapes) put(item taped) {
	size := item.size()
	t.pending.Add(size)
	select {
	case t.queue <- item:
	default:
		t.pending.Add(-size)
		item.tape.dropped.Add(1)
	}
}

func (i taped) size() int64 { return int64(len(i.exchange.Body) + len(i.exchange.Answer)) }

// run writes until ctx ends, and then the rest of the queue.
func (t *tapes) run(ctx context.Context) error {
	w := tapeWriter{tapes: t, known: map[string]fileState{}}
	pause := time.NewTimer(tapePause)
	defer pause.Stop()
	for {
		select {
		case item := <-t.queue:
			w.take(item)
		case <-ctx.Done():
			w.takeAll()
			w.flush()
			return nil
		}
		pause.Reset(tapePause) // one write for several exchanges
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		w.takeAll()
		w.flush()
	}
}

// tapeWriter is the state of the writing goroutine.
type tapeWriter struct {
	tapes *tapes
	batch map[*tape]*tapeBatch
	known map[string]fileState // by file
}

// tapeBatch has the lines to append to one file.
type tapeBatch struct {
	lines [][]byte
	limit int
}

// fileState is the state of a file after our last write; others may change it.
type fileState struct {
	lines int
	size  int64
}

func (w *tapeWriter) takeAll() {
	for range cap(w.tapes.queue) {
		select {
		case item := <-w.tapes.queue:
			w.take(item)
		default:
			return
		}
	}
}

// take converts an exchange to a line. Fields are redacted here, not on the path of the
// request.
func (w *tapeWriter) take(item taped) {
	w.tapes.pending.Add(-item.size())
	e := item.exchange
	if len(item.record.Redact) > 0 {
		body, inBody, err := serving.RedactJSON(e.Body, item.record.Redact)
		answer, inAnswer, err2 := serving.RedactJSON(e.Answer, item.record.Redact)
		if errors.Join(err, err2) != nil {
			item.tape.skipped.Add(1)
			return
		}
		e.Body, e.Answer, e.Redacted = body, answer, inBody || inAnswer
	}
	line, err := e.Line()
	if err != nil {
		item.tape.skipped.Add(1)
		return
	}
	item.live.Learn(e)
	if w.batch == nil {
		w.batch = map[*tape]*tapeBatch{}
	}
	b := w.batch[item.tape]
	if b == nil {
		b = &tapeBatch{}
		w.batch[item.tape] = b
	}
	b.lines, b.limit = append(b.lines, line), item.record.Limit()
}

func (w *tapeWriter) flush() {
	for p, b := range w.batch {
		err := w.write(w.tapes.file(p.url), b)
		if err == nil {
			p.recorded.Add(uint64(len(b.lines)))
			if p.problem.Swap(nil) != nil {
				w.tapes.log.Info("requests can be recorded again", "endpoint", p.url)
			}
			continue
		}
		p.dropped.Add(uint64(len(b.lines)))
		text := err.Error()
		if p.problem.Swap(&text) == nil {
			w.tapes.log.Warn("requests cannot be recorded", "endpoint", p.url, "err", err)
		}
	}
	w.batch = nil
}

// file is the path of the exchanges of a url.
func (t *tapes) file(u serving.EndpointURL) string { return recordingOf(t.dir, u) }

func recordingOf(dir string, u serving.EndpointURL) string {
	return filepath.Join(dir, url.PathEscape(string(u))+".jsonl")
}

// recordedEnd bounds how much of a recording LastRecorded reads.
const recordedEnd = 256 << 10

// LastRecorded returns the newest exchanges of a url in a folder of recordings, the newest first, at
// most this many.
func LastRecorded(dir string, u serving.EndpointURL, most int) []serving.Exchange {
	f, err := os.Open(recordingOf(dir, u))
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	end := make([]byte, min(info.Size(), recordedEnd))
	n, err := f.ReadAt(end, info.Size()-int64(len(end)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	var all []serving.Exchange
	whole := end[:bytes.LastIndexByte(end[:n], '\n')+1] // the last line may be incomplete
	for len(whole) > 0 && len(all) < most {
		whole = bytes.TrimSuffix(whole, []byte("\n"))
		at := bytes.LastIndexByte(whole, '\n') + 1
		one, err := serving.ParseExchanges(whole[at:])
		if err != nil {
			break // the file does not begin here, or is damaged
		}
		all, whole = append(all, one[0]), whole[:at]
	}
	return all
}

// write appends to a file. The file is opened for each batch, because users may move it
// at any time, and another instance may write to it.
func (w *tapeWriter) write(file string, b *tapeBatch) error {
	if err := os.MkdirAll(w.tapes.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of recordings: %w", err)
	}
	size := int64(0)
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = reconcile.SetAside(file)
		w.tapes.log.Warn("recording file set aside, because it is not a file", "file", file, "err", err)
	} else if err == nil {
		size = info.Size()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record requests: %w", err)
	}
	state := w.known[file]
	whole := true
	if state.size != size {
		old, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrPermission) {
			err = reconcile.SetAside(file)
			w.tapes.log.Warn("recording file set aside, because it cannot be read", "file", file, "err", err)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record requests: %w", err)
		}
		whole = len(old) == 0 || old[len(old)-1] == '\n'
		state = fileState{lines: bytes.Count(old, []byte("\n")), size: int64(len(old))}
	}
	added := bytes.Join(b.lines, nil)
	if !whole || state.lines+len(b.lines) > b.limit || state.size+int64(len(added)) > tapeFile {
		next, err := replace(file, added, b.limit)
		w.known[file] = next
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("record requests: %w", err)
	}
	_, err = f.Write(added)
	if err := errors.Join(err, f.Close()); err != nil {
		delete(w.known, file)
		return fmt.Errorf("record requests: %w", err)
	}
	w.known[file] = fileState{lines: state.lines + len(b.lines), size: state.size + int64(len(added))}
	return nil
}

// replace writes the newest lines of a full file and of the added lines, up to three
// quarters of the limit, so that most batches are only appended. An incomplete line of
// a crash is omitted.
func replace(file string, added []byte, limit int) (fileState, error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileState{}, fmt.Errorf("record requests: %w", err)
	}
	old = old[:bytes.LastIndexByte(old, '\n')+1]
	lines := slices.Collect(bytes.Lines(append(old, added...)))
	first, size := len(lines), 0
	for first > 0 && len(lines)-first < limit-limit/4 && size+len(lines[first-1]) <= tapeFile/4*3 {
		first--
		size += len(lines[first])
	}
	if err := atomicfile.Write(file, bytes.Join(lines[first:], nil), 0o600); err != nil {
		return fileState{}, fmt.Errorf("record requests: %w", err)
	}
	return fileState{lines: len(lines) - first, size: int64(size)}, nil
}
