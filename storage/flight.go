package storage

import (
	"context"
	"sync"
)

// flights runs one call per key for concurrent callers. The call continues while at least one of
// them waits; the zero value is ready.
type flights[T any] struct {
	mu    sync.Mutex // guards going and what is in it
	going map[string]*flight[T]
}

type flight[T any] struct {
	key       string
	done      chan struct{} // closed when result and err are set
	result    T
	err       error
	cancel    context.CancelFunc
	nextID    int
	listeners map[int]Progress // by waiter
	last      *[2]int64        // the last report, for later callers
}

// do calls work, unless a call for the key is running, and waits for its end. The context of work
// has the values of the first caller's ctx and ends when the last caller has gone; then do returns
// only after work has.
func (f *flights[T]) do(ctx context.Context, key string, progress Progress,
	work func(context.Context, Progress) (T, error),
) (T, error) {
	fl, id := f.join(ctx, key, progress, work)
	select {
	case <-fl.done:
		f.leave(fl, id)
		return fl.result, fl.err
	case <-ctx.Done():
		if f.leave(fl, id) {
			<-fl.done // the call that was started here ends before the return
		}
		var none T
		return none, context.Cause(ctx)
	}
}

func (f *flights[T]) join(ctx context.Context, key string, progress Progress,
	work func(context.Context, Progress) (T, error),
) (*flight[T], int) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl, ok := f.going[key]; ok {
		fl.nextID++
		fl.listeners[fl.nextID] = progress
		if fl.last != nil {
			progress(fl.last[0], fl.last[1])
		}
		return fl, fl.nextID
	}
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight[T]{key: key, done: make(chan struct{}), cancel: cancel, listeners: map[int]Progress{0: progress}}
	if f.going == nil {
		f.going = map[string]*flight[T]{}
	}
	f.going[key] = fl
	go func() { // ends with done; the last waiter waits for it
		defer cancel()
		result, err := work(workCtx, func(done, total int64) { f.tell(fl, done, total) })
		f.mu.Lock()
		defer f.mu.Unlock()
		fl.result, fl.err = result, err
		f.forget(fl)
		close(fl.done)
	}()
	return fl, 0
}

// leave removes a waiter, and cancels the work if it was the last; then no caller can join it.
func (f *flights[T]) leave(fl *flight[T], id int) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(fl.listeners, id)
	if len(fl.listeners) > 0 {
		return false
	}
	fl.cancel()
	f.forget(fl)
	return true
}

// forget makes later calls for the key start again; f.mu is held.
func (f *flights[T]) forget(fl *flight[T]) {
	if f.going[fl.key] == fl {
		delete(f.going, fl.key)
	}
}

// tell passes progress on, under the lock, so that it never calls a removed waiter.
func (f *flights[T]) tell(fl *flight[T], done, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.last = &[2]int64{done, total}
	for _, listener := range fl.listeners {
		listener(done, total)
	}
}
