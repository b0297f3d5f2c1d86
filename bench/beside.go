package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"clearmlserving/bench/load"
)

// directly names a server that is asked without us.
func directly(name string) string { return name + ", asked directly" }

var besideConnections = []int{1, 16, 64}

// turn is one of two servers that are measured in turns, and its request.
type turn struct {
	side side
	s    *server
	o    load.Options
}

// inTurns measures ours and what it is compared with.
func (b *bench) inTurns(ctx context.Context, n *notes, k key, against string, turns [2]turn, metrics []metric) error {
	for round := range b.plan.rounds {
		for _, connections := range besideConnections {
			var seen [2]measured
			for i := range turns {
				i = (i + round) % len(turns)
				one := turns[i]
				one.o.Connections = connections
				// An instance may see its server as too busy after the other's turn, for the time of a probe.
				err := one.s.poll(ctx, pollEvery, func() error {
					_, err := load.Once(ctx, one.o)
					return err
				})
				if err != nil {
					return fmt.Errorf("%s, %s: %w", k.Case, one.side.name, err)
				}
				m, err := b.quietest(ctx, one.side.name+" "+k.Case, func() (measured, error) { return b.once(ctx, one.s, one.o) })
				if err != nil {
					return fmt.Errorf("%s, %s with %d connections: %w", k.Case, one.side.name, connections, err)
				}
				seen[i] = m
				tell(round, one.side, k.Case, connections, m)
			}
			k.Connections = connections
			for _, m := range metrics {
				n.add(k, against, m.name, m.of(seen[0]), m.of(seen[1]), seen[0].doubtful() || seen[1].doubtful())
			}
		}
	}
	return nil
}

