package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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

// run reads the missing parts. Its goroutines have ended when it returns. ErrChanged and
// ErrNoRanges require another transfer from the start.
func (t *transfer) run(ctx context.Context) error {
	have, missing := t.to.have()
	t.add(have)
	// A length of 0 is what some servers report for generated files.
	if t.whole || t.object.Size <= 0 || !t.object.Validated() {
		return t.readAll(ctx)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(t.cache.o.Connections)
	for _, part := range missing {
		group.Go(func() error {
			if groupCtx.Err() != nil {
				return context.Cause(groupCtx) // the group has the error already
			}
			return t.cache.o.Backoff.goOn(groupCtx, func() (bool, error) {
				before, _ := t.to.rest(part)
				err := t.stream(groupCtx, part)
				now, _ := t.to.rest(part)
				return now > before, err
			})
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readAll reads a file that can only be read from start to end: an interruption restarts it.
func (t *transfer) readAll(ctx context.Context) error {
	return t.cache.o.Backoff.Do(ctx, func() error {
		if err := t.to.reset(Object{Size: -1}); err != nil {
			return dirError(t.cache.o.Dir, err)
		}
		t.object.Size = -1 // the answer's own description is more recent
		t.done = 0
		t.add(0)
		return t.stream(ctx, 0)
	})
}

// errStalled ends a stream without data.
var errStalled = errors.New("the connection delivers no bytes")

// stream makes one request for the rest of a part, or for the file if its size is not known, and
// writes the data.
func (t *transfer) stream(ctx context.Context, part int) error {
	stall := t.cache.o.Stall
	streamCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	err := t.copyPart(streamCtx, part, func() { watchdog.Reset(stall) })
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(streamCtx), errStalled) {
		err = &Error{Op: "read", URL: t.url, Transient: true, Err: fmt.Errorf("%w for %s", errStalled, stall)}
	}
	return err
}

func (t *transfer) copyPart(ctx context.Context, part int, moved func()) error {
	from, to := t.to.rest(part)
	var request Part
	if t.object.Size >= 0 {
		request = Part{Offset: from, Of: t.object}
		if from != 0 || to != t.object.Size {
			request.Length = to - from
		}
	}
	body, now, err := t.adapter.Open(ctx, t.url, request)
	if err != nil {
		return err
	}
	defer body.Close()
	if t.object.Size < 0 { // there is only one stream, so the object is not shared
		t.object, to = now, now.Size
	}
	buf := make([]byte, 256<<10)
	for at := from; ; {
		n, readErr := body.Read(buf)
		if to >= 0 && at+int64(n) > to {
			return &Error{Op: "read", URL: t.url, Err: errors.New("the server sends more than the announced length")}
		}
		if n > 0 {
			moved()
			if err := t.to.write(part, buf[:n]); err != nil {
				return dirError(t.cache.o.Dir, err)
			}
			at += int64(n)
			t.add(int64(n))
		}
		switch {
		case errors.Is(readErr, io.EOF) && to >= 0 && at < to:
			return &Error{Op: "read", URL: t.url, Transient: true, Err: fmt.Errorf("cut after %d of %d bytes", at, to)}
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return readErr
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
