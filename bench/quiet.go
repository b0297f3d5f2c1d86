package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"clearmlserving/bench/load"
	"clearmlserving/bench/proc"
)

// measured is the result of one measurement.
type measured struct {
	PerSecond, P50, P99, CPU float64 // requests a second, microseconds
	Others                   float64 // share of the machine that went to other programs
	Worst                    string  // of those, the command that used the most
	Memory                   float64 // MB (PSS), where that was measured
	Failed                   int
	stream                   streamed
	Uneven                   bool // connections could not be spread evenly
}

// tolerable is the share of the machine that other programs may use before a result is doubtful.
const tolerable = 0.05

// Other programs run in blocks that are longer than a round, so alternation does not cancel them:
// the benchmark waits for a quiet moment, and repeats.
const (
	quietAttempts = 2
	quietPatience = 3 * time.Second
	quietWindow   = 200 * time.Millisecond
)

// quietest repeats a measurement that other programs disturbed, and keeps the one with the least
// disturbance.
func (b *bench) quietest(ctx context.Context, what string, once func() (measured, error)) (best measured, err error) {
	attempts := quietAttempts
	if b.plan.quick {
		attempts = 1
	}
	for attempt := range attempts {
		if !b.plan.quick {
			if err := waitForQuiet(ctx); err != nil {
				return best, err
			}
		}
		m, err := once()
		if err != nil {
			return best, err
		}
		if m.Failed > 0 {
			say("  %s: %d requests failed", what, m.Failed)
		}
		if attempt == 0 || m.Others < best.Others {
			best = m
		}
		if best.Others <= tolerable {
			break
		}
	}
	return best, nil
}

// waitForQuiet waits, for a limited time, until other programs are idle.
func waitForQuiet(ctx context.Context) error {
	tick := time.NewTicker(quietWindow)
	defer tick.Stop()
	for end := time.Now().Add(quietPatience); time.Now().Before(end); {
		before := proc.Busy()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if (proc.Busy() - before).Seconds() <= tolerable*quietWindow.Seconds()*float64(runtime.NumCPU()) {
			return nil
		}
	}
	return nil
}

// silenceError means that a server gave no right answer in the counted time.
type silenceError struct {
	counted time.Duration
	failure error // the first, nil when requests were only slow
}

func (e *silenceError) Error() string {
	if e.failure != nil {
		return fmt.Sprintf("no right answer in %v: %v", e.counted, e.failure)
	}
	return fmt.Sprintf("no answer in %v", e.counted)
}

func (e *silenceError) Unwrap() error { return e.failure }

// kindest is the upper bound for a server without an answer in time: one answer, right after the
// end.
func (e *silenceError) kindest() measured {
	return measured{PerSecond: 1 / e.counted.Seconds(), P50: micros(e.counted), P99: micros(e.counted)}
}

// longestCount bounds the counted time for slow answers.
const longestCount = 20 * time.Second

// once measures one counted time, and a longer one if that is too short for a single answer.
func (b *bench) once(ctx context.Context, s *server, o load.Options) (measured, error) {
	if o.Duration == 0 {
		o.Duration = b.plan.duration
	}
	for {
		m, err := b.count(ctx, s, o)
		var silence *silenceError
		if !errors.As(err, &silence) || silence.failure != nil || o.Duration >= longestCount {
			return m, err
		}
		o.Duration *= 4
	}
}

func (b *bench) count(ctx context.Context, s *server, o load.Options) (measured, error) {
	var meter proc.Meter
	o.Warmup = b.plan.warmup
	result, err := load.Run(ctx, o, meter.Begin)
	if err != nil {
		return measured{}, err
	}
	known := []int{b.control.pid}
	if s.behind != nil {
		known = append(known, s.behind.pid)
	}
	used := meter.End(s.pid, known...)
	if err := ctx.Err(); err != nil {
		return measured{}, err
	}
	if result.FirstFailure != nil {
		say("  failed: %v", result.FirstFailure)
	}
	if o.Rate > 0 && result.Late > 0 {
		say("  %d of %d arrivals had no answer at the end", result.Late, result.Late+result.Requests)
	}
	if result.Requests == 0 {
		return measured{}, &silenceError{o.Duration, result.FirstFailure}
	}
	return measured{
		PerSecond: result.PerSecond(), Failed: result.Failed, Uneven: result.Uneven,
		P50: micros(result.Latency.Percentile(50)), P99: micros(result.Latency.Percentile(99)),
		CPU: micros(used.Server) / float64(result.Requests), Others: used.Others, Worst: used.Worst,
		stream: streamedOf(result),
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }
