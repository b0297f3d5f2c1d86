// Package inference is the core of the data plane: it answers questions with the
// models of one serving service. It owns the access check, the path of a question through
// the router to a model, and copies of questions. It does not know the clients' protocols
// (see fronts, such as package rest), the computation of models (see
// engines), or the control plane (see reconcile's Source and
// followers).
package inference

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// Options of an inference Service.
type Options struct {
	// Engines load the models, each for its kinds of endpoints. The later entry of a
	// duplicate kind is used.
	Engines []Engine
	// Followers are notified of changes of what is served. The Service runs FollowerRunners.
	Followers []reconcile.Follower
	// RequestTimeout bounds one request. Default 10 minutes.
	RequestTimeout time.Duration
	// MaxAnswer bounds a streamed answer that is collected for user code or for
	// comparison. Default 256 MiB.
	MaxAnswer int64
	// Exposed means that other machines can reach a front without a client certificate:
	// if no keys are required either, a warning is logged.
	Exposed bool
	// WorkersMemory reports the workers' use of their memory budget, nil: none is set.
	WorkersMemory func() serving.MemoryReport
	// RecordingsDir is the folder of recorded requests, for endpoints with that option.
	// "": nothing is recorded.
	RecordingsDir string
	// Recorder gets the statistics of requests, nil for none.
	Recorder Recorder
	// Observers get copies of answered requests, for endpoints whose options ask for it.
	Observers []Observer
	// Tracer traces the requests, nil for none.
	Tracer *tracing.Tracer
	// Recent returns the recent rate of requests of an endpoint's model per second, and their 95th
	// percentile. nil: unknown.
	Recent func(serving.EndpointURL) (perSecond float64, p95 time.Duration)
	// Rollout describes the steps of a canary. nil: no canary has any.
	Rollout func(serving.EndpointURL) *serving.RolloutReport
	// Control loads and unloads endpoints for clients that may. nil: nobody may.
	Control Control
	// LogShare is the default share of requests whose variables are recorded, for endpoints and
	// services without one. nil: all.
	LogShare *float64

	// Source, Files, Journal, Changes, Poll, CacheFile and Instance are those of the reconciler.
	Source    reconcile.Source
	Files     reconcile.Files
	Journal   reconcile.Journal
	Changes   reconcile.Changes
	Poll      time.Duration
	CacheFile string
	Instance  string
	Logger    *slog.Logger
}

// Engine is an entry of the table of engines: the loader of the models of some kinds of
// endpoints. The Service runs a Loader that is an engine.Runner.
type Engine struct {
	Kinds  []string // by their names in the configuration
	Loader engine.Loader
}

// Front answers clients in their protocol with answers of the Service.
type Front interface {
	// Run accepts requests until ctx ends, then finishes running requests. The models
	// serve until it has returned. If ctx has ended with ErrBroken, the delay for load
	// balancers is not needed.
	Run(ctx context.Context) error
}

// ErrBroken is the cause of the end of a Front's context if another part of the
// instance has ended unexpectedly.
var ErrBroken = errors.New("another part of the instance has ended")

// Recorder gets the statistics of requests.
type Recorder interface {
	// Record gets a request that reached a model, unless its client has disconnected. It never
	// blocks: samples that do not fit are dropped and counted.
	Record(s serving.Sample)
	// Count gets the outcome of a request that reached no model, or whose answer was a stream. canary is
	// that of the sample. It never blocks. The urls are valid during the call only.
	Count(url, canary serving.EndpointURL, outcome serving.Outcome)
	// RecordStream takes the size of a streamed answer that was sent whole, and the time
	// since its request was there. Record has been called before. It never blocks.
	RecordStream(url serving.EndpointURL, bytes int, took time.Duration)
}

// Observer keeps copies of requests with their answers. Its methods never block.
type Observer interface {
	// Share is the share of the requests of an endpoint with these options that are observed.
	Share(o serving.EndpointOptions) float64
	// Admits reports whether a copy of this size would be kept, and counts it if not. url is the
	// endpoint that answered.
	Admits(url serving.EndpointURL, size int64) bool
	// Observe gets a copy that was admitted.
	Observe(o serving.Observed)
}

// FollowerRunner is a follower with background work, such as the record of the instance
// on the control plane.
type FollowerRunner interface {
	reconcile.Follower
	// Run works until ctx ends. An unreachable control plane never stops serving:
	// Run retries, and its error is only logged. status may be called from any goroutine.
	Run(ctx context.Context, status func() serving.Status) error
}

// Service is one inference instance.
type Service struct {
	o          Options
	router     router.Router
	reconciler *reconcile.Reconciler
	taps       taps
	gate       gate
	tools      atomic.Pointer[map[serving.EndpointURL]serving.Tool]
	started    time.Time
	loaded     atomic.Bool // every endpoint that can load has loaded once
	stopping   atomic.Bool
}

