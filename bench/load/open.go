package load

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// seed makes the arrivals of every run equal.
const seed = 1

// open sends requests at the times of a Poisson process of o.Rate arrivals a second, whether
// earlier ones have been answered or not. A request waits for a free connection if all are in use.
// Its latency begins at its arrival, so that a slow server cannot delay the next measurement and
// thereby hide its own pauses (coordinated omission).
func open(ctx context.Context, dial dialer, host string, o Options, request []byte, counted, end time.Time) []Result {
	// Nothing is dropped: arrivals are bounded by rate and time.
	arrivals := make(chan time.Time, int(2*o.Rate*(o.Warmup+o.Duration).Seconds())+1000)
	results := make([]Result, o.Connections)
	var all sync.WaitGroup
	all.Go(func() {
		defer close(arrivals)
		arrive(ctx, o.Rate, end, arrivals)
	})
	for i := range results {
		all.Go(func() {
			r := &results[i]
			var c link
			defer func() {
				if c != nil {
					c.close()
				}
			}()
			for at := range arrivals {
				if r.Failed >= maxFailures {
					return
				}
				var err error
				if c == nil {
					c, err = dial(ctx, host)
				}
				if err == nil {
					err = c.exchange(request, o.Expect)
				}
				switch {
				case ctx.Err() != nil: // it has waited until the end at least
					if at.After(counted) {
						r.Late++
						r.Latency.Record(time.Since(at))
					}
				case !at.After(counted) && err == nil:
					c = orNone(c)
				default:
					c = r.take(c, err, time.Since(at))
				}
			}
		})
	}
	all.Wait()
	return results
}

// arrive sends the arrivals until end. Sleeps of the Go runtime have a resolution of a millisecond,
// so it sleeps in a thread of its own.
func arrive(ctx context.Context, rate float64, end time.Time, to chan<- time.Time) {
	runtime.LockOSThread() // the thread ends with this goroutine
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // arrivals need no secrecy
	next := time.Now()
	for ctx.Err() == nil {
		next = next.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if !next.Before(end) {
			return
		}
		if wait := time.Until(next); wait > 0 {
			pause := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&pause, nil) // an early end by a signal only makes this arrival early
		}
		select {
		case to <- next:
		default: // more than the bound: the server has not kept up for the whole run
			return
		}
	}
}
