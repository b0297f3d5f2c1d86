package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// everything as the target of a fault: it may affect every endpoint, such as the end of the
// service.
const everything = "everything"

// fault is one kind of fault.
type fault struct {
	name     string
	about    string
	hit      string // the endpoint whose clients may see errors, "" for none
	statuses []int  // which errors
	slow     bool   // not in the short form
	// inject injects the fault and returns when it is over.
	inject func(ctx context.Context, w *world) error
}

// errSkipped is the error of a fault that cannot be injected on this machine.
var errSkipped = errors.New("skipped")

// patience bounds the time until the affected endpoint answers again.
const patience = 2 * time.Minute

func faults() []fault {
	return slices.Concat(workerFaults(), codeFaults(), userCodeFaults(), loadFaults(), clientFaults(), http2Faults(), listenerFaults(), streamFaults(), controlFaults(), deployFaults(), configFaults(), machineFaults(), revisionFaults(), statisticsFaults(), engineFaults())
}

// run injects the fault, waits for the recovery, and returns the outcome.
func (f fault) run(ctx context.Context, w *world, t *traffic) (outcome, error) {
	if before := t.take(""); before.elsewhere.failures()+before.elsewhere.wrong > 0 {
		return outcome{}, fmt.Errorf("answers are wrong before the fault is injected: %s", before.elsewhere.example)
	}
	w.back = 0
	if err := f.inject(ctx, w); err != nil {
		return outcome{}, err
	}
	begun := time.Now()
	if err := recovered(ctx, w); err != nil {
		return outcome{}, err
	}
	took := max(time.Since(begun), w.back)
	// Late answers belong to this fault.
	if err := errors.Join(t.settled(ctx), pause(ctx, 300*time.Millisecond)); err != nil {
		return outcome{}, err
	}
	return outcomeOf(f, t.take(f.hit), took), nil
}

// recovered waits until every endpoint answers several times in a row.
func recovered(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range append(slices.Clone(bystanders), victim) {
		for good := 0; good < 5; {
			status, body, err := post(ctx, http.DefaultClient, w.endpoint(name), []byte(`{"x": 3}`))
			if err == nil && status == http.StatusOK && right(name, 3, body) {
				good++
				continue
			}
			good = 0
			if pause(ctx, 5*time.Millisecond) != nil {
				return fmt.Errorf("%s did not recover within %v: %d %s (%w)", name, patience, status, body, err)
			}
		}
	}
	return nil
}

// harm sends a harmful request to the victim; the answer must be one of statuses, 0 for a broken
// connection.
func harm(body string, statuses ...int) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error { return w.ask(ctx, victim, body, statuses...) }
}

// overdue sends a request that never ends to the victim, with a short deadline.
func overdue(body string) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		status, answer, err := post(ctx, http.DefaultClient, w.endpoint(victim), []byte(body), "X-Request-Timeout", "3")
		if err == nil && status != http.StatusGatewayTimeout {
			err = fmt.Errorf("%s was answered %d %.300s, want %d", body, status, answer, http.StatusGatewayTimeout)
		}
		return err
	}
}

func (w *world) ask(ctx context.Context, endpoint, body string, statuses ...int) error {
	status, answer, err := post(ctx, http.DefaultClient, w.endpoint(endpoint), []byte(body))
	if err != nil {
		status = 0
		if len(statuses) == 0 || !slices.Contains(statuses, 0) {
			return err
		}
	}
	if !slices.Contains(statuses, status) {
		return fmt.Errorf("%s was answered %d %.300s, want one of %v", body, status, answer, statuses)
	}
	return nil
}

// several injects the same fault repeatedly.
func several(n int, gap time.Duration, one func(context.Context, *world) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		for range n {
			if err := errors.Join(one(ctx, w), pause(ctx, gap)); err != nil {
				return err
			}
		}
		return nil
	}
}
