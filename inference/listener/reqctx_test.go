package listener_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
)

// kept are the contexts of one request that a handler may keep.
type kept struct {
	base, limited, derived context.Context //nolint:containedctx // the test keeps them
	after                  chan struct{}
	stop                   context.CancelFunc // of derived
}

func TestTheContextOfAnAnsweredRequestStaysCancelled(t *testing.T) {
	all := make(chan kept, 1)
	handler := func(ctx context.Context, r *listener.Request) *listener.Response {
		k := kept{base: ctx, after: make(chan struct{})}
		limit := time.Hour
		if r.Path == "/expired" {
			limit = time.Millisecond
		}
		k.limited, _ = listener.WithTimeout(ctx, limit)
		k.derived, k.stop = context.WithTimeout(k.limited, time.Hour)
		context.AfterFunc(ctx, func() { close(k.after) })
		if r.Path == "/expired" {
			<-k.limited.Done()
		} else {
			if _, ok := k.base.Deadline(); ok {
				t.Error("a deadline appears on the context it was derived from")
			}
			if k.base.Err() != nil || k.limited.Err() != nil {
				t.Errorf("under way: %v, %v", k.base.Err(), k.limited.Err())
			}
		}
		all <- k
		return &listener.Response{Response: engine.Response{Status: 200}}
	}
	each(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		c := dial(t, addr)
		from := bufio.NewReader(c)
		var before []kept
		var deadlines []time.Time
		for _, path := range []string{"/", "/expired", "/", "/", "/expired", "/"} {
			if _, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			k := <-all
			before = append(before, k)
			deadline, ok := k.limited.Deadline()
			if !ok {
				t.Error("a deadline has gone")
			}
			deadlines = append(deadlines, deadline)
			want := context.Canceled
			if path == "/expired" {
				want = context.DeadlineExceeded
			}
			<-k.base.Done() // when the response has been written, or soon after
			<-k.limited.Done()
			<-k.derived.Done() // although stop was not called
			defer k.stop()
			<-k.after
			if err := k.limited.Err(); !errors.Is(err, want) {
				t.Errorf("%s: the context with a deadline ended with %v", path, err)
			}
			for i, old := range before {
				select {
				case <-old.base.Done():
				default:
					t.Errorf("request %d is under way again", i)
				}
				if err := old.base.Err(); !errors.Is(err, context.Canceled) {
					t.Errorf("request %d ended with %v", i, err)
				}
				if again, _ := old.limited.Deadline(); !again.Equal(deadlines[i]) {
					t.Errorf("request %d has another deadline", i)
				}
				late, cancel := listener.WithTimeout(old.base, time.Hour)
				if late.Err() == nil {
					t.Errorf("request %d: what is derived from an ended context goes on", i)
				}
				cancel()
			}
		}
	})
}

func TestASecondDeadlineAndOneOfAWrappedContextAreKept(t *testing.T) {
	type key struct{}
	errs := make(chan error, 2)
	handler := func(ctx context.Context, _ *listener.Request) *listener.Response {
		_, cancel := listener.WithTimeout(ctx, time.Hour)
		defer cancel()
		for _, ctx := range []context.Context{ctx, context.WithValue(ctx, key{}, 1)} {
			second, cancel := listener.WithTimeout(ctx, time.Millisecond)
			<-second.Done()
			errs <- second.Err()
			cancel()
		}
		return &listener.Response{Response: engine.Response{Status: 200}}
	}
	each(t, listener.Options{Handler: listener.AnswerFunc(handler)}, func(t *testing.T, addr string) {
		t.Helper()
		resp, err := http.Post("http://"+addr, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it ended with %v", err)
			}
		}
	})
}
