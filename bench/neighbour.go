package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"clearmlserving/bench/load"
)

// idleCase is the baseline for a busy machine: the same endpoint without other load.
const idleCase = "its own when idle"

// A request of the burning endpoint takes 2 s, so one second would not contain it.
const disturbedFor = 4 * time.Second

// measureNeighbour measures a fast endpoint alone, then while another endpoint keeps a core busy,
// on ours and on the original.
func measureNeighbour(ctx context.Context, b *bench, g group, n *notes) error {
	for round := range b.plan.rounds {
		found := map[string][2][2]measured{} // by side: connections, then idle and disturbed
		for _, one := range sides[:2] {
			m, err := b.disturb(ctx, one, g, round)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			found[one.name] = m
		}
		for i, connections := range neighbourConnections {
			us, them := found[ours][i], found[original][i]
			k := key{"neighbour", g.workers, connections}
			n.add(k, idleCase, "p99 us", us[1].P99, us[0].P99, us[0].doubtful() || us[1].doubtful())
			n.add(k, original, "p99 us", us[1].P99, them[1].P99, us[1].doubtful() || them[1].doubtful())
			n.add(k, original, "requests/s", us[1].PerSecond, them[1].PerSecond, us[1].doubtful() || them[1].doubtful())
		}
	}
	return nil
}

var neighbourConnections = [2]int{1, 64}

func (b *bench) disturb(ctx context.Context, one side, g group, round int) (found [2][2]measured, err error) {
	s, err := one.start(ctx, b, deployment{names: []string{"null", "burn"}, workers: g.workers})
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	fast, burn := s.url+fmt.Sprintf(one.path, "null"), s.url+fmt.Sprintf(one.path, "burn")
	answer, err := s.answerOf(ctx, fast, "", twoNumbers())
	if err != nil {
		return found, err
	}
	if _, err := s.answerOf(ctx, burn, "", twoNumbers()); err != nil {
		return found, err
	}
	for i, connections := range neighbourConnections {
		o := load.Options{URL: fast, Body: twoNumbers(), Connections: connections, Expect: answer}
		m, err := b.quietest(ctx, one.name+" idle", func() (measured, error) { return b.once(ctx, s, o) })
		if err != nil {
			return found, err
		}
		found[i][0] = m
		tell(round, one, "idle", connections, m)
		m, err = b.beside(ctx, s, burn, o)
		var silence *silenceError
		if one.name != ours && errors.As(err, &silence) && silence.failure == nil {
			say("  %s beside the burning one: %v, counted as one answer at the end of that time", one.name, err)
			m, err = silence.kindest(), nil
		}
		if err != nil {
			return found, err
		}
		found[i][1] = m
		tell(round, one, "disturbed", connections, m)
	}
	return found, nil
}

// beside measures while one more connection keeps requesting CPU-bound work.
func (b *bench) beside(ctx context.Context, s *server, burn string, o load.Options) (m measured, err error) {
	ctx, stop := context.WithCancel(ctx)
	var neighbour sync.WaitGroup
	defer func() { stop(); neighbour.Wait() }()
	neighbour.Go(func() { // ends when it is stopped; its result is not needed
		_, _ = load.Run(ctx, load.Options{URL: burn, Body: twoNumbers(), Duration: time.Hour}, nil)
	})
	o.Duration = disturbedFor
	return b.once(ctx, s, o)
}

// measureChange measures an endpoint while another is added and replaced, once a second: both sides
// poll their configuration at the same rate.
func measureChange(ctx context.Context, b *bench, g group, n *notes) error {
	for round := range b.plan.rounds {
		var found [2]measured
		for i, one := range sides[:2] {
			m, err := b.changing(ctx, one, g)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			found[i] = m
			tell(round, one, "change", changeConnections, m)
		}
		doubtful := found[0].doubtful() || found[1].doubtful()
		k := key{"change", g.workers, changeConnections}
		for _, m := range metrics[:3] { // not CPU, because loading is in it
			n.add(k, original, m.name, m.of(found[0]), m.of(found[1]), doubtful)
		}
		n.add(k, original, "failed requests", float64(found[0].Failed), float64(found[1].Failed), false)
	}
	return nil
}

const (
	changeConnections = 16
	lookEvery         = "CLEARML_SERVING_POLL_FREQ=0.02" // minutes
)

func (b *bench) changing(ctx context.Context, one side, g group) (m measured, err error) {
	names := []string{"null", "lr"}
	service, err := b.deploy(ctx, names)
	if err != nil {
		return m, err
	}
	s, err := one.start(ctx, b, deployment{names: names, workers: g.workers, env: []string{lookEvery}})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	url := s.url + fmt.Sprintf(one.path, "null")
	answer, err := s.answerOf(ctx, url, "", twoNumbers())
	if err != nil {
		return m, err
	}
	ctx, stop := context.WithCancel(ctx)
	var changes sync.WaitGroup
	var failed error
	changes.Go(func() { failed = b.change(ctx, service) })
	defer func() {
		stop()
		changes.Wait()
		err = errors.Join(err, failed)
	}()
	return b.once(ctx, s, load.Options{URL: url, Body: twoNumbers(), Connections: changeConnections, Expect: answer, Duration: disturbedFor})
}

// change replaces an endpoint once a second until ctx ends.
func (b *bench) change(ctx context.Context, service string) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		e := endpoints["lr"]
		if i%2 == 1 {
			e = endpoints["json"]
		}
		if err := b.addEndpoint(ctx, service, "changing", e); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// askAll sends requests from several connections, so that every worker has work.
func (b *bench) askAll(ctx context.Context, s *server, path string, body []byte, connections int) error {
	result, err := load.Run(ctx, load.Options{URL: s.url + path, Body: body, Connections: connections, Duration: time.Second}, nil)
	if err == nil && (result.Requests == 0 || result.Failed > 0) {
		err = fmt.Errorf("%s in %s: %d answers, %d failed: %w", path, filepath.Base(s.log), result.Requests, result.Failed, result.FirstFailure)
	}
	return err
}
