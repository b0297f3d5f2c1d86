package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"clearmlserving/retry"
)

// Backoff configures retries after transient failures.
type Backoff struct {
	// Attempts is the maximum number of consecutive failures. Default 6.
	Attempts int
	// First is the wait after the first failure; it doubles with each. Default 500 ms.
	First time.Duration
	// Max bounds one wait, also one that the server requests. Default 30 s.
	Max time.Duration
}

func (b Backoff) withDefaults() Backoff {
	return Backoff{Attempts: cmp.Or(b.Attempts, 6), First: cmp.Or(b.First, 500*time.Millisecond), Max: cmp.Or(b.Max, 30*time.Second)}
}

// Do calls attempt until it succeeds, fails permanently, or has failed transiently too often; then
// it returns the last error. It stops when ctx ends.
func (b Backoff) Do(ctx context.Context, attempt func() error) error {
	return b.goOn(ctx, func() (bool, error) { return false, attempt() })
}

// goOn is Do for an attempt that resumes where the last one ended. The count of failures is reset
// by each attempt with progress.
func (b Backoff) goOn(ctx context.Context, attempt func() (further bool, err error)) error {
	b = b.withDefaults()
	for failed := 1; ; failed++ {
		further, err := attempt()
		if err == nil || !IsTransient(err) {
			return err
		}
		if further {
			failed = 1
		}
		if failed >= b.Attempts {
			return fmt.Errorf("%w (given up after %d attempts)", err, failed)
		}
		if waitErr := retry.Sleep(ctx, b.delay(failed, err)); waitErr != nil {
			return errors.Join(waitErr, err)
		}
	}
}

// delay is the wait before the next attempt: the server's request, if that is longer.
func (b Backoff) delay(failed int, cause error) time.Duration {
	d := retry.Jittered(retry.Doubled(failed, b.First, b.Max))
	if e, ok := errors.AsType[*Error](cause); ok {
		d = min(max(d, e.After), b.Max)
	}
	return d
}
