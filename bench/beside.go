package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"clearmlserving/bench/load"
)

const (
	besideCase = "triton_v2"
	directCase = "triton, asked directly"
)

// measureBeside compares an endpoint whose model is on Triton with Triton itself.
func measureBeside(ctx context.Context, b *bench, g group, n *notes) (err error) {
	const model = "rf_onnx"
	c := loadCase{name: besideCase, endpoint: model, body: rows(1), protocol: v2GRPC, in: input{"X", true}}
	theirs, err := startTriton(ctx, b, deployment{names: []string{model}, workers: g.workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, theirs.stop()) }()
	text, err := b.cli(ctx, "create", "--name", "bench beside", "--json")
	if err != nil {
		return err
	}
	id, err := createdID(text)
	if err != nil {
		return err
	}
	address := strings.TrimPrefix(theirs.grpc, "grpc://")
	if err := b.addEndpoint(ctx, id, model, endpoint{engine: "v2", aux: []string{"address=" + address, "model=" + model}}); err != nil {
		return err
	}
	b.services[besideCase] = id
	us, err := startOurs(ctx, b, deployment{names: []string{besideCase}, workers: g.workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, us.stop()) }()
	us.behind = theirs
	wanted := map[string][]byte{}
	servers := []struct {
		side side
		s    *server
	}{{sides[0], us}, {*sideOf(triton), theirs}}
	asked := map[string]load.Options{}
	for _, one := range servers {
		o, err := b.loadOf(ctx, one.s, one.side, c, g, wanted)
		if err != nil {
			return fmt.Errorf("%s: %w", one.side.name, err)
		}
		asked[one.side.name] = o
	}
	for round := range b.plan.rounds {
		for _, connections := range besideConnections {
			seen := map[string]measured{}
			for i := range servers {
				one := servers[(i+round)%len(servers)]
				o := asked[one.side.name]
				o.Connections = connections
				m, err := b.quietest(ctx, one.side.name+" "+besideCase, func() (measured, error) { return b.once(ctx, one.s, o) })
				if err != nil {
					return err
				}
				seen[one.side.name] = m
				tell(round, one.side, besideCase, connections, m)
			}
			ours, direct := seen[sides[0].name], seen[triton]
			for _, m := range []metric{metrics[0], metrics[1], metrics[2]} {
				n.add(key{besideCase, g.workers, connections}, directCase, m.name, m.of(ours), m.of(direct), ours.doubtful() || direct.doubtful())
			}
		}
	}
	return nil
}

var besideConnections = []int{1, 16, 64}
