package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"clearmlserving/bench/load"
)

const (
	// shareOfCapacity is the load of a case with arrivals: this share of the original's throughput.
	shareOfCapacity = 0.7
	// capacityConnections is the number of connections at which the original's throughput is measured.
	capacityConnections = 64
	// arrivalsFor is the counted time: a percentile of 99 needs many arrivals of a slow case.
	arrivalsFor = 5 * time.Second
)

// measureArrivals measures all sides at the same rate of arrivals, which does not depend on their
// answers: 70 % of what the original can answer, measured at the beginning.
func measureArrivals(ctx context.Context, b *bench, g group, n *notes) error {
	rates, err := b.capacities(ctx, g)
	if err != nil {
		return fmt.Errorf("the throughput of the original, on which the rates depend: %w", err)
	}
	return measureRounds(ctx, b, g, n, func(c loadCase, o load.Options) load.Options {
		o.Rate, o.Duration = rates[cmp.Or(c.beside[original], c.name)], arrivalsFor
		o.Owner = nil // each arrival takes any free connection
		return o
	})
}

// capacities is the throughput of the original in a closed loop, by case, times shareOfCapacity.
func (b *bench) capacities(ctx context.Context, g group) (rates map[string]float64, err error) {
	one := sideOf(original)
	s, err := one.start(ctx, b, deployment{names: g.served(*one), workers: g.workers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	rates = map[string]float64{}
	for _, c := range g.cases {
		if c.beside[original] != "" { // it gets the rate of that case
			continue
		}
		o, err := b.loadOf(ctx, s, *one, c, g, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		o.Connections = capacityConnections
		m, err := b.quietest(ctx, original+" "+c.name, func() (measured, error) { return b.once(ctx, s, o) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		rates[c.name] = shareOfCapacity * m.PerSecond
		say("  %s: the original answers %.0f/s, so %.0f arrive a second", c.name, m.PerSecond, rates[c.name])
	}
	return rates, nil
}

func sideOf(name string) *side {
	for i := range sides {
		if sides[i].name == name {
			return &sides[i]
		}
	}
	return nil
}
