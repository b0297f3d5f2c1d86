package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"clearmlserving/bench/load"
	"clearmlserving/bench/proc"
)

// pipelinePort is the fixed port at which the original's user code expects its own service.
const pipelinePort = 8080

// measureLoad measures all sides in a closed loop.
func measureLoad(ctx context.Context, b *bench, g group, n *notes) error {
	return measureRounds(ctx, b, g, n, nil)
}

// adjust changes the load of a case; nil keeps it.
type adjust func(c loadCase, o load.Options) load.Options

// measureRounds measures all sides in alternation. Servers are started for each round, and each round
// begins with another server.
func measureRounds(ctx context.Context, b *bench, g group, n *notes, change adjust) error {
	taking := b.taking(g)
	wanted := map[string][]byte{} // our answers, by case
	failed := map[string]bool{}
	for round := range b.plan.rounds {
		seen := map[string]map[string]measured{} // by side, then by case and connections
		for i := range taking {
			one := taking[(i+round)%len(taking)]
			if failed[one.name] {
				continue
			}
			results, err := b.askSide(ctx, g, one, round, wanted, change)
			if ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if err != nil {
				if one.name == ours {
					return err
				}
				// A rival that fails loses its own rows, not the run.
				say("  %s is omitted from this group: %v", one.name, err)
				n.leftOut(g.name, one.name, err)
				failed[one.name] = true
				continue
			}
			seen[one.name] = results
		}
		g.compare(seen, n)
	}
	return nil
}

// taking returns the sides of a group. Ours is the first, so that the others' answers can
// be compared with ours from the first round on.
func (b *bench) taking(g group) []side {
	all := []side{sides[0]}
	for _, one := range sides[1:] {
		wanted := len(b.plan.against) == 0 || slices.Contains(b.plan.against, one.name)
		if wanted && slices.ContainsFunc(g.cases, func(c loadCase) bool { return slices.Contains(c.against, one.name) }) {
			all = append(all, one)
		}
	}
	return all
}

// askSide starts one server, measures all cases of the group, and stops it.
func (b *bench) askSide(ctx context.Context, g group, one side, round int, wanted map[string][]byte, change adjust) (_ map[string]measured, err error) {
	d := deployment{names: g.served(one), workers: g.workers}
	if slices.Contains(d.names, "pipeline") && one.name == original {
		if err := free(pipelinePort); err != nil {
			return nil, fmt.Errorf("the original can only run pipelines at this port: %w", err)
		}
		d.port = pipelinePort
	}
	s, err := one.start(ctx, b, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	results := map[string]measured{}
	for _, c := range g.cases {
		if one.name != ours && (!slices.Contains(c.against, one.name) || c.beside[one.name] != "") {
			continue
		}
		o, err := b.loadOf(ctx, s, one, c, g, wanted)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		for _, connections := range b.connectionsOf(c, one) {
			o.Connections = connections
			if change != nil {
				o = change(c, o)
			}
			m, err := b.quietest(ctx, one.name+" "+c.name, func() (measured, error) { return b.once(ctx, s, o) })
			if err != nil {
				return nil, fmt.Errorf("%s with %d connections: %w", c.name, connections, err)
			}
			results[at(c.name, connections)] = m
			tell(round, one, c.name, connections, m)
		}
	}
	pss, err := proc.PSS(s.pid)
	results[memoryCase] = measured{Memory: megabytes(pss)}
	return results, err
}

// memoryCase is the memory of a side's processes after a group's cases.
const memoryCase = "memory"

func at(name string, connections int) string { return fmt.Sprint(name, " ", connections) }

func tell(round int, one side, name string, connections int, m measured) {
	say("round %d  %-10.10s %-10s %3d connections  %8.0f/s  p50 %7.0f us  p99 %8.0f us  CPU %6.0f us  others %2.0f %%",
		round+1, one.name, name, connections, m.PerSecond, m.P50, m.P99, m.CPU, 100*m.Others)
	if s := m.stream; s.each > 0 {
		say("  %.0f tokens/s in %.2f chunks an answer, first p50 %.0f us, p99 %.0f us, between p50 %.0f us, p99 %.0f us", s.perSecond, s.each, s.first50, s.first99, s.between50, s.between99)
	}
	if m.Others > tolerable {
		say("  not quiet: %.0f %% of the CPU time went to other programs, most of it to: %s", 100*m.Others, m.Worst)
	}
	if m.Uneven {
		say("  uneven: one process always accepted more connections than its share")
	}
}

// served is the endpoints that a side needs for the group's cases.
func (g group) served(one side) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, c := range g.cases {
		switch {
		case c.name == constantCase:
		case one.name == ours || one.name == original || one.name == originalGC: // they share a configuration
			add(c.served())
			if c.name == "pipeline" {
				add("lr")
			}
		case slices.Contains(c.against, one.name) && c.beside[one.name] == "":
			add(c.served())
		}
	}
	return names
}

// warmFor is enough for a first answer of each process; otherwise once makes it longer.
const warmFor = 500 * time.Millisecond

// connectionsOf is the number of connections for a side.
func (b *bench) connectionsOf(c loadCase, one side) []int {
	all := c.connections
	if slices.Contains(c.few, one.name) || one.name == originalGC {
		all = []int{min(64, slices.Max(all))}
	}
	if b.plan.quick && len(all) > 1 {
		all = all[max(0, len(all)-2):]
	}
	return all
}

