// Command bench compares our endpoints with other servers on this machine: all are started for each
// round, measured in alternation by one load generator, and compared with goals. It uses the built
// binary from outside and does not know its internals.
//
// cases.go has the measurements, goals.go the goals, rivals.go the servers. docs/benchmarks.md is
// generated from the results.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// plan is the scope of a run.
type plan struct {
	cases    []string // names of groups or of cases in them; empty for all
	against  []string // names of rivals; empty for all
	rounds   int
	warmup   time.Duration
	duration time.Duration
	quick    bool // fewer connections, no waiting for a quiet machine
}

// files are the outputs of a run; an empty name means no output.
type files struct {
	results, page, images string
	force                 bool // accept results with fewer rounds than the existing ones
}

func main() {
	var p plan
	var f files
	cases := flag.String("cases", "", "measure only these `names`, separated by commas; -list shows them")
	against := flag.String("against", "", "compare only with these `servers`, separated by commas")
	flag.IntVar(&p.rounds, "rounds", 5, "rounds of each case")
	flag.DurationVar(&p.duration, "duration", time.Second, "counted time of one measurement")
	flag.DurationVar(&p.warmup, "warmup", 200*time.Millisecond, "time before it that is not counted")
	flag.BoolVar(&p.quick, "quick", false, "a quick check: one round, few cases, two servers; writes no files unless named")
	flag.StringVar(&f.results, "results", "", "merge the results into this JSON `file`, case by case")
	flag.StringVar(&f.page, "page", "", "write the page of all results to this `file`")
	flag.StringVar(&f.images, "images", "", "write the page's charts into this `folder`")
	flag.BoolVar(&f.force, "force", false, "replace results with more rounds")
	standInAt := flag.String("stand-in", "", "be the server of the case stream_steady at this `address`")
	list := flag.Bool("list", false, "print the names of the cases and exit")
	render := flag.Bool("render", false, "generate page and charts from the results and exit")
	flag.Parse()
	p.cases, p.against = words(*cases), words(*against)
	if p.quick {
		p.lookOnly()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *standInAt != "":
		err = serveStandIn(ctx, *standInAt)
	case *list:
		fmt.Print(listOfCases())
	case *render:
		err = f.render()
	default:
		err = run(ctx, p, f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop only releases the signal handler
	}
}

// lookOnly is the plan of -quick, unless other cases were requested.
func (p *plan) lookOnly() {
	p.rounds, p.duration = 1, 700*time.Millisecond
	if len(p.cases) == 0 {
		p.cases = []string{"light", "cold"}
	}
	if len(p.against) == 0 {
		p.against = []string{original, fastAPI, mosec}
	}
}

// run prepares everything, then measures group by group. Complete groups are kept, also if the run
// is interrupted in a later group.
func run(ctx context.Context, p plan, f files) (err error) {
	groups, err := p.chosen()
	if err != nil {
		return err
	}
	b, err := prepare(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	begun := time.Now()
	var kept []row
	var missing []string // rivals that could not be measured, and why
	var failed []error   // groups
	for i, g := range groups {
		say("group %d of %d: %s (%s), since %v", i+1, len(groups), g.name, g.about, time.Since(begun).Round(time.Second))
		n := newNotes()
		if err := g.measure(ctx, b, g, n); err != nil {
			err = fmt.Errorf("group %s, whose results are dropped: %w", g.name, err)
			if ctx.Err() != nil {
				return err
			}
			say("%v", err)
			failed = append(failed, err)
			continue
		}
		missing = append(missing, n.out...)
		rows := n.rows(b.versions)
		if err := f.keep(rows); err != nil {
			return err
		}
		kept = append(kept, rows...)
	}
	fmt.Print(summary(kept))
	for _, text := range missing {
		say("left out: %s", text)
	}
	say("%d groups in %v", len(groups), time.Since(begun).Round(time.Second))
	if p.rounds < fullRounds {
		say("fewer than %d rounds: not for publishing", fullRounds)
	}
	return errors.Join(append(failed, f.render())...)
}

// words splits a list; a name may contain spaces, as those of some servers do.
func words(list string) []string {
	var all []string
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word != "" {
			all = append(all, word)
		}
	}
	return all
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
