package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// parallelFrom is the size from which a file is read in parts at once; below
	// it a second connection costs more than it brings. Four connections read 1 GB
	// 1.8 times as fast as one from the embedded file server on the same machine, and
	// 2.8 times as fast from a server that gives each connection 90 MB/s, as S3 does.
	parallelFrom = 16 << 20
	// A part is a 64th of the file within these bounds: small enough that all connections end at
	// about the same time, large enough that requests cost nothing.
	smallestPart, biggestPart = 8 << 20, 64 << 20
)

// transfer is one attempt to fill a partial file from one state of the source.
type transfer struct {
	adapter  Adapter
	url      string
	object   Object
	to       *partial
	cache    *Cache
	progress Progress
	whole    bool // the server returns only whole files

	mu   sync.Mutex // guards done, and makes calls of progress sequential
	done int64
}

// run reads the missing spans. Its goroutines have ended when it returns. ErrChanged and
// ErrNoRanges require another transfer from the start.
func (t *transfer) run(ctx context.Context) error {
	t.report(t.to.have())
	if t.atOnce() {
		return t.readAll(ctx)
	}
	gaps := t.to.missing()
	connections := 1
	if t.object.Ranges && t.object.Size > parallelFrom {
		connections = t.cache.o.Connections
		gaps = split(gaps, min(max(t.object.Size/64, smallestPart), biggestPart))
	}
	var next atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for range min(connections, len(gaps)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(gaps) {
					return nil
				}
				if err := t.readGap(groupCtx, gaps[i]); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// atOnce reports whether the file can only be read from start to end. This includes a length of 0,
// which some servers report for generated files.
func (t *transfer) atOnce() bool {
	return t.whole || t.object.Size <= 0 || !t.object.Validated()
}

// readGap reads one span, and resumes after interruptions.
func (t *transfer) readGap(ctx context.Context, gap span) error {
	return t.cache.o.Backoff.goOn(ctx, func() (bool, error) {
		n, err := t.stream(ctx, gap)
		gap.From += n
		return n > 0, err
	})
}

// readAll reads a file that cannot be read in parts: an interruption restarts it.
func (t *transfer) readAll(ctx context.Context) error {
	return t.cache.o.Backoff.Do(ctx, func() error {
		if err := t.to.reset(t.object); err != nil {
			return dirError(t.cache.o.Dir, err)
		}
		t.object.Size = -1 // the answer's own description is more recent
		t.report(0)
		_, err := t.stream(ctx, span{From: 0, To: -1})
		return err
	})
}

// errStalled ends a stream without data.
var errStalled = errors.New("the connection gives no bytes")

// stream makes one request for a span and writes the data; To < 0 is the end of the file. It
// returns the number of written bytes.
func (t *transfer) stream(ctx context.Context, gap span) (int64, error) {
	stall := t.cache.o.Stall
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	n, err := t.copyGap(streamCtx, gap, func() { watchdog.Reset(stall) })
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(streamCtx), errStalled) {
		err = &Error{Op: "read", URL: t.url, Transient: true, Err: fmt.Errorf("%w for %s", errStalled, stall)}
	}
	return n, err
}

func (t *transfer) copyGap(ctx context.Context, gap span, moved func()) (int64, error) {
	var part Part
	if gap.To >= 0 {
		part = Part{Offset: gap.From, Of: t.object}
		if gap.From != 0 || gap.To != t.object.Size {
			part.Length = gap.To - gap.From
		}
	}
	body, now, err := t.adapter.Open(ctx, t.url, part)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	if gap.To < 0 { // there is only one stream, so the object is not shared
		t.object, gap.To = now, now.Size
	}
	buf := make([]byte, 256<<10)
	for at := gap.From; ; {
		n, readErr := body.Read(buf)
		if gap.To >= 0 && at+int64(n) > gap.To {
			return at - gap.From, &Error{Op: "read", URL: t.url, Err: errors.New("the place gives more than the length it told")}
		}
		if n > 0 {
			moved()
			if err := t.to.write(buf[:n], at); err != nil {
				return at - gap.From, dirError(t.cache.o.Dir, err)
			}
			at += int64(n)
			t.add(int64(n))
		}
		switch {
		case errors.Is(readErr, io.EOF) && gap.To >= 0 && at < gap.To:
			return at - gap.From, &Error{Op: "read", URL: t.url, Transient: true, Err: fmt.Errorf("cut after %d of %d bytes", at, gap.To)}
		case errors.Is(readErr, io.EOF):
			return at - gap.From, nil
		case readErr != nil:
			return at - gap.From, readErr
		}
	}
}

func (t *transfer) add(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	if t.progress != nil {
		t.progress(t.done, t.object.Size)
	}
}

func (t *transfer) report(done int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = done
	if t.progress != nil {
		t.progress(t.done, t.object.Size)
	}
}

// split splits spans into pieces of at most size bytes.
func split(gaps []span, size int64) []span {
	var pieces []span
	for _, gap := range gaps {
		for from := gap.From; from < gap.To; from += size {
			pieces = append(pieces, span{From: from, To: min(from+size, gap.To)})
		}
	}
	return pieces
}
