// Package reconcile makes the running models follow the configuration. It owns the state of an
// inference instance: one goroutine reads the configuration, fetches files, loads models, and
// replaces the router's snapshot only when the new model is ready; the old one is drained and
// closed. If a change fails, the old model stays in service and the failure is reported. The
// package does not answer requests and does not delay them.
package reconcile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/storage"
)

// Changes triggers a reading of the configuration before the next poll.
type Changes interface {
	// Next blocks until the configuration may have changed since the last call returned, or ctx
	// ends. It is called from one goroutine.
	Next(ctx context.Context) error
}

// Source reads the configuration of the service.
type Source interface {
	// Load reads the present configuration. It is called from one goroutine at a time. last is the
	// last good state, nil if there is none: unusable parts of the service keep their form in
	// last. ErrNoService means that there is no service yet.
	Load(ctx context.Context, last *State) (*State, error)
}

// ErrNoService is returned by a Source while no serving service exists.
var ErrNoService = errors.New("there is no serving service yet: create one with: clearml-serving create")

// Files fetches files to this machine.
type Files interface {
	// Fetch may be called from many goroutines. The local file stays in place
	// until Release is called.
	Fetch(ctx context.Context, f File) (Local, error)
}

// Follower is notified of what an instance serves. Its methods are called on the reconciler's
// goroutine, so never concurrently, and must not block.
type Follower interface {
	// Planned is called after each successful reading of the configuration, when the URLs of the
	// plan are routed and before a new model has loaded. changed is false if the configuration is
	// the same as before; the plan may still differ if it depends on data of the server.
	Planned(state *State, plan serving.Plan, changed bool)
	// StatusChanged is called after each step that may have changed the status: a reading of the
	// configuration, failed or not, and the begin and end of a load. It is called after Planned.
	// status returns the newest status, at any time and from any goroutine.
	StatusChanged(status func() serving.Status)
}

// File is a file to fetch.
type File = storage.Item

// Local is a file or folder on this machine.
type Local struct {
	Path    string
	SHA256  string // of the file as fetched
	Fresh   bool   // it was not in place before
	Release func()
}

// Options of a Reconciler.
type Options struct {
	Router  *router.Router
	Source  Source
	Files   Files
	Loader  engine.Loader
	Changes Changes // nil: polling only
	// Poll is the interval of reading the configuration. Default 5 minutes.
	Poll time.Duration
	// CacheFile is the file of the last good state, "" for none.
	CacheFile string
	// Loads bounds concurrent loads. Default 2.
	Loads int
	// DrainTimeout bounds the wait for the requests of a replaced model. Default 10 minutes.
	DrainTimeout time.Duration
	// RequestTimeout bounds one request, 0 for none.
	RequestTimeout time.Duration
	// LogShare is the share of requests whose variables are logged if neither the endpoint nor the
	// service sets one. nil: all of them.
	LogShare *float64
	// Journal stores what becomes of revisions, nil for none.
	Journal Journal
	// Instance names this instance in the revisions.
	Instance string
	// Holds, if not nil, are the engines whose models this process holds for the instances that answer
	// requests, as Triton's repository is: only endpoints of these are loaded, without their code, and what
	// becomes of their revisions is left to those instances.
	Holds []string
	// Recorded returns recorded requests to an endpoint, the newest first; nil: there are none.
	Recorded func(serving.EndpointURL) []serving.Exchange
	// Followers are notified of each plan and each status, in this order.
	Followers []Follower
	Logger    *slog.Logger
}

// Reconciler owns what an instance serves.
type Reconciler struct {
	o      Options
	status atomic.Pointer[serving.Status]

	// The fields below belong to the goroutine of Run.
	state     *State
	plan      serving.Plan
	stateHash string
	digests   map[serving.EndpointURL]string
	entries   map[serving.EndpointURL]*entry
	canaries  map[serving.EndpointURL]*router.Canary
	loaded    chan loadResult
	outdated  chan *entry   // its files cannot be restored: it is loaded again
	slots     chan struct{} // one per running load
	preparing chan struct{} // one per running preparation: downloads, environments
	running   sync.WaitGroup
	source    sourceStatus
	disk      error // why the last good state is not on disk
	recalled  bool  // the state on disk has been applied

	known map[serving.EndpointURL]serving.History // of what is planned: the stored revisions, and what they lack
	dirty bool                                    // known has changed since the last comparison

	unrecorded chan findings // holds the newest set

	lastGood *State // the state on disk at start, nil if there is none; constant after the start of Run
}

func (o Options) logShare() float64 {
	if o.LogShare == nil {
		return 1
	}
	return *o.LogShare
}

// sourceStatus is the result of the last reading of the configuration.
type sourceStatus struct {
	err       error
	since     time.Time
	fromCache bool
	synced    bool // the configuration has been read at least once
}