// measureBehind compares endpoints whose models are on other servers with these servers. Each case has one.
func measureBehind(ctx context.Context, b *bench, g group, n *notes) error {
	for _, c := range g.cases {
		one := *sideOf(c.against[0])
		theirs, err := one.start(ctx, b, deployment{names: []string{c.served()}, workers: g.workers})
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			say("  %s is omitted: %v", c.name, err)
			n.leftOut(g.name, one.name, err)
			continue
		}
		if err := errors.Join(b.measureBefore(ctx, g, c, n, one, theirs), theirs.stop()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) measureBefore(ctx context.Context, g group, c loadCase, n *notes, one side, theirs *server) (err error) {
	id, err := b.create(ctx, "bench "+c.name)
	if err != nil {
		return err
	}
	if err := b.addEndpoint(ctx, id, c.served(), before(c, g, theirs)); err != nil {
		return err
	}
	b.services[c.name] = id
	us, err := startOurs(ctx, b, deployment{names: []string{c.name}, workers: g.workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, us.stop()) }()
	us.behind = theirs
	turns := [2]turn{{side: sides[0], s: us}, {side: one, s: theirs}}
	shown := metrics[:3] // not CPU, because that of the server behind us is in no process of ours
	switch {
	case c.protocol != ownWay:
		wanted := map[string][]byte{}
		for i := range turns {
			t := &turns[i]
			if t.o, err = b.loadOf(ctx, t.s, t.side, c, g, wanted); err != nil {
				return fmt.Errorf("%s: %w", t.side.name, err)
			}
		}
	case one.name == torchServe:
		err = b.askTorchServe(ctx, c, g, &turns)
	default:
		shown, err = streamMetrics, b.askChat(ctx, c, g, &turns)
	}
	if err != nil {
		return err
	}
	return b.inTurns(ctx, n, key{Case: c.name, Workers: g.workers}, directly(one.name), turns, shown)
}

// before is the endpoint of a case before its server.
func before(c loadCase, g group, theirs *server) endpoint {
	e := endpoints[c.served()]
	switch {
	case c.protocol != ownWay:
		return endpoint{engine: "v2", aux: []string{"address=" + strings.TrimPrefix(theirs.grpc, "grpc://"), "model=" + c.served()}}
	case e.engine == torchServe:
		e.aux = []string{fmt.Sprintf("min_workers=%d", g.workers)}
	default:
		e.aux = []string{"address=" + theirs.url + "/v1"}
	}
	return e
}

const torchModel = "torch"

// startTorchServe starts TorchServe as we run it, for instances with our data folder, and makes the model.
func startTorchServe(ctx context.Context, b *bench, _ deployment) (*server, error) {
	python := filepath.Join(b.root, ".venv-torchserve/bin/python")
	if _, err := output(ctx, b.dir, nil, python, filepath.Join(b.root, "bench/models/torchscript.py"), b.modelFile("torch.pt")); err != nil {
		return nil, fmt.Errorf("make the model (make engines-env): %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s, err := start(b.dir, "servers/torchserve.log", []string{oneThread}, b.binary, "torchserve", "--data-dir", oursData(b), "--torchserve-python", python,
		"--torchserve-addr", "127.0.0.1:0", "--torchserve-port", fmt.Sprint(port), "--addr-fallback")
	if err != nil {
		return nil, err
	}
	s.patience = ourStopPatience
	return s, s.wait(ctx, pollEvery, func() error {
		where, err := b.torchServe()
		if err != nil {
			return err
		}
		s.url = where.Inference
		return get(ctx, where.Operators+"/readyz")
	})
}

// torchServed is what instances read of a server.
type torchServed struct {
	Inference, Operators string
	Store                string `json:"model_store"`
	Keys                 string `json:"key_file"`
}

func (b *bench) torchServe() (where torchServed, err error) {
	return where, readJSON(torchFile(b), &where)
}

func torchFile(b *bench) string { return filepath.Join(oursData(b), "torchserve/server.json") }

// askTorchServe asks for the same model as the instance has registered it.
func (b *bench) askTorchServe(ctx context.Context, c loadCase, g group, turns *[2]turn) error {
	m, err := matrixOf(c.body())
	if err != nil {
		return err
	}
	body, err := m.bare()
	if err != nil {
		return err
	}
	us, theirs := &turns[0], &turns[1]
	us.o = load.Options{URL: us.s.url + "/serve/" + c.served(), Body: body}
	if us.o.Expect, err = us.s.answerOf(ctx, us.o.URL, "", body); err != nil {
		return err
	}
	where, err := b.torchServe()
	if err != nil {
		return err
	}
	var keys map[string]struct{ Key string }
	if err := readJSON(where.Keys, &keys); err != nil {
		return err
	}
	archives, _ := filepath.Glob(filepath.Join(where.Store, "*.mar")) // the pattern is valid
	if len(archives) != 1 {
		return fmt.Errorf("TorchServe has the archives %q, and not one", archives)
	}
	name := strings.TrimSuffix(filepath.Base(archives[0]), ".mar")
	theirs.o = load.Options{URL: theirs.s.url + "/predictions/" + name, Header: "Authorization: Bearer " + keys["inference"].Key + "\r\n", Body: body, Expect: us.o.Expect}
	if _, err := load.Once(ctx, theirs.o); err != nil {
		return fmt.Errorf("TorchServe does not answer %.300s: %w", us.o.Expect, err)
	}
	return errors.Join(b.warm(ctx, us.s, us.o, g.workers), b.warm(ctx, theirs.s, theirs.o, g.workers))
}

const (
	hopCase = "hop"
	// callItself is the endpoint that the steps of a graph call.
	callItself = "the call itself"
	hopModel   = "lr_native"
	hops       = 2
	hopGraph   = `nodes: {root: {routerType: Sequence, steps: [{serviceName: lr_native, name: first}, {serviceName: lr_native, data: $request}]}}`
)

// measureHop compares a graph of two steps with the endpoint that both steps call. Its model computes without Python for
// a microsecond, so the difference is that of two hops.
func measureHop(ctx context.Context, b *bench, g group, n *notes) (err error) {
	id, err := b.create(ctx, "bench graph")
	if err != nil {
		return err
	}
	if err := b.addEndpoint(ctx, id, hopModel, endpoints[hopModel]); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "graph.yaml")
	if err := os.WriteFile(file, []byte(hopGraph), 0o600); err != nil {
		return err
	}
	if _, err := b.cli(ctx, "--id", id, "model", "graph", "--endpoint", "graph", "--file", file); err != nil {
		return err
	}
	b.services["graph"] = id
	s, err := startOurs(ctx, b, deployment{names: []string{"graph"}, workers: g.workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, c := range g.cases {
		turns := [2]turn{{side: sides[0], s: s}, {side: side{name: callItself}, s: s}}
		wanted := map[string][]byte{}
		for i, url := range []string{"graph", hopModel} {
			c.endpoint = url
			if turns[i].o, err = b.loadOf(ctx, s, sides[0], c, g, wanted); err != nil {
				return fmt.Errorf("%s: %w", url, err)
			}
		}
		if !bytes.Equal(turns[0].o.Expect, turns[1].o.Expect) {
			return fmt.Errorf("the graph answers %.300s, the call %.300s", turns[0].o.Expect, turns[1].o.Expect)
		}
		if err := b.inTurns(ctx, n, key{Case: c.name, Workers: g.workers}, callItself, turns, metrics); err != nil {
			return err
		}
	}
	return nil
}
