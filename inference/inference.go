// Package inference is the data plane: it answers clients' requests with the
// models of one serving service. It owns the way of a request from the listener
// through the router to an engine, the health of the instance, and the instance's
// record on the control plane. It knows the control plane only by its HTTP API.
package inference

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Options of an inference Service.
type Options struct {
	// Listener takes clients' requests; the Service closes it.
	Listener net.Listener
	// Admin takes operators' requests (status, profiles), nil for none; the
	// Service closes it.
	Admin net.Listener
	// Suffix is the first part of every endpoint's path. Default "serve".
	Suffix string
	// RequestTimeout bounds one request. Default 10 minutes.
	RequestTimeout time.Duration
	// StopTimeout bounds how long requests under way may take after Run's
	// context has ended. Default 30 seconds.
	StopTimeout time.Duration
	// DrainDelay is how long requests are still taken after Run's context has
	// ended, while /readyz says "not ready" already: the time that a load balancer
	// needs to notice. Default 0: none.
	DrainDelay time.Duration
	// MaxBody bounds a request body, as sent and decompressed. Default 256 MiB.
	MaxBody int64
	// MaxConnections bounds the clients' open connections. 0: no bound but the machine's.
	MaxConnections int
	// Exposed says that other machines reach Listener without showing a
	// certificate: when no keys are asked for either, that is told loudly.
	Exposed bool
	// Origins are the web pages ("https://app.example.com", or "*") that may send
	// requests from a browser. None by default.
	Origins []string
	// AdminToken, when set, is asked for on Admin. Without one, only requests are
	// answered there that name the machine by its address, or as localhost.
	AdminToken string
	// MaxDepth bounds how many send_request calls may be nested. Default 16.
	MaxDepth int
	// Python runs the engines that execute user code; the Service runs it.
	Python PythonEngines
	// WorkersMemory tells what the workers take of their memory budget, nil: none is set.
	WorkersMemory func() WorkersMemory
	// RecordingsDir is the folder of recorded requests, for endpoints whose options
	// ask for it. "": nothing is recorded.
	RecordingsDir string
	// Recorder takes what requests are counted by, nil for none.
	Recorder Recorder
	// LogShare is the share of requests that are counted where neither the endpoint nor
	// the service says. nil: all of them.
	LogShare *float64

	Source    reconcile.Source
	Files     reconcile.Files
	Changes   reconcile.Changes
	Poll      time.Duration
	CacheFile string
	Loads     int
	// Instance keeps the instance's record on the control plane, nil for none.
	Instance Instance
	// Identity proves on the listener of clients that the record is this instance's; the
	// zero value proves nothing.
	Identity serving.Identity
	Logger   *slog.Logger
}

// PythonEngines loads models that run in Python workers.
type PythonEngines interface {
	engine.Loader
	// Run owns the worker processes until ctx ends; calls that user code makes
	// with send_request go to caller.
	Run(ctx context.Context, caller engine.Caller) error
}

// Recorder takes the statistics of answered requests.
type Recorder interface {
	// Record never blocks: what cannot be taken is dropped and counted.
	Record(s serving.Sample)
}

// Instance is the record of this instance on the control plane.
type Instance interface {
	// Run keeps the record until ctx ends, then marks it as ended. A control
	// plane that is away never stops serving: Run retries. status may be called
	// from any goroutine.
	Run(ctx context.Context, status func() Status) error
	// Applied tells that the instance has taken in a configuration; it never blocks.
	Applied(state *reconcile.State, plan serving.Plan)
	// Changed tells that the instance's status may have changed; it never blocks.
	Changed()
}

// Service is one inference instance.
type Service struct {
	o          Options
	prefix     string
	router     router.Router
	reconciler *reconcile.Reconciler
	taps       taps
	gate       gate
	origins    origins
	started    time.Time
	stopping   atomic.Bool
}

