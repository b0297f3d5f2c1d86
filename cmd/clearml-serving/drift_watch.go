package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	driftwatch "clearmlserving/drift/watch"
	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
)

func driftWatchCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Watch for drift, where neither up nor server runs",
		Long: `Watch the variables of serving services for drift, on any ClearML server, with the time
series of a Prometheus that scrapes the inference services. "up" and "server" watch by
themselves: run this beside inference services of a ClearML server that is not the
embedded one. One process is enough for all of them.

The result is stored on the ClearML server, where "clearml-serving drift" reads it. With
--remote-write-url its metrics are sent to Prometheus.`,
		Example: `  clearml-serving drift watch --prometheus-url http://prometheus:9090
  clearml-serving --id <service_id> drift watch --prometheus-url http://prometheus:9090 --remote-write-url http://prometheus:9090/api/v1/write`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDriftWatch(cmd.Context()) },
	}
	a.declare(cmd.Flags(), "prometheus-url", "remote-write-url")
	return cmd
}

func (a *app) runDriftWatch(ctx context.Context) error {
	if a.text("prometheus-url") == "" {
		return errors.New("the address of a Prometheus is missing: give --prometheus-url http://prometheus:9090")
	}
	return a.runRole(ctx, slog.LevelInfo, func(sockets *sockets) ([]part, error) {
		series, err := a.newKeeper(sockets.dir, sockets.log)
		if err != nil {
			return nil, err
		}
		config, err := a.clearmlConfig()
		if err != nil {
			return nil, err
		}
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name of this machine: %w", err)
		}
		drift, _, metrics, err := driftWatch(sockets.dir, name, a.serviceID, config, series.querier, sockets.log)
		if err != nil {
			return nil, err
		}
		return []part{series.part(), drift, series.keep(name, true, metrics)}, nil
	})
}

// driftState is the file in the data folder with what the watcher of drift knows.
const driftState = "drift.json"

// driftWatch watches the variables of a service on a control plane, "" for all. Its metrics are a source of their own, and for
// scrapes of an instance in the same process.
func driftWatch(dataDir, name, service string, config clearml.Config, series timeseries.Querier, log *slog.Logger) (part, prometheus.Collector, *gather.Source, error) {
	log = log.With("part", "drift")
	client, err := clearml.New(clearml.Options{Config: config, Logger: log, ClientName: "clearml-serving-" + compatVersion})
	if err != nil {
		return part{}, nil, nil, err
	}
	watcher := driftwatch.New(driftwatch.Options{
		Services: &driftwatch.ClearML{Client: client, Service: service}, Series: series, StateFile: filepath.Join(dataDir, driftState), Logger: log,
	})
	registry := prometheus.NewRegistry()
	if err := registry.Register(watcher); err != nil {
		return part{}, nil, nil, fmt.Errorf("register metrics: %w", err)
	}
	source := &gather.Source{Part: true, Gatherer: registry, Labels: func() map[string]string { return map[string]string{gather.Instance: name} }}
	return part{"drift", func(ctx context.Context, ready func()) error {
		ready()
		watcher.Run(ctx)
		return nil
	}}, watcher, source, nil
}