// preparationsPerLoad is the number of concurrent preparations per concurrent load: a preparation
// mostly waits for the network.
const preparationsPerLoad = 4

// New creates a Reconciler; Run starts it.
func New(o Options) *Reconciler {
	o.Poll = cmp.Or(o.Poll, 5*time.Minute)
	o.Loads = cmp.Or(o.Loads, 2)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 10*time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	r := &Reconciler{
		o:        o,
		entries:  map[serving.EndpointURL]*entry{},
		canaries: map[serving.EndpointURL]*router.Canary{},
		loaded:   make(chan loadResult),
		outdated: make(chan *entry, 64),
		known:    map[serving.EndpointURL]serving.History{}, unrecorded: make(chan findings, 1),
		slots: make(chan struct{}, o.Loads), preparing: make(chan struct{}, preparationsPerLoad*o.Loads),
	}
	r.status.Store(&serving.Status{})
	return r
}

// Run follows the configuration until ctx ends, then drains and closes all models.
func (r *Reconciler) Run(ctx context.Context) error {
	r.lastGood = r.readDisk()
	looks := make(chan look)
	rung := make(chan struct{}, 1) // one pending notification is enough: a reading covers all changes
	var readers sync.WaitGroup
	readCtx, stopReading := context.WithCancel(ctx)
	readers.Go(func() { r.readLoop(readCtx, rung, looks) })
	if r.o.Changes != nil {
		readers.Go(func() { r.listen(readCtx, rung) })
	}
	if r.o.Journal != nil {
		readers.Go(func() { r.recordLoop(readCtx) })
	}
	r.follow(ctx, looks)
	stopReading()
	readers.Wait()
	r.shutdown()
	return nil
}

// follow is the owner's loop: every change of the state happens here.
func (r *Reconciler) follow(ctx context.Context, looks <-chan look) {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-looks:
			r.see(l)
		case result := <-r.loaded:
			r.finish(result)
			r.finishOthers()
		case e := <-r.outdated:
			if r.entries[e.url] == e && e.settled() {
				e.content, e.liveKey, e.wantedSince = "", "", time.Now()
			}
		case <-patience.C:
			if !r.source.synced {
				r.source.err, r.source.since = errNoAnswer, time.Now()
				r.recall()
			}
		case <-retry.C:
		}
		r.settleRevisions()
		r.startDue(ctx)
		retry.Reset(r.untilRetry())
		r.publish()
	}
}

// look is the result of one reading of the configuration.
type look struct {
	state *State
	err   error
}

// readLoop reads the configuration at each notification and each poll, outside of the owner's
// goroutine, so that a slow control plane delays nothing.
func (r *Reconciler) readLoop(ctx context.Context, rung <-chan struct{}, looks chan<- look) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	failures := 0
	last := r.lastGood
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		case <-rung:
		}
		begun := time.Now()
		state, err := r.o.Source.Load(ctx, last)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			last = state
		}
		next := r.o.Poll
		if err != nil {
			failures++
			next = min(next, retry.Doubled(failures, time.Second, 30*time.Second))
		} else {
			failures = 0
		}
		select {
		case looks <- look{state, err}:
		case <-ctx.Done():
			return
		}
		pause := time.NewTimer(max(lookGap, time.Since(begun)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		wait.Reset(next)
	}
}

// lookGap is the minimum time between two readings of the configuration, because a training script
// may send ten notifications a second. A large configuration is read half of the time at most.
const lookGap = 100 * time.Millisecond

func (r *Reconciler) listen(ctx context.Context, rung chan<- struct{}) {
	for r.o.Changes.Next(ctx) == nil {
		select {
		case rung <- struct{}{}:
		default:
		}
	}
}

// see handles the result of one reading of the configuration.
func (r *Reconciler) see(l look) {
	if l.err != nil {
		r.cannotSee(l.err)
		return
	}
	if r.source.err != nil {
		r.o.Logger.Info("configuration can be read again", "after", time.Since(r.source.since).Round(time.Second))
	}
	r.source = sourceStatus{since: time.Now(), synced: true}
	r.apply(l.state)
	r.keepOnDisk(l.state)
}

// keepOnDisk stores the last good state. A full or read-only disk does not stop serving; it is
// logged once, and shown in the status while it lasts.
func (r *Reconciler) keepOnDisk(state *State) {
	if r.o.CacheFile == "" {
		return
	}
	before, err := r.disk, writeCache(r.o.CacheFile, r.remember(state))
	switch r.disk = err; {
	case err != nil && before == nil:
		r.o.Logger.Warn("last good configuration cannot be kept on disk", "file", r.o.CacheFile, "err", err)
	case err == nil && before != nil:
		r.o.Logger.Info("last good configuration is kept on disk again", "file", r.o.CacheFile)
	}
}

