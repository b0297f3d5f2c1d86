package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"clearmlserving/clearml"
	driftwatch "clearmlserving/drift/watch"
	"clearmlserving/timeseries"
	"clearmlserving/timeseries/gather"
)

// driftState is the file in the data folder with what the watcher of drift knows.
const driftState = "drift.json"

// driftWatch watches the variables of the services on a control plane. Its metrics are a source of their own, and for
// scrapes of an instance in the same process.
func driftWatch(dataDir, name string, config clearml.Config, series timeseries.Querier, log *slog.Logger) (part, prometheus.Collector, *gather.Source, error) {
	log = log.With("part", "drift")
	client, err := clearml.New(clearml.Options{Config: config, Logger: log, ClientName: "clearml-serving-" + compatVersion})
	if err != nil {
		return part{}, nil, nil, err
	}
	watcher := driftwatch.New(driftwatch.Options{
		Services: &driftwatch.ClearML{Client: client}, Series: series, StateFile: filepath.Join(dataDir, driftState), Logger: log,
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
