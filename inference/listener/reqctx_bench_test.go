package listener

import (
	"testing"
	"time"
)

// BenchmarkContextOfARequest measures the cost per request of a context with a
// deadline.
func BenchmarkContextOfARequest(b *testing.B) {
	b.ReportAllocs()
	c := new(conn)
	for b.Loop() {
		r := &requestContext{c: c}
		c.ctx.Store(r)
		ctx, stop := WithTimeout(r, time.Minute)
		select {
		case <-ctx.Done():
			b.Fatal("it has ended")
		default:
		}
		stop()
		r.answered()
		r.cancel()
	}
}
