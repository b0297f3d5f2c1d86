package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"clearmlserving/bench/proc"
)

// askEvery is the polling interval for a starting server: the precision of its times.
const askEvery = time.Millisecond

// measureCold measures the time from the start of the process to the first answer to a probe and to
// the first prediction. The model has been downloaded before, as in a restart of an instance.
func measureCold(ctx context.Context, b *bench, g group, n *notes) error {
	for round := range b.plan.rounds + 1 { // the first fills the caches
		health, first, err := b.coldOurs(ctx, g)
		if err != nil {
			return err
		}
		theirs, err := b.coldOriginal(ctx, g)
		if err != nil {
			return err
		}
		if round == 0 {
			continue
		}
		say("round %d  health after %.0f ms, first answer after %.0f ms; the original's after %.0f ms", round, millis(health), millis(first), millis(theirs))
		k := key{"cold start", 1, 0}
		n.add(k, "", "ms to health", millis(health), 0, false)
		n.add(k, original, "ms to first answer", millis(first), millis(theirs), false)
	}
	return nil
}

func (b *bench) coldOurs(ctx context.Context, g group) (health, first time.Duration, err error) {
	s, err := launchOurs(ctx, b, deployment{names: []string{"lr"}, workers: g.workers})
	if err != nil {
		return 0, 0, err
	}
	err = s.wait(ctx, askEvery, func() error { return get(ctx, s.url+"/livez") })
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	health = time.Since(s.begun)
	err = s.poll(ctx, askEvery, asks(ctx, s.url+"/serve/lr"))
	return health, time.Since(s.begun), err
}

func (b *bench) coldOriginal(ctx context.Context, g group) (first time.Duration, err error) {
	s, err := startOriginal(ctx, b, deployment{names: []string{"lr"}, workers: g.workers})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	err = s.poll(ctx, askEvery, asks(ctx, s.url+"/serve/lr"))
	return time.Since(s.begun), err
}

func asks(ctx context.Context, url string) func() error {
	return func() error {
		_, err := request(ctx, http.MethodPost, url, "", twoNumbers())
		return err
	}
}

// hundred is the number of endpoints in the case of many.
const hundred = 100

// measureHundred measures time and memory of many endpoints: each model has its own process in
// ours, all are in one process in the original.
func measureHundred(ctx context.Context, b *bench, g group, n *notes) error {
	names := make([]string, hundred)
	for i := range names {
		names[i] = "lr" + strconv.Itoa(i) + "=lr"
	}
	say("  adding %d endpoints", hundred)
	for round := range min(3, b.plan.rounds) + 1 { // the original takes long
		one, err := b.many(ctx, startOursAtOnce, names[:1], g)
		if err != nil {
			return err
		}
		all, err := b.many(ctx, startOursAtOnce, names, g)
		if err != nil {
			return err
		}
		theirs, err := b.many(ctx, startOriginal, names, g)
		if err != nil {
			return err
		}
		if round == 0 {
			continue // it filled the caches
		}
		say("round %d  1 endpoint: %.0f ms, %.0f MB; %d: %.0f ms, %.0f MB; the original: %.0f ms, %.0f MB",
			round, millis(one.took), one.memory, hundred, millis(all.took), all.memory, millis(theirs.took), theirs.memory)
		n.add(key{"1 endpoint", 1, 0}, "", "ms to ready", millis(one.took), 0, false)
		n.add(key{"1 endpoint", 1, 0}, "", "PSS MB", one.memory, 0, false)
		k := key{"100 endpoints", 1, 0}
		n.add(k, original, "ms to ready", millis(all.took), millis(theirs.took), false)
		n.add(k, original, "PSS MB", all.memory, theirs.memory, false)
		k.Case = "each of 100 endpoints"
		n.add(k, "", "ms to ready", millis(all.took-one.took)/(hundred-1), 0, false)
		n.add(k, "", "PSS MB", (all.memory-one.memory)/(hundred-1), 0, false)
	}
	return nil
}

func startOursAtOnce(ctx context.Context, b *bench, d deployment) (*server, error) {
	s, err := launchOurs(ctx, b, d)
	if err != nil {
		return nil, err
	}
	return s, s.wait(ctx, askEvery, func() error { return get(ctx, s.url+"/livez") })
}

type many struct {
	took   time.Duration // from start until every endpoint has answered
	memory float64
}

func (b *bench) many(ctx context.Context, launch func(context.Context, *bench, deployment) (*server, error), names []string, g group) (m many, err error) {
	s, err := launch(ctx, b, deployment{names: names, workers: g.workers})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for i := range names {
		if err := s.poll(ctx, askEvery, asks(ctx, s.url+"/serve/lr"+strconv.Itoa(i))); err != nil {
			return m, fmt.Errorf("endpoint %d of %d: %w", i+1, len(names), err)
		}
	}
	m.took = time.Since(s.begun)
	pss, err := proc.PSS(s.pid)
	m.memory = megabytes(pss)
	return m, err
}

// oneWorkerCase is the baseline for a forest in several workers.
const oneWorkerCase = "one worker's memory"

// measureShared measures the memory of a large model in one worker and in several: shared memory is
// counted once.
func measureShared(ctx context.Context, b *bench, g group, n *notes) error {
	say("  training the large forest, once")
	if err := b.train(ctx, "big.pkl", "big"); err != nil {
		return err
	}
	for round := range min(3, b.plan.rounds) {
		one, err := b.holding(ctx, 1)
		if err != nil {
			return err
		}
		several, err := b.holding(ctx, g.workers)
		if err != nil {
			return err
		}
		say("round %d  1 worker: %.0f MB; %d: %.0f MB", round+1, one, g.workers, several)
		n.add(key{"forest of 500 MB", g.workers, 0}, oneWorkerCase, "PSS MB", several, one, false)
	}
	return nil
}

// holding is the memory after each worker has answered a request.
func (b *bench) holding(ctx context.Context, workers int) (memory float64, err error) {
	s, err := startOurs(ctx, b, deployment{names: []string{"big"}, workers: workers})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	body := encoded(map[string]any{"rows": [][]float64{{0.1, 0.2, 0.3, 0.4}}})
	if _, err := s.answerOf(ctx, s.url+"/serve/big", "", body); err != nil {
		return 0, err
	}
	if err := b.askAll(ctx, s, "/serve/big", body, 4*workers); err != nil {
		return 0, err
	}
	pss, err := proc.PSS(s.pid)
	return megabytes(pss), err
}
