package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/timeseries/gather"
)

func upCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine: ClearML server and inference",
		Long: `Run everything on this machine, in one process: the embedded ClearML server and the
inference service, on one data folder. This is the first thing to run.

It serves one serving service: that of --id or --name, else the one that exists,
else the first that "clearml-serving create" makes. Other commands on this machine
find the server and its credentials by themselves when nothing else is configured.`,
		Example: `  clearml-serving up
  clearml-serving up --data-dir ./data --addr-fallback
  clearml-serving up --serve-addr 0.0.0.0:8080 --name "serving example"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUp(cmd.Context(), name) },
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the serving service (default: the first active one)")
	mark(cmd.Flags(), "name", markOurs)
	a.declare(cmd.Flags(), "api-addr", "files-addr", "files-destination", "api-tls-cert", "api-tls-key", "instance-tls-ca", "database-url", "events-retention")
	a.declare(cmd.Flags(), "timeseries-retention", "timeseries-size", "prometheus-url", "remote-write-url")
	a.declareInference(cmd.Flags())
	return cmd
}

func (a *app) runUp(ctx context.Context, name string) error {
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		var server *controlPlane
		return a.upParts(ctx, upSetup{
			sockets: sockets, name: name,
			answers: func(s *controlPlane, _ clearml.Config) error {
				server = s
				return nil
			},
			then: func(ctx context.Context) error {
				a.greet(sockets)
				if err := a.greetBrowser(ctx, server); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			},
		})
	})
}

// upSetup is what differs between the roles that run everything.
type upSetup struct {
	sockets *sockets
	name    string // of the service
	// answers is called once the control plane answers, before the instance starts.
	answers func(*controlPlane, clearml.Config) error
	// then runs once requests are taken, until ctx ends.
	then func(ctx context.Context) error
}

// upParts are the control plane, the inference service, and what follows them.
func (a *app) upParts(ctx context.Context, setup upSetup) ([]part, error) {
	series, err := a.newKeeper(setup.sockets.dir, setup.sockets.log)
	if err != nil {
		return nil, err
	}
	server, err := a.newControlPlane(ctx, setup.sockets, series, 0) // its own instance, which drains before, is its client
	if err != nil {
		return nil, err
	}
	config := server.config("up")
	name := instanceName(server.api.Port())
	drift, watcher, driftMetrics, err := driftWatch(setup.sockets.dir, name, "", config, series.querier, setup.sockets.log)
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	metrics := &gather.Source{}
	inference, err := a.newInference(ctx, inferenceSetup{
		sockets: setup.sockets, config: config, name: setup.name,
		changes: server.Feed().Subscribe("task", "model", "project"), poll: time.Minute, metrics: metrics, query: series.querier, others: []prometheus.Collector{watcher},
	})
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return []part{
		series.part(),
		a.controlPlanePart(server, setup.sockets, func() error { return setup.answers(server, config) }),
		drift,
		inferencePart(inference, func() error { return nil }),
		series.keep(name, false, metrics, driftMetrics),
		{"up", func(ctx context.Context, ready func()) error {
			ready()
			return setup.then(ctx)
		}},
	}, nil
}
