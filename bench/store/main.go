// Command store measures the embedded ClearML server with many tasks and models: the duration of
// lists, filters, and writes over HTTP, on SQLite and on PostgreSQL, and the effect of a large
// import of events.
//
// It owns a temporary folder with the filled server. It uses the built binary from outside: the
// content is a backup for "server restore".
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
	"time"
)

type options struct {
	binary        string
	tasks, models int
	events        int
	rounds        int
	postgres      bool
	limit         time.Duration
	only          string
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/clearml-serving", "the program to measure")
	flag.IntVar(&o.tasks, "tasks", 100_000, "number of stored tasks")
	flag.IntVar(&o.models, "models", 100_000, "how many models")
	flag.IntVar(&o.events, "events", 1_000_000, "number of scalars that are imported while lists are requested; 0 skips this")
	flag.IntVar(&o.rounds, "rounds", 200, "number of requests per query")
	flag.BoolVar(&o.postgres, "postgres", true, "measure PostgreSQL too, if it is installed")
	flag.DurationVar(&o.limit, "limit", 0, "fail if a list's 99th percentile is above this; 0 only prints")
	flag.StringVar(&o.only, "only", "", "run only the queries whose names have this prefix, such as \"page:\"")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench/store:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-store")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	content := filepath.Join(dir, "content.backup")
	began := time.Now()
	if err := writeContent(content, o.tasks, o.models); err != nil {
		return fmt.Errorf("make the content: %w", err)
	}
	fmt.Printf("content: %d tasks, %d models, made in %.0f s\n", o.tasks, o.models, time.Since(began).Seconds())
	slow, err := measureStore(ctx, o, "SQLite", filepath.Join(dir, "sqlite"), content, "")
	if err != nil || !o.postgres {
		return errors.Join(err, tooSlow(slow))
	}
	pg, err := startPostgres(ctx, filepath.Join(dir, "pg"))
	if err != nil {
		fmt.Printf("PostgreSQL is skipped: %v\n", err)
		return tooSlow(slow)
	}
	defer pg.stop()
	more, err := measureStore(ctx, o, "PostgreSQL", filepath.Join(dir, "postgres"), content, pg.url)
	return errors.Join(err, tooSlow(append(slow, more...)))
}

func tooSlow(names []string) error {
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("slower than the limit: %v", names)
}

// measureStore fills a server, sends all queries, and prints a table. It returns the queries that
// took longer than the limit.
func measureStore(ctx context.Context, o options, name, dir, content, databaseURL string) (slow []string, err error) {
	began := time.Now()
	if err := restore(ctx, o.binary, dir, content, databaseURL); err != nil {
		return nil, err
	}
	fmt.Printf("\n%s: restored in %.0f s\n\n", name, time.Since(began).Seconds())
	s, err := startServer(ctx, o.binary, dir, databaseURL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	fmt.Printf("| %s | p50 ms | p99 ms | most ms | processor ms |\n|---|---:|---:|---:|---:|\n", name)
	for _, q := range questions(o) {
		if !strings.HasPrefix(q.name, o.only) {
			continue
		}
		t, err := s.ask(ctx, q, o.rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		t.print(q.name)
		if o.limit > 0 && q.list && t.at(0.99) > o.limit {
			slow = append(slow, name+": "+q.name)
		}
	}
	if o.events == 0 {
		return slow, nil
	}
	return slow, s.importEvents(ctx, o)
}
