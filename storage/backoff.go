package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
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
	b = b.withDefaults()
	for failed := 1; ; failed++ {
		err := attempt()
		if err == nil || !IsTransient(err) {
			return err
		}
		if failed >= b.Attempts {
			return fmt.Errorf("%w (given up after %d attempts)", err, failed)
		}
		if waitErr := b.wait(ctx, failed, err); waitErr != nil {
			return errors.Join(waitErr, err)
		}
	}
}

// wait lets the time pass that suits the failure, or returns the end of ctx.
func (b Backoff) wait(ctx context.Context, failed int, cause error) error {
	timer := time.NewTimer(b.delay(failed, cause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// delay is between half and the whole of the doubled wait, so that many clients
// that were cut off together do not come back together.
func (b Backoff) delay(failed int, cause error) time.Duration {
	d := b.Max
	if shift := failed - 1; shift < 20 {
		d = min(b.Max, b.First<<shift)
	}
	d = d/2 + rand.N(d/2+1)
	var e *Error
	if errors.As(cause, &e) && e.After > d {
		d = min(e.After, b.Max)
	}
	return d
}
