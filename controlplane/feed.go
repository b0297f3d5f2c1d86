package controlplane

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Feed notifies other parts of this process of writes, so that a change is live at once
// instead of at the next poll. It carries no content: a subscriber reads what it needs over
// the API, as at a poll.
//
// The zero value is ready. It is safe for use by many goroutines.
type Feed struct {
	mu     sync.Mutex        // guards the fields below; nothing else is locked under it
	counts map[string]uint64 // writes so far, by kind
	rung   chan struct{}     // closed at the next write; nil while no subscriber waits
}

// Ring announces a committed write to the document of that kind and id. It never blocks.
func (f *Feed) Ring(kind, _ string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[string]uint64{}
	}
	f.counts[kind]++
	if f.rung != nil {
		close(f.rung)
		f.rung = nil
	}
}

// Subscribe begins to listen to the writes of these kinds; without kinds, to all. The
// subscription needs no close.
func (f *Feed) Subscribe(kinds ...string) *Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Subscription{feed: f, kinds: kinds, seen: maps.Clone(f.counts)}
}

// Subscription is one listener's place in a Feed. It belongs to one goroutine.
type Subscription struct {
	feed  *Feed
	kinds []string
	seen  map[string]uint64
}

// Next returns nil if something was written since the last call, or since Subscribe for the
// first, and otherwise waits for it. Many writes in between count as one: the caller reads
// the newest state. Its only error is that of the context.
func (s *Subscription) Next(ctx context.Context) error {
	for {
		news, rung := s.look()
		if news {
			return nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look reports whether something was written, and otherwise returns a channel that closes
// at the next write.
func (s *Subscription) look() (news bool, rung <-chan struct{}) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	for kind, n := range f.counts {
		if n != s.seen[kind] && (len(s.kinds) == 0 || slices.Contains(s.kinds, kind)) {
			s.seen = maps.Clone(f.counts)
			return true, nil
		}
	}
	if f.rung == nil {
		f.rung = make(chan struct{})
	}
	return false, f.rung
}
