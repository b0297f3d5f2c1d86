// Command bench measures our endpoints beside a plain FastAPI server that does
// the same work, on this machine: both are started afresh, asked in alternating
// rounds by the same load generator, and reported as ratios. It drives the built
// binary from outside and knows nothing of its inside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"clearmlserving/bench/load"
)

// plan is what one run of the benchmark measures.
type plan struct {
	cases       []string
	workers     []int
	connections []int
	rounds      int
	warmup      time.Duration
	duration    time.Duration
}

var (
	full  = plan{[]string{"sklearn", "null"}, []int{1, 2}, []int{1, 16, 64}, 3, 500 * time.Millisecond, 2 * time.Second}
	quick = plan{[]string{"sklearn"}, []int{1}, []int{1, 16, 64}, 1, 300 * time.Millisecond, time.Second}
)

func main() {
	results := flag.String("results", "", "write the results as JSON to this `file`")
	history := flag.String("history", "", "append the ratios, a JSON line each, to this `file`")
	table := flag.String("table", "", "write the results as a page to this `file`")
	short := flag.Bool("quick", false, "one round, one worker")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := full
	if *short {
		p = quick
	}
	report, err := bench(ctx, p)
	if err == nil {
		err = report.write(*results, *history, *table)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing to undo at the program's end
	}
}

// bench sets both sides up once, then measures every case of the plan.
func bench(ctx context.Context, p plan) (r *report, err error) {
	dir, err := filepath.Abs("bench/.work")
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	say("setting up: our service, the example's model, its endpoints")
	setup, err := prepare(ctx, dir)
	if err != nil {
		return nil, err
	}
	r = newReport(setup)
	for _, workers := range p.workers {
		if err := measure(ctx, p, setup, workers, r); err != nil {
			return nil, err
		}
	}
	r.finish()
	return r, nil
}

// measure asks both sides, with the same number of workers, in alternation.
// Servers are started afresh for each round: how the kernel spreads kept
// connections over a server's processes is luck that a round must not keep.
func measure(ctx context.Context, p plan, s *setup, workers int, r *report) error {
	for round := range p.rounds {
		sides := []side{s.ours, s.fastapi}
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, one := range sides {
			if err := measureSide(ctx, p, s, one, workers, round, r); err != nil {
				return fmt.Errorf("%s with %d workers: %w", one.name, workers, err)
			}
		}
	}
	return nil
}

func measureSide(ctx context.Context, p plan, s *setup, one side, workers, round int, r *report) (err error) {
	server, err := one.start(ctx, workers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	for _, name := range p.cases {
		body := s.bodies[name]
		url := server.url + one.path(name)
		answer, err := waitForAnswer(ctx, server, url, body)
		if err != nil {
			return err
		}
		if err := sameJSON(answer, s.answers[name]); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
		for _, connections := range p.connections {
			m, err := quietest(ctx, one.name+" "+name, func() (measured, error) {
				return measureOnce(ctx, server, load.Options{
					URL: url, Body: body, Connections: connections,
					Warmup: p.warmup, Duration: p.duration, Expect: answer,
				})
			})
			if err != nil {
				return fmt.Errorf("%s: %w", url, err)
			}
			if m.Others > tolerable {
				say("  not quiet: %.0f %% went to others, most of it to: %s", 100*m.Others, m.Worst)
			}
			r.add(one.name, key{name, workers, connections}, m)
			say("round %d  %-8s %-8s %d workers %3d connections  %8.0f/s  p50 %6.0f us  p99 %7.0f us  CPU %5.0f us  others %2.0f %%",
				round+1, one.name, name, workers, connections, m.PerSecond, m.P50, m.P99, m.CPU, 100*m.Others)
		}
	}
	return nil
}

// Other programs come and go in blocks that are longer than a round, so that
// alternation does not cancel them: a moment is waited for, and tried for again.
const (
	quietAttempts = 3
	quietPatience = 5 * time.Second
	quietWindow   = 300 * time.Millisecond
)

// quietest measures up to quietAttempts times and keeps what was seen while
// other programs used the least; a quiet one ends it.
func quietest(ctx context.Context, what string, once func() (measured, error)) (best measured, err error) {
	for attempt := range quietAttempts {
		if err := waitForQuiet(ctx); err != nil {
			return best, err
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

// waitForQuiet waits, for a while, until nobody else uses the machine.
func waitForQuiet(ctx context.Context) error {
	tick := time.NewTicker(quietWindow)
	defer tick.Stop()
	for end := time.Now().Add(quietPatience); time.Now().Before(end); {
		before := busyCPU()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if (busyCPU() - before).Seconds() <= tolerable*quietWindow.Seconds()*float64(runtime.NumCPU()) {
			return nil
		}
	}
	return nil
}

// measureOnce asks for one counted time.
func measureOnce(ctx context.Context, s *server, o load.Options) (measured, error) {
	var cpu cpuMeter
	result, err := load.Run(ctx, o, cpu.begin)
	if err != nil {
		return measured{}, err
	}
	used, others, worst := cpu.end(s.pid)
	if err := ctx.Err(); err != nil {
		return measured{}, err
	}
	if result.Requests == 0 {
		return measured{}, fmt.Errorf("not one right answer: %w", result.FirstFailure)
	}
	return measured{
		PerSecond: result.PerSecond(), Failed: result.Failed,
		P50: micros(result.Latency.Percentile(50)), P99: micros(result.Latency.Percentile(99)),
		CPU: micros(used) / float64(result.Requests), Others: others, Worst: worst,
	}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
