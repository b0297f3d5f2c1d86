// Command scaling tells what an installation needs for a number of requests a second, and for a number of endpoints: a model of
// queues and costs whose constants were measured. It prints the tables of docs/scaling.md.
//
//	go run ./bench/scaling                      the tables
//	go run ./bench/scaling -endpoints 1000      measures what so many endpoints take on this machine
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	endpoints := flag.Int("endpoints", 0, "measure this many endpoints instead")
	binary := flag.String("binary", "bin/clearml-serving", "the program, for -endpoints")
	python := flag.String("python", ".venv/bin/python", "interpreter with scikit-learn, for -endpoints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *endpoints > 0 {
		err = many(ctx, *binary, *python, *endpoints)
	} else {
		err = tables(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		stop()
		os.Exit(1)
	}
}
