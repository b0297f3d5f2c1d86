package storagetest

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"clearmlserving/storage"
)

// Faulty is an adapter around another that fails on request.
type Faulty struct {
	storage.Adapter

	mu          sync.Mutex // guards the fields below
	cutAfter    int64
	cuts        int
	unreachable bool
	failOpens   int
	openErr     error
	partErr     error
	hide        bool
	opens       int
	stats       int
	read        int64
}

// NewFaulty creates an adapter that does not fail yet. It hides storage.Locator, so that a cache
// downloads from it.
func NewFaulty(a storage.Adapter) *Faulty { return &Faulty{Adapter: a, cutAfter: -1} }

// CutAfter interrupts the next times answers after n bytes each.
func (f *Faulty) CutAfter(n int64, times int) { f.set(func() { f.cutAfter, f.cuts = n, times }) }

// Unreachable makes every operation fail transiently.
func (f *Faulty) Unreachable(yes bool) { f.set(func() { f.unreachable = yes }) }

// FailOpens makes the next n calls of Open fail.
func (f *Faulty) FailOpens(n int, err error) { f.set(func() { f.failOpens, f.openErr = n, err }) }

// RefuseParts makes the adapter return only whole files.
func (f *Faulty) RefuseParts() { f.set(func() { f.partErr = storage.ErrNoRanges }) }

// ChangedParts makes every read of a part fail with ErrChanged.
func (f *Faulty) ChangedParts() { f.set(func() { f.partErr = storage.ErrChanged }) }

// HideObject makes the adapter return no description of its files.
func (f *Faulty) HideObject() { f.set(func() { f.hide = true }) }

// Opens is the number of calls of Open.
func (f *Faulty) Opens() int { f.mu.Lock(); defer f.mu.Unlock(); return f.opens }

// Stats is the number of calls of Stat.
func (f *Faulty) Stats() int { f.mu.Lock(); defer f.mu.Unlock(); return f.stats }

// BytesRead is the number of returned bytes.
func (f *Faulty) BytesRead() int64 { f.mu.Lock(); defer f.mu.Unlock(); return f.read }

func (f *Faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *Faulty) away(op, url string) error {
	if !f.unreachable {
		return nil
	}
	return &storage.Error{Op: op, URL: url, Transient: true, Err: errors.New("the place cannot be reached")}
}

// Stat describes a file, unless it is set to fail.
func (f *Faulty) Stat(ctx context.Context, url string) (storage.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats++
	if err := f.away("stat", url); err != nil {
		return storage.Object{}, err
	}
	object, err := f.Adapter.Stat(ctx, url)
	return f.hidden(object), err
}

func (f *Faulty) hidden(object storage.Object) storage.Object {
	if f.hide {
		object = storage.Object{Size: -1}
	}
	return object
}

// Open reads a part of a file, unless it is set to fail.
func (f *Faulty) Open(ctx context.Context, url string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens++
	if err := f.away("open", url); err != nil {
		return nil, storage.Object{}, err
	}
	if f.failOpens > 0 {
		f.failOpens--
		return nil, storage.Object{}, f.openErr
	}
	if f.partErr != nil && !part.Whole() {
		return nil, storage.Object{}, &storage.Error{Op: "open", URL: url, Err: f.partErr}
	}
	body, object, err := f.Adapter.Open(ctx, url, part)
	if err != nil {
		return nil, object, err
	}
	left := int64(-1)
	if f.cuts > 0 {
		f.cuts--
		left = f.cutAfter
	}
	return &cutting{ReadCloser: body, faulty: f, url: url, left: left}, f.hidden(object), nil
}

// cutting ends after some bytes like an interrupted connection; left < 0 never.
type cutting struct {
	io.ReadCloser
	faulty *Faulty
	url    string
	left   int64
}

func (c *cutting) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, &storage.Error{Op: "read", URL: c.url, Transient: true, Err: io.ErrUnexpectedEOF}
	}
	if c.left > 0 {
		p = p[:min(int64(len(p)), c.left)]
	}
	n, err := c.ReadCloser.Read(p)
	if c.left > 0 {
		c.left -= int64(n)
	}
	c.faulty.set(func() { c.faulty.read += int64(n) })
	return n, err
}

// Hanging is an adapter whose answers begin and then stall, until the context of the reading ends.
type Hanging struct {
	storage.Adapter
	// First is the number of bytes before the stall.
	First int64
	// Slow, if set, is the pause before each byte instead of a stall.
	Slow time.Duration
}

// Open reads a part of a file up to the stall.
func (h Hanging) Open(ctx context.Context, url string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	body, object, err := h.Adapter.Open(ctx, url, part)
	if err != nil {
		return nil, object, err
	}
	return &hanging{ReadCloser: body, done: ctx.Done(), cause: func() error { return context.Cause(ctx) }, left: h.First, slow: h.Slow}, object, nil
}

type hanging struct {
	io.ReadCloser
	done  <-chan struct{}
	cause func() error
	left  int64
	slow  time.Duration
}

func (h *hanging) Read(p []byte) (int, error) {
	if h.slow > 0 {
		timer := time.NewTimer(h.slow)
		defer timer.Stop()
		select {
		case <-h.done:
			return 0, h.cause()
		case <-timer.C:
			return h.ReadCloser.Read(p[:1])
		}
	}
	if h.left == 0 {
		<-h.done
		return 0, h.cause()
	}
	n, err := h.ReadCloser.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
}