// cannotSee keeps the running models; at start it falls back to the last good state on disk.
func (r *Reconciler) cannotSee(err error) {
	first := r.source.err == nil || errors.Is(r.source.err, errNoAnswer)
	if first {
		r.source.since = time.Now()
	}
	r.source.err = err
	switch {
	case errors.Is(err, ErrNoService):
		r.source.synced = true
		if first {
			r.o.Logger.Info("waiting for a serving service", "hint", "clearml-serving create")
		}
		return
	case first:
		r.o.Logger.Warn("configuration cannot be read, last good one stays in use", "err", err)
	}
	r.recall()
}

// startPatience is how long a start waits for the control plane before it serves the last good
// configuration; a later answer is then applied.
const startPatience = time.Second

// errNoAnswer is in the status until the first answer or failure.
var errNoAnswer = errors.New("the control plane has not answered yet")

// readDisk reads the last good state on disk, nil if there is none. An unreadable file is renamed:
// the next good state takes its place.
func (r *Reconciler) readDisk() *State {
	if r.o.CacheFile == "" {
		return nil
	}
	state, err := readCache(r.o.CacheFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		r.o.Logger.Warn("last good configuration on disk cannot be used", "file", r.o.CacheFile, "err", errors.Join(err, SetAside(r.o.CacheFile)))
		return nil
	}
	return state
}

// recall serves the last good configuration on disk, if nothing is served yet.
func (r *Reconciler) recall() {
	if r.state != nil || r.recalled || r.o.CacheFile == "" {
		return
	}
	r.recalled = true
	if r.lastGood == nil {
		r.o.Logger.Info("there is no last good configuration on disk", "file", r.o.CacheFile)
		return
	}
	r.o.Logger.Info("serving from the last good configuration on disk", "file", r.o.CacheFile)
	r.source.fromCache, r.source.synced = true, true
	r.apply(r.lastGood)
}

// apply compares the wanted with the running endpoints.
func (r *Reconciler) apply(state *State) {
	service := state.service()
	r.learn(state, service)
	known := func(url serving.EndpointURL) serving.History { return r.known[url] }
	live := func(url serving.EndpointURL) bool { return r.entries[url] != nil && r.entries[url].live != nil }
	plan := serving.Resolve(service, state.judged(service, known, live), state.Versions)
	state.references(&plan)
	r.leaveOthers(&plan)
	share, _ := service.Parameters.LogShare(r.o.logShare()) // an unreadable share is one of the plan's problems
	wanted := r.choose(state, service, plan, share)
	for url, e := range plan.Endpoints {
		if e.Unloaded != nil {
			delete(wanted, url)
		}
	}
	for _, url := range r.urls() {
		if _, stays := wanted[url]; stays {
			continue
		}
		e := r.entries[url]
		delete(r.entries, url)
		e.cancelLoad()
		if plan.Endpoints[url].Unloaded != nil {
			r.o.Logger.Info("endpoint unloaded", "endpoint", url)
		} else {
			r.o.Logger.Info("endpoint removed", "endpoint", url)
		}
		defer r.retire(e.live, e.held) // after the snapshot without it is in place
	}
	for url, w := range wanted {
		e := r.entries[url]
		if e == nil {
			e = &entry{url: url, stats: &router.Stats{}}
			r.entries[url] = e
		}
		if e.want.key != w.key {
			e.cancelLoad()
			e.failure, e.wantedSince, e.baseTried = nil, time.Now(), false
		}
		e.want = w // also parts that need no load: logged variables, the revision
		r.log(e)
		r.settle(e)
	}
	problems := !slices.Equal(plan.Problems, r.plan.Problems)
	first, hash := r.state == nil, state.Hash()
	moved := hash != r.stateHash
	r.state, r.plan, r.stateHash = state, plan, hash
	if first || moved {
		r.digests = state.digests()
	}
	if problems {
		for _, p := range plan.Problems {
			r.o.Logger.Warn("part of the configuration is not served", "section", p.Section, "key", p.Key, "problem", p.Text)
		}
	}
	r.report(state, service)
	r.swap()
	for _, f := range r.o.Followers {
		f.Planned(state, plan, first || moved)
	}
}

// leaveOthers leaves out of a plan what this process does not hold.
func (r *Reconciler) leaveOthers(plan *serving.Plan) {
	if r.o.Holds == nil {
		return
	}
	plan.Canaries = nil
	maps.DeleteFunc(plan.Endpoints, func(_ serving.EndpointURL, e serving.PlannedEndpoint) bool {
		return !slices.Contains(r.o.Holds, e.EngineType)
	})
}

