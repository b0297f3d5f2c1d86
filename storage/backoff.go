package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clearmlserving/retry"
)

// Backoff is how patiently a transient failure is met.
type Backoff struct {
	// Attempts is how many attempts in a row may fail. Default 6.
	Attempts int
	// First is the wait after the first failure; it doubles with each. Default 500 ms.
	First time.Duration
	// Max bounds one wait, also one that the place asks for. Default 30 s.
	Max time.Duration
}

func (b Backoff) withDefaults() Backoff {
	if b.Attempts <= 0 {
		b.Attempts = 6
	}
	if b.First <= 0 {
		b.First = 500 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 30 * time.Second
	}
	return b
}

// Do calls attempt until it succeeds, fails for good, or has failed transiently
// too often; then it returns the last error. It gives up when ctx ends.
func (b Backoff) Do(ctx context.Context, attempt func() error) error {
	return b.goOn(ctx, func() (bool, error) { return false, attempt() })
}

// goOn is Do for an attempt that goes on where the last one ended. The count of failures
// begins anew with each attempt that got further.
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

// delay is the wait before the next attempt: what the place asks for, if that is longer.
func (b Backoff) delay(failed int, cause error) time.Duration {
	d := retry.Jittered(retry.Doubled(failed, b.First, b.Max))
	if e, ok := errors.AsType[*Error](cause); ok {
		d = min(max(d, e.After), b.Max)
	}
	return d
}