// learnedFrom is how many recorded requests a new model's signature is learned from.
const learnedFrom = 50

// New prepares an instance; Run starts it.
func New(o Options) *Service {
	o.RequestTimeout = cmp.Or(o.RequestTimeout, 10*time.Minute)
	o.MaxAnswer = cmp.Or(o.MaxAnswer, 256<<20)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	s := &Service{o: o, started: time.Now()}
	s.gate = gate{log: o.Logger, exposed: o.Exposed, now: time.Now}
	s.taps.observers = o.Observers
	s.taps.shadows = newShadows(o.Logger)
	s.taps.shadows.answer = s.shadowAnswer
	s.taps.shadows.arms = func(canary, candidate serving.EndpointURL) *router.Arms {
		c := s.router.Snapshot().Canaries[canary]
		if c == nil || c.Arms == nil || c.Arms.Candidate != candidate || !c.Arms.Copies {
			return nil
		}
		return c.Arms
	}
	recorded := func(serving.EndpointURL) []serving.Exchange { return nil }
	if o.RecordingsDir != "" {
		s.taps.tapes = newTapes(o.RecordingsDir, o.Logger)
		recorded = func(url serving.EndpointURL) []serving.Exchange {
			return LastRecorded(o.RecordingsDir, url, learnedFrom)
		}
	}
	s.reconciler = reconcile.New(reconcile.Options{
		Router: &s.router, Source: o.Source, Files: o.Files, Loader: table(o.Engines), Changes: o.Changes,
		Poll: o.Poll, CacheFile: o.CacheFile, RequestTimeout: o.RequestTimeout, DrainTimeout: o.RequestTimeout, LogShare: o.LogShare,
		Followers: append([]reconcile.Follower{planFollower{s}}, o.Followers...),
		Journal:   o.Journal, Instance: o.Instance, Recorded: recorded,
		Logger: o.Logger,
	})
	return s
}

// planFollower passes each plan to the gate and the taps, and keeps the tools.
type planFollower struct{ s *Service }

// Planned implements reconcile.Follower.
func (f planFollower) Planned(_ *reconcile.State, plan serving.Plan, _ bool) {
	f.s.gate.follow(plan.Access)
	f.s.taps.follow(plan)
	f.s.followTools(plan)
}

// StatusChanged implements reconcile.Follower.
func (f planFollower) StatusChanged(status func() serving.Status) {
	if f.s.loaded.Load() {
		return
	}
	if now := status(); now.Ready() {
		f.s.loaded.Store(true)
	}
}

// Run serves through the fronts until ctx ends. It then reports "not ready", waits for the
// fronts to end, and then closes models and engines. If any part ends unexpectedly, all
// parts end. Without fronts, only Ask in this process is answered.
func (s *Service) Run(ctx context.Context, fronts ...Front) error {
	ctx, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	frontCtx, stopFronts := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopFronts(nil)
	backCtx, stopBack := context.WithCancel(context.WithoutCancel(ctx)) // models outlive the fronts
	defer stopBack()
	engineCtx, stopEngines := context.WithCancel(context.WithoutCancel(ctx)) // workers outlive the models
	defer stopEngines()

	var front, back, engines sync.WaitGroup
	var mu sync.Mutex // guards all
	var all error
	run := func(group *sync.WaitGroup, part func() error) {
		group.Go(func() {
			if err := part(); err != nil {
				mu.Lock()
				all = errors.Join(all, err)
				mu.Unlock()
			}
			broken(ErrBroken)
		})
	}

	for _, e := range s.o.Engines {
		if runner, ok := e.Loader.(engine.Runner); ok {
			run(&engines, func() error { return runner.Run(engineCtx, caller{s}) })
		}
	}
	run(&back, func() error { return s.reconciler.Run(backCtx) })
	run(&back, func() error { return s.taps.shadows.run(backCtx) })
	if s.taps.tapes != nil {
		run(&back, func() error { return s.taps.tapes.run(backCtx) })
	}
	for _, f := range s.o.Followers {
		if record, ok := f.(FollowerRunner); ok {
			back.Go(func() {
				if err := record.Run(backCtx, s.Status); err != nil {
					s.o.Logger.Warn("instance is not recorded on the control plane", "err", err)
				}
			})
		}
	}
	for _, f := range fronts {
		run(&front, func() error { return f.Run(frontCtx) })
	}

	<-ctx.Done()
	s.stopping.Store(true)
	stopFronts(context.Cause(ctx))
	front.Wait()
	stopBack()
	back.Wait()
	stopEngines()
	engines.Wait()
	return all
}
