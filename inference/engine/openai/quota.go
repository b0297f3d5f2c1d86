package openai

import (
	"fmt"
	"sync"
	"time"

	"clearmlserving/serving"
)

// quota bounds the tokens of an endpoint on this instance. What an answer costs is known at its end, so that a
// request may exceed it; the next ones wait for it.
type quota struct {
	minute, day bucket
}

// bucket refills steadily up to its size.
type bucket struct {
	size   int64
	period time.Duration

	mu   sync.Mutex
	left float64
	at   time.Time
}

func (q *quota) set(l *serving.Limits) {
	if l == nil {
		return
	}
	q.minute.set(int64(l.TokensPerMinute), time.Minute)
	q.day.set(int64(l.TokensPerDay), 24*time.Hour)
}

func (b *bucket) set(size int64, period time.Duration) {
	b.size, b.period, b.left = size, period, float64(size)
}

// exceeded is the time until the next request is answered, 0 for now.
func (q *quota) exceeded(now time.Time) time.Duration {
	return max(q.minute.exceeded(now), q.day.exceeded(now))
}

func (b *bucket) exceeded(now time.Time) time.Duration {
	if b.size == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	if b.left > 0 {
		return 0
	}
	return time.Duration((1-b.left)*float64(b.period)/float64(b.size)) + 1
}

func (b *bucket) refill(now time.Time) {
	if !b.at.IsZero() && now.After(b.at) {
		b.left = min(b.left+now.Sub(b.at).Seconds()/b.period.Seconds()*float64(b.size), float64(b.size))
	}
	b.at = now
}

// spend takes the tokens of an answer.
func (q *quota) spend(now time.Time, n int64) {
	q.minute.spend(now, n)
	q.day.spend(now, n)
}

func (b *bucket) spend(now time.Time, n int64) {
	if b.size == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	b.left -= float64(n)
}

func (q *quota) text() string {
	switch {
	case q.minute.size == 0:
		return fmt.Sprintf("it has %d a day on this instance", q.day.size)
	case q.day.size == 0:
		return fmt.Sprintf("it has %d a minute on this instance", q.minute.size)
	}
	return fmt.Sprintf("it has %d a minute and %d a day on this instance", q.minute.size, q.day.size)
}
