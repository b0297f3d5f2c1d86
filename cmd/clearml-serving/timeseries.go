package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"clearmlserving/clearml"
	"clearmlserving/serving"
	"clearmlserving/timeseries"
	"clearmlserving/timeseries/embedded"
	"clearmlserving/timeseries/gather"
	"clearmlserving/timeseries/remotewrite"
)

const (
	// gatherEvery is the time between two samples of a series. The pages have live charts.
	gatherEvery = 5 * time.Second
	// noSeriesPause is how long an instance sends no samples to a server that keeps none.
	noSeriesPause = 5 * time.Minute
)

// seriesDir is where the embedded time series are.
func seriesDir(dataDir string) string { return filepath.Join(dataDir, "timeseries") }

// keeper keeps the time series of a role.
type keeper struct {
	querier timeseries.Querier
	store   *embedded.Store    // nil: they are in another Prometheus
	queue   *remotewrite.Queue // nil: samples are not sent on
	where   string             // where they are if store is nil
	log     *slog.Logger
}

func (a *app) newKeeper(dataDir string, log *slog.Logger) (*keeper, error) {
	k := &keeper{log: log.With("part", "timeseries")}
	var err error
	if k.queue, err = a.remoteWrite(k.log); err != nil {
		return nil, err
	}
	if a.text("prometheus-url") != "" {
		client, err := a.prometheus()
		if err != nil {
			return nil, err
		}
		k.querier, k.where = client, "they are read from the Prometheus at "+client.String()
		return k, nil
	}
	o := embedded.Options{Dir: seriesDir(dataDir), Version: version, Logger: k.log}
	if o.Retention, err = a.duration("timeseries-retention", 24*time.Hour); err != nil {
		return nil, err
	}
	if o.Retention < time.Hour {
		return nil, a.setting("timeseries-retention").refuse("give at least an hour: 0.05")
	}
	size := a.setting("timeseries-size")
	if o.MaxBytes, err = parseSize(size.value); err != nil || o.MaxBytes < 64<<20 {
		return nil, size.refuse("give a size of at least 64MiB, such as 2GiB")
	}
	if k.queue != nil {
		o.Forward = k.queue
	}
	k.store = embedded.New(o)
	k.querier = k.store
	return k, nil
}

// prometheus is the Prometheus that --prometheus-url names.
func (a *app) prometheus() (*timeseries.Client, error) {
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	c, err := timeseries.NewClient(timeseries.ClientOptions{URL: a.text("prometheus-url"), Bearer: a.text("prometheus-token"), Transport: transport})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.setting("prometheus-url").source, err)
	}
	return c, nil
}

// transport makes connections to a Prometheus.
func (a *app) transport() (http.RoundTripper, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, err
	}
	return conf.Network.Transport(conf.TLS.Others(), 0), nil
}

// remoteWrite is the queue to --remote-write-url, nil without one.
func (a *app) remoteWrite(log *slog.Logger) (*remotewrite.Queue, error) {
	where := a.setting("remote-write-url")
	if where.value == "" {
		return nil, nil //nolint:nilnil // nothing is sent
	}
	address, err := url.Parse(where.value)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" {
		return nil, errors.New(where.source + ": give an address such as http://host:9090/api/v1/write") // without the value, which may have a password
	}
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	return remotewrite.NewQueue(remotewrite.To(address, a.text("remote-write-token"), transport, "clearml-serving/"+version), log.With("receiver", address.Redacted())), nil
}

// part keeps the time series open, and sends samples on.
func (k *keeper) part() part {
	return part{"timeseries", func(ctx context.Context, ready func()) error {
		ready() // what needs the time series waits for them; serving does not
		var running sync.WaitGroup
		if k.queue != nil {
			queueCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends after the store, which forwards to it
			running.Go(func() { k.queue.Run(queueCtx) })
			defer running.Wait()
			defer stop()
		}
		if k.store != nil {
			k.store.Run(ctx)
		} else {
			<-ctx.Done()
		}
		return nil
	}}
}

