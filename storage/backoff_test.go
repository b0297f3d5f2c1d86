package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/storage"
)

func TestBackoffWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := &storage.Error{Op: "stat", URL: "x", Transient: true, Err: errors.New("busy")}
		b := storage.Backoff{Attempts: 5, First: time.Second, Max: 4 * time.Second}
		var at []time.Duration
		began := time.Now()
		err := b.Do(t.Context(), func() error { at = append(at, time.Since(began)); return failure })
		if !errors.Is(err, failure) || len(at) != 5 || !strings.Contains(err.Error(), "after 5 attempts") {
			t.Fatalf("%d attempts, %v", len(at), err)
		}
		for i, most := range []time.Duration{1, 2, 4, 4} {
			if wait := at[i+1] - at[i]; wait < most*time.Second/2 || wait > most*time.Second {
				t.Errorf("wait %d is %s, want %d s or up to half of it less", i, wait, most)
			}
		}
		failure.After = 3 * time.Second
		began, at = time.Now(), nil
		_ = storage.Backoff{Attempts: 2, First: time.Millisecond}.Do(t.Context(), func() error { at = append(at, time.Since(began)); return failure })
		if at[1] != 3*time.Second {
			t.Errorf("the storage requested 3 s, the wait is %s", at[1])
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Do(ctx, func() error { return failure }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the end of the context", err)
		}
	})
}