// log updates the logged variables of the live model, and what their reference tells of its inputs, without loading
// it again.
func (r *Reconciler) log(e *entry) {
	if e.live == nil {
		return
	}
	e.live.SetLogShare(e.want.logShare)
	if reference := e.want.planned.Reference; !bytes.Equal(e.reference, reference) {
		e.reference = reference
		e.live.Describe(described(e.live.Model, reference), nil)
	}
	setter, ok := e.live.Model.(engine.VariableSetter)
	if !ok || slices.Equal(e.variables, e.want.variables) {
		return
	}
	if err := setter.SetVariables(e.want.variables); err != nil {
		r.o.Logger.Warn("logged variables cannot be changed", "endpoint", e.url, "err", err)
		return
	}
	e.variables = e.want.variables
}

// swap builds a new snapshot of the live models and publishes it.
func (r *Reconciler) swap() {
	s := &router.Snapshot{
		Models:   map[serving.EndpointURL]*router.Live{},
		Canaries: map[serving.EndpointURL]*router.Canary{},
		Waiting:  map[serving.EndpointURL]router.Obstacle{},
		Unclear:  r.plan.Unclear,
	}
	for url, reason := range r.plan.Unusable {
		s.Waiting[url] = router.Obstacle{Reason: reason}
	}
	for url, e := range r.plan.Endpoints {
		if e.Unloaded != nil {
			s.Waiting[url] = router.Obstacle{Unloaded: true, Reason: e.Unloaded.Reason()}
		}
	}
	for url, e := range r.entries {
		if e.live != nil {
			s.Models[url] = e.live
		} else {
			s.Waiting[url] = e.obstacle()
		}
	}
	for url, table := range r.plan.Canaries {
		s.Canaries[url] = r.canary(url, table, s.Models)
	}
	r.canaries = s.Canaries
	r.o.Router.Swap(s)
}

// canary builds the canary from its live targets. While a target is loading, the previous shares
// stay, so that a new version gets its share only when it can answer; a failed target is omitted.
func (r *Reconciler) canary(url serving.EndpointURL, table serving.CanaryTable, models map[serving.EndpointURL]*router.Live) *router.Canary {
	var targets []*router.Live
	var shares []float64
	loading, reason := false, table.Problem
	for i, target := range table.Targets {
		if live, ok := models[target]; ok {
			targets, shares = append(targets, live), append(shares, table.Shares[i])
			continue
		}
		e := r.entries[target]
		if e != nil && e.failure == nil {
			loading = true
		}
		if e != nil {
			reason = "endpoint '" + string(target) + "': " + e.obstacle().Reason
		}
	}
	if before := r.canaries[url]; loading && before != nil {
		if kept := before.Refresh(models); kept != nil {
			return kept
		}
	}
	canary := router.NewCanary(url, targets, shares, reason)
	before := r.canaries[url]
	if before != nil {
		canary.Stats = before.Stats
	}
	if rollout, ok := r.plan.Rollouts[url]; ok && rollout.Active() && (len(targets) == 2 || rollout.Step == serving.MirrorStep) {
		canary.Arms = router.NewArms(rollout, canary.Shares()[rollout.Candidate])
		if before != nil && before.Arms.Same(canary.Arms) {
			canary.Arms = before.Arms // it goes on counting
		}
	}
	return canary
}

// retire drains a model that is in no snapshot any more, closes it, and releases its files.
func (r *Reconciler) retire(live *router.Live, held *heldFiles) {
	if live == nil {
		return
	}
	r.running.Go(func() {
		defer held.release()
		ctx, cancel := context.WithTimeout(context.Background(), r.o.DrainTimeout)
		defer cancel()
		if err := live.Drain(ctx); err != nil {
			r.o.Logger.Warn("requests outlived their model's drain time", "endpoint", live.URL, "requests", live.InUse())
		}
		closeCtx, cancelClose := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancelClose()
		if err := live.Model.Close(closeCtx); err != nil {
			r.o.Logger.Warn("model did not close cleanly", "endpoint", live.URL, "err", err)
		}
	})
}

// shutdown cancels every load and closes every model; new requests find none.
func (r *Reconciler) shutdown() {
	r.o.Router.Swap(&router.Snapshot{})
	for _, e := range r.entries {
		e.cancelLoad()
		r.retire(e.live, e.held)
	}
	done := make(chan struct{})
	go func() {
		r.running.Wait()
		close(done)
	}()
	for {
		select {
		case result := <-r.loaded: // a load that ended during shutdown
			result.discard()
		case <-done:
			return
		}
	}
}

// urls returns the endpoints in a stable order.
func (r *Reconciler) urls() []serving.EndpointURL { return slices.Sorted(maps.Keys(r.entries)) }