// keep stores the samples of sources, and those of the time series themselves, until ctx ends. name
// is that of this server, and whole says that its process has no other metrics.
func (k *keeper) keep(name string, whole bool, sources ...*gather.Source) part {
	return part{"metrics", func(ctx context.Context, ready func()) error {
		ready()
		own, err := k.own(name, whole)
		if err != nil {
			return err
		}
		var sink gather.Sink = k.queue // the store forwards to it
		switch {
		case k.store != nil:
			sink = k.store
			if err := k.store.Opened(ctx); err != nil && ctx.Err() == nil {
				k.log.Debug("samples are stored once the time series are open", "err", err)
			}
		case k.queue == nil:
			<-ctx.Done()
			return nil
		}
		var running sync.WaitGroup
		for _, source := range append(sources, own) {
			running.Go(func() { source.Run(ctx, gatherEvery, k.log, sink) })
		}
		running.Wait()
		return nil
	}}
}

// serviceLabel is the label with the service's id, which series of another Prometheus may lack.
func (k *keeper) serviceLabel() string {
	if k.store == nil {
		return ""
	}
	return gather.Service
}

// own are the metrics of the time series.
func (k *keeper) own(name string, whole bool) (*gather.Source, error) {
	registry := prometheus.NewRegistry()
	var all []prometheus.Collector
	if k.store != nil {
		all = append(all, k.store)
	}
	if k.queue != nil {
		all = append(all, k.queue)
	}
	if whole {
		all = append(all, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return &gather.Source{Gatherer: registry, Labels: func() map[string]string { return map[string]string{gather.Instance: name} }}, nil
}

// pusher sends the samples of an instance to the embedded server that has its record.
type pusher struct {
	client *clearml.Client        // set before part runs
	task   atomic.Pointer[string] // of the instance's record
	known  chan struct{}          // closed once task is set
	once   sync.Once              // closes known
	off    atomic.Int64           // until when the server keeps no time series, in nanoseconds since 1970
	queue  *remotewrite.Queue
	log    *slog.Logger
}

func newPusher(log *slog.Logger) *pusher {
	p := &pusher{log: log, known: make(chan struct{})}
	p.queue = remotewrite.NewQueue(p.send, log)
	return p
}

// opened tells the id of the instance's task.
func (p *pusher) opened(task string) {
	p.task.Store(&task)
	p.once.Do(func() { close(p.known) })
}

// Write implements gather.Sink.
func (p *pusher) Write(ctx context.Context, b gather.Batch) error {
	if time.Now().UnixNano() < p.off.Load() {
		return nil
	}
	return p.queue.Write(ctx, b)
}

func (p *pusher) send(ctx context.Context, body []byte) (int, string, time.Duration, error) {
	select {
	case <-p.known:
	case <-ctx.Done():
		return 0, "", 0, ctx.Err()
	}
	info, err := p.client.Info(ctx)
	if err != nil {
		return 0, "", 0, err
	}
	if !info.Embedded() { // another ClearML server keeps none
		p.off.Store(math.MaxInt64)
		return http.StatusNoContent, "", 0, nil
	}
	header := http.Header{}
	remotewrite.Headers(header)
	header.Set(remotewrite.InstanceHeader, *p.task.Load())
	status, text, wait, err := p.client.Post(ctx, "/prometheus/api/v1/write", header, body)
	if err == nil && status == http.StatusNotFound {
		p.off.Store(time.Now().Add(noSeriesPause).UnixNano())
	}
	return status, serving.Shorten(strings.TrimSpace(string(text)), 500), wait, err
}

// part sends the samples of source to the embedded server, and to queue, which may be nil.
func (p *pusher) part(source *gather.Source, queue *remotewrite.Queue) part {
	return part{"metrics", func(ctx context.Context, ready func()) error {
		ready()
		sinks := []gather.Sink{p}
		var running sync.WaitGroup
		queueCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // they end after the last samples
		defer running.Wait()
		defer stop()
		running.Go(func() { p.queue.Run(queueCtx) })
		if queue != nil {
			sinks = append(sinks, queue)
			running.Go(func() { queue.Run(queueCtx) })
		}
		source.Run(ctx, gatherEvery, p.log, sinks...)
		return nil
	}}
}
