package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/retry"
)

func TestTheWaitDoublesUpToItsLimit(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 1, 1: 1, 2: 2, 3: 4, 4: 5, 1 << 40: 5} {
		if got := retry.Doubled(failures, time.Second, 5*time.Second); got != want*time.Second {
			t.Errorf("after %d failures: %s, want %d s", failures, got, want)
		}
	}
	if got := retry.Doubled(3, time.Minute, time.Second); got != time.Second {
		t.Errorf("a limit below the first wait gives %s", got)
	}
}

func TestJitterTakesAtMostHalf(t *testing.T) {
	for range 1000 {
		if got := retry.Jittered(time.Second); got < time.Second/2 || got > time.Second {
			t.Fatalf("%s", got)
		}
	}
	if got := retry.Jittered(0); got != 0 {
		t.Errorf("no wait became %s", got)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := retry.Sleep(t.Context(), time.Minute); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		broken := errors.New("broken")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(broken) })
		if err := retry.Sleep(ctx, time.Minute); !errors.Is(err, broken) {
			t.Errorf("the context ended: %v", err)
		}
		short, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		began = time.Now()
		if err := retry.Sleep(short, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 0 {
			t.Errorf("the context would end before: %v after %s", err, time.Since(began))
		}
	})
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "soon": 0, "7": 7 * time.Second, "-7": 0, "1.5": 0,
		"99999999999999999999":          (1<<31 - 1) * time.Second,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retry.After(field, now); got != want {
			t.Errorf("%q: %s, want %s", field, got, want)
		}
	}
}
