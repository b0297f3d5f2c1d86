package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/timeseries"
)

// seriesLimit bounds how long the doctor waits for a Prometheus.
const seriesLimit = 10 * time.Second

// checkSeries tells where the time series are, and how much disk they use.
func (a *app) checkSeries(ctx context.Context) []finding {
	if a.text("prometheus-url") != "" {
		return []finding{a.checkPrometheus(ctx)}
	}
	dir, err := a.dataDir()
	if err != nil {
		return nil // told by the check of the folder
	}
	place := seriesDir(dir)
	if !exists(place) {
		return nil // no server has run here
	}
	size, damaged := int64(0), false
	_ = filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go
		}
		damaged = damaged || d.IsDir() && d.Name() == "damaged"
		if info, err := d.Info(); err == nil && !d.IsDir() {
			size += info.Size()
		}
		return nil
	})
	f := finding{"timeseries", stateOK, fmt.Sprintf("%s, %s of %s, %s days are kept", place, humanize.IBytes(uint64(size)), a.text("timeseries-size"), a.text("timeseries-retention")), ""} //nolint:gosec // not negative
	if damaged || exists(place+".damaged") {
		f.state, f.fix = stateWarn, "Damaged time series were set aside in "+filepath.Join(place, "damaged")+" or "+place+".damaged: remove them if you do not want to examine them"
	}
	return []finding{f}
}

// checkPrometheus asks the Prometheus of --prometheus-url.
func (a *app) checkPrometheus(ctx context.Context) finding {
	client, err := a.prometheus()
	if err != nil {
		return finding{"timeseries", stateFail, err.Error(), "Set CLEARML_SERVING_PROMETHEUS_URL to the address of a Prometheus, such as http://host:9090"}
	}
	ctx, cancel := context.WithTimeout(ctx, seriesLimit)
	defer cancel()
	found, err := client.Query(ctx, "count(clearml_serving_start_time_seconds)", time.Now())
	switch {
	case err != nil && timeseries.KindOf(err) == timeseries.Unavailable:
		return finding{"timeseries", stateFail, err.Error(), "Is it running, and are address, token and password right? CLEARML_SERVING_PROMETHEUS_URL, CLEARML_SERVING_PROMETHEUS_TOKEN"}
	case err != nil:
		return finding{"timeseries", stateFail, err.Error(), ""}
	case len(found) == 0:
		return finding{"timeseries", stateWarn, "the Prometheus at " + client.String() + " has no series of an instance", "Let it scrape /metrics of the instances, or let them write to it: --remote-write-url"}
	}
	return finding{"timeseries", stateOK, fmt.Sprintf("read from the Prometheus at %s, which has series of %s", client, plural(int(found[0].Value), "instance")), ""}
}