// loadOf is the request for a side, and its expected answer.
func (b *bench) loadOf(ctx context.Context, s *server, one side, c loadCase, g group, wanted map[string][]byte) (o load.Options, err error) {
	if c.name == constantCase {
		return load.Options{URL: s.url + constantAnswer, Method: methodOf[constantCase]}, nil
	}
	if c.protocol != ownWay {
		if o, err = b.v2Of(ctx, s, one, c, wanted); err != nil {
			return o, err
		}
		return o, b.warm(ctx, s, o, g.workers)
	}
	body := c.body()
	if one.body != nil {
		if body, err = one.body(c.served(), body); err != nil {
			return o, err
		}
	}
	bare := c.bare && one.name == ours
	if bare {
		m, err := matrixOf(body)
		if err != nil {
			return o, err
		}
		if body, err = m.bare(); err != nil {
			return o, err
		}
	}
	o = load.Options{URL: s.url + fmt.Sprintf(one.path, c.served()), Body: body, ContentType: c.contentType}
	o.Expect, err = s.answerOf(ctx, o.URL, c.contentType, body)
	if err != nil {
		return o, err
	}
	answer := o.Expect
	if bare { // the code of the others answers {"y": rows}
		answer = slices.Concat([]byte(`{"y":`), answer, []byte("}"))
	}
	if one.name == ours && wanted[c.name] == nil {
		wanted[c.name] = answer
	}
	if wanted[c.name] != nil {
		if err := one.same(answer, wanted[c.name]); err != nil && (one.name != ours || one.answer != nil) {
			return o, err
		}
	}
	if one.ids {
		o.Expect = nil
	}
	if one.shared && g.workers > 1 {
		o.Owners = g.workers
		o.Owner = func(local netip.AddrPort) (int, error) { return proc.Owner(s.pid, local) }
	}
	return o, b.warm(ctx, s, o, g.workers)
}

// v2Of is the request for a side in a V2 protocol, and its expected answer.
func (b *bench) v2Of(ctx context.Context, s *server, one side, c loadCase, wanted map[string][]byte) (o load.Options, err error) {
	m, err := matrixOf(c.body())
	if err != nil {
		return o, err
	}
	if o, err = c.protocol.request(s.url, s.grpc, c.served(), c.in, m); err != nil {
		return o, err
	}
	err = s.poll(ctx, pollEvery, func() (err error) {
		o.Expect, err = load.Once(ctx, o)
		return err
	})
	if err != nil {
		return o, err
	}
	outputs, err := c.protocol.outputs(o.Expect)
	if err != nil {
		return o, err
	}
	values, err := json.Marshal(outputs)
	if err != nil {
		return o, err
	}
	switch {
	case wanted[c.name] == nil && one.name == ours:
		wanted[c.name] = values
	case wanted[c.name] != nil && !bytes.Equal(values, wanted[c.name]):
		return o, fmt.Errorf("answered %.300s, ours %.300s", values, wanted[c.name])
	}
	o.Expect = nil // answers may have ids of their own
	return o, nil
}

// warm sends at least one request to every process, because some load their model at the first
// request.
func (b *bench) warm(ctx context.Context, s *server, o load.Options, workers int) error {
	o.Connections, o.Duration = 2*workers, warmFor
	_, err := b.once(ctx, s, o)
	return err
}

// compare converts the observations of a round to pairs of ours and theirs.
func (g group) compare(seen map[string]map[string]measured, n *notes) {
	for _, c := range g.cases {
		if c.name == constantCase {
			continue
		}
		for _, connections := range c.connections {
			us, measuredUs := seen[ours][at(c.name, connections)]
			if !measuredUs {
				continue
			}
			k := key{c.name, g.workers, connections}
			if constant, found := seen[ours][at(constantCase, connections)]; found && (c.name == "null" || c.name == "lr_native") {
				n.add(k, constantCase, "requests/s", us.PerSecond, constant.PerSecond, us.doubtful() || constant.doubtful())
			}
			for _, other := range sides[1:] {
				name, results := other.name, seen[other.name]
				theirs := c.name
				if c.beside[name] != "" {
					theirs = c.beside[name]
				}
				them, measuredThem := results[at(theirs, connections)]
				if !measuredThem || !slices.Contains(c.against, name) {
					continue
				}
				for _, m := range metrics {
					n.add(k, name, m.name, m.of(us), m.of(them), us.doubtful() || them.doubtful())
				}
			}
		}
	}
	for _, other := range sides[1:] {
		us, them := seen[ours][memoryCase].Memory, seen[other.name][memoryCase].Memory
		if us > 0 && them > 0 && other.name != originalGC {
			n.add(key{memoryCase + " after " + g.name, g.workers, 0}, other.name, "PSS MB", us, them, false)
		}
	}
}

// doubtful reports that other programs used the machine during the measurement, or that connections
// were uneven.
func (m measured) doubtful() bool { return m.Others > tolerable || m.Uneven }

// free returns an error if one of our ports is in use.
func free(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // at once
	if err != nil {
		return err
	}
	return l.Close()
}