// New prepares an instance; Run starts it.
func New(o Options) *Service {
	if o.Suffix == "" {
		o.Suffix = "serve"
	}
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = 10 * time.Minute
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = 30 * time.Second
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 256 << 20
	}
	if o.MaxDepth <= 0 {
		o.MaxDepth = 16
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{o: o, prefix: "/" + o.Suffix + "/", started: time.Now()}
	s.origins = o.Origins
	s.gate = gate{log: o.Logger, exposed: o.Exposed, now: time.Now}
	s.taps.shadows = newShadows()
	s.taps.shadows.answer = s.shadowAnswer
	if o.RecordingsDir != "" {
		s.taps.tapes = newTapes(o.RecordingsDir, o.Logger)
	}
	s.reconciler = reconcile.New(reconcile.Options{
		Router: &s.router, Source: o.Source, Files: o.Files, Loader: engines(o.Python), Changes: o.Changes,
		Poll: o.Poll, CacheFile: o.CacheFile, Loads: o.Loads, RequestTimeout: o.RequestTimeout, DrainTimeout: o.RequestTimeout, LogShare: o.LogShare,
		OnApplied: func(state *reconcile.State, plan serving.Plan) {
			if o.Instance != nil {
				o.Instance.Applied(state, plan)
			}
		},
		OnPlan: func(plan serving.Plan) {
			s.gate.follow(plan.Access)
			s.taps.follow(plan)
		},
		OnStatus: func() {
			if o.Instance != nil {
				o.Instance.Changed()
			}
		},
		Logger: o.Logger,
	})
	return s
}

// Run serves until ctx ends. It then says "not ready", goes on for DrainDelay,
// stops accepting, lets requests under way finish, and only after that closes
// models and workers. Any part that ends with an error ends the whole.
func (s *Service) Run(ctx context.Context) error {
	whole, broken := context.WithCancel(context.WithoutCancel(ctx)) // ends with the first part
	defer broken()
	backCtx, stopBack := context.WithCancel(context.WithoutCancel(ctx)) // models outlive the front
	defer stopBack()
	pythonCtx, stopPython := context.WithCancel(context.WithoutCancel(ctx)) // workers outlive the models
	defer stopPython()

	var parts, back, python sync.WaitGroup
	failed := make(chan error, 7) // one place for each part: nobody blocks on it
	run := func(group *sync.WaitGroup, part func() error) {
		group.Go(func() {
			if err := part(); err != nil {
				failed <- err
			}
			broken()
		})
	}

	run(&python, func() error { return s.o.Python.Run(pythonCtx, s) })
	run(&back, func() error { return s.reconciler.Run(backCtx) })
	run(&back, func() error { return s.taps.shadows.run(backCtx) })
	if s.taps.tapes != nil {
		run(&back, func() error { return s.taps.tapes.run(backCtx) })
	}
	if s.o.Instance != nil {
		back.Go(func() {
			if err := s.o.Instance.Run(backCtx, s.Status); err != nil {
				s.o.Logger.Warn("instance is not recorded on the control plane", "err", err)
			}
		})
	}
	clients := listener.NewLean(listener.Options{Handler: front{s}, MaxBody: s.o.MaxBody, MaxConns: s.o.MaxConnections, Logger: s.o.Logger})
	run(&parts, func() error { return clients.Serve(s.o.Listener) })
	var admin *http.Server
	if s.o.Admin != nil {
		admin = s.adminServer()
		run(&parts, func() error {
			if err := admin.Serve(s.o.Admin); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}

	select {
	case <-ctx.Done():
	case <-whole.Done():
	}
	s.stopping.Store(true)
	s.linger(whole, clients)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.StopTimeout)
	defer cancel()
	if err := clients.Shutdown(stopCtx); err != nil {
		s.o.Logger.Warn("requests were cut at stop", "err", err)
	}
	if admin != nil {
		_ = admin.Close() // nothing on it is worth waiting for
	}
	parts.Wait()
	stopBack()
	back.Wait()
	stopPython()
	python.Wait()
	close(failed)
	var all error
	for err := range failed {
		all = errors.Join(all, err)
	}
	return all
}

// linger serves on for DrainDelay, unless a part has ended. Clients are asked to
// close their connections, each after its next answer: what a balancer sends until
// it has noticed is answered, and nothing is left on its way when we close.
func (s *Service) linger(whole context.Context, clients *listener.Lean) {
	if s.o.DrainDelay <= 0 || whole.Err() != nil {
		return
	}
	s.o.Logger.Info("requests are taken until balancers have noticed the stop", "for", s.o.DrainDelay)
	clients.Retire()
	timer := time.NewTimer(s.o.DrainDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-whole.Done():
	}
}
