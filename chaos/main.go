// Command chaos injects faults into a running installation while clients with
// known answers send requests, and reports the effect of each fault: wrong answers, failures
// of the endpoint that was hit, failures of others. It owns the faults, the
// clients and the report; it uses the product only by its binary and by HTTP.
//
//	go run ./chaos                     every fault, at least 200,000 requests
//	go run ./chaos -short              the short form of make test
//	go run ./chaos -only zygote        faults whose name contains a word
//	go run ./chaos -soak 20m           changing configuration, with a chart of memory and descriptors
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := run
	if stand := standIns[filepath.Base(os.Args[0])]; stand != nil {
		s := &standIn{dir: filepath.Dir(os.Args[0])}
		start = func(ctx context.Context, args []string) error { return s.run(ctx, stand, args) }
	}
	if err := start(ctx, os.Args[1:]); err != nil {
		say("%v", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

// settings are the command-line options.
type settings struct {
	binary, python, results, table string
	only                           string
	short, keep                    bool
	least                          int
	soak                           time.Duration
	wrong                          wrongControl
}

func run(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.StringVar(&s.binary, "binary", "bin/clearml-serving", "the program under test")
	flags.StringVar(&s.python, "python", ".venv/bin/python", "the Python that runs models, with scikit-learn")
	flags.StringVar(&s.results, "results", "", "write the results to this file as JSON; with -only, those of other faults in it stay")
	flags.StringVar(&s.table, "table", "", "write the results to this file as a page of documentation; of a soak, as a chart")
	flags.StringVar(&s.only, "only", "", "inject only faults whose name contains one of these words, split by commas")
	flags.BoolVar(&s.short, "short", false, "leave out the slow faults and run for a shorter time")
	flags.BoolVar(&s.keep, "keep", false, "keep the folder of the installation, with its logs")
	flags.IntVar(&s.least, "least", 0, "go on until this many requests have been answered (default 200,000, in the short form 0)")
	flags.DurationVar(&s.soak, "soak", 0, "instead of faults: load and changing configuration for this long")
	flags.StringVar(&s.wrong.data, "wrong-control", "", "instead of everything else: run a control plane on this data folder, with a wrong clock")
	flags.StringVar(&s.wrong.api, "api", "", "API address of the control plane")
	flags.StringVar(&s.wrong.files, "files", "", "file server address of the control plane")
	flags.StringVar(&s.wrong.clock, "clock", "", "the file with the number of seconds by which its clock is ahead")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.wrong.data != "" {
		return s.wrong.run(ctx)
	}
	if s.least == 0 && !s.short && s.only == "" {
		s.least = 200_000
	}
	for _, path := range []*string{&s.binary, &s.python} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	dir, err := os.MkdirTemp("", "clearml-serving-chaos-")
	if err != nil {
		return err
	}
	if s.keep {
		say("the installation is in %s", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	if s.soak > 0 {
		return soak(ctx, s, dir)
	}
	return inject(ctx, s, dir)
}

// inject starts an installation, injects fault after fault and reports.
func inject(ctx context.Context, s settings, dir string) (err error) {
	chosen := choose(faults(), s)
	if len(chosen) == 0 {
		return fmt.Errorf("no fault has %q in its name", s.only)
	}
	world, err := start(ctx, s, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.stop()) }()
	t := newTraffic(world)
	defer t.end()
	r := &report{short: s.short}
	say("%d faults, %d endpoints under load", len(chosen), len(bystanders))
	for _, f := range chosen {
		one, err := f.run(ctx, world, t)
		if errors.Is(err, errSkipped) {
			say("%s: %v", f.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", f.name, err, world.lastLines())
		}
		r.add(one)
		say("%s", one)
	}
	for t.total() < s.least && ctx.Err() == nil {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	r.total = t.total()
	r.rest = t.take("") // observations between faults count as well
	fmt.Print(r.table())
	if err := r.store(s); err != nil {
		return err
	}
	if bad := r.verdict(); bad != nil {
		if s.keep {
			say("see %s", dir)
		}
		return fmt.Errorf("%w\n%s", bad, world.lastLines())
	}
	return nil
}

// store writes the results to the files of the settings. Results of faults that were not chosen stay.
func (r *report) store(s settings) error {
	all := *r
	if s.only != "" && s.results != "" {
		if err := all.keep(s.results); err != nil {
			return err
		}
	}
	if s.results != "" {
		if err := all.write(s.results); err != nil {
			return err
		}
	}
	if s.table == "" {
		return nil
	}
	return os.WriteFile(s.table, []byte(all.page()), 0o644)
}

func choose(all []fault, s settings) []fault {
	var chosen []fault
	for _, f := range all {
		if s.short && f.slow && s.only == "" {
			continue
		}
		for word := range strings.SplitSeq(s.only, ",") {
			if strings.Contains(f.name, word) {
				chosen = append(chosen, f)
				break
			}
		}
	}
	return chosen
}

// pause waits unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "chaos: "+format+"\n", args...) }
