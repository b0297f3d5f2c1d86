// Package retry computes the waits between attempts.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Doubled is first after one failure and twice as long after each further one, up to limit.
func Doubled(failures int, first, limit time.Duration) time.Duration {
	wait := first
	for ; failures > 1 && wait < limit; failures-- {
		wait *= 2
	}
	return min(wait, limit)
}

// Jittered is between half of a wait and all of it, so that many clients that failed
// together do not retry together.
func Jittered(wait time.Duration) time.Duration {
	return wait/2 + rand.N(wait/2+1) //nolint:gosec // jitter needs no secret randomness
}

// Sleep waits. It returns an error when ctx ends, and at once if ctx would end before
// the wait is over.
func Sleep(ctx context.Context, wait time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// After reads the field Retry-After of a response: seconds or a date. It is 0 for
// everything else.
func After(field string, now time.Time) time.Duration {
	seconds, err := strconv.ParseInt(field, 10, 32) // the nearest number if it is out of range
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
