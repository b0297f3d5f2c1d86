package controlplane_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"clearmlserving/controlplane"
)

func TestWriteWakesEverySubscriberOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed controlplane.Feed
		woken := make([]int, 3)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range woken {
			sub := feed.Subscribe()
			go func() {
				for sub.Next(ctx) == nil {
					woken[i]++
				}
			}()
		}
		synctest.Wait()
		feed.Ring("task", "1")
		synctest.Wait()
		for i, n := range woken {
			if n != 1 {
				t.Errorf("subscriber %d was woken %d times; want once", i, n)
			}
		}
		cancel()
		synctest.Wait()
	})
}

func TestWritesBeforeTheCallAreNotMissedAndCountAsOne(t *testing.T) {
	var feed controlplane.Feed
	feed.Ring("task", "before")
	sub := feed.Subscribe()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sub.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a write before Subscribe: %v; want it not told", err)
	}
	for range 1000 {
		feed.Ring("task", "x") // nobody reads: it must not block
	}
	feed.Ring("model", "y")
	if err := sub.Next(ended); err != nil {
		t.Errorf("writes since Subscribe: %v; want nil although the context has ended", err)
	}
	if err := sub.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing new: %v; want the context's error", err)
	}
}

func TestSubscriptionHearsItsKindsOnly(t *testing.T) {
	var feed controlplane.Feed
	sub := feed.Subscribe("task", "model")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	feed.Ring("user", "1")
	if err := sub.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("another kind: %v; want it not told", err)
	}
	feed.Ring("model", "1")
	if err := sub.Next(ended); err != nil {
		t.Errorf("one of its kinds: %v", err)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed controlplane.Feed
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1) // one result, so that the goroutine never waits
		go func() { got <- feed.Subscribe().Next(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("Next: %v; want %v", err, context.Canceled)
		}
	})
}
