// Package reconcile makes what runs follow what is configured. It owns the state
// of an inference instance: one goroutine reads the configuration, brings files,
// has models loaded, and exchanges the router's snapshot only when the new is
// ready; the old drains and closes. A change that fails leaves the old serving
// and is told. It never answers requests and never stalls them.
package reconcile

import (
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
)

// Changes tells when to look at the configuration before the next poll is due.
type Changes interface {
	// Next blocks until something may have changed since the last call returned,
	// or ctx ends. It is called from one goroutine.
	Next(ctx context.Context) error
}

// Source reads the configuration of the service.
type Source interface {
	// Load reads the service as it is now. It is called from one goroutine at a
	// time. last is the last good state, nil if there is none: what of the service
	// cannot be used keeps the form that it has there. ErrNoService says that there
	// is no service yet.
	Load(ctx context.Context, last *State) (*State, error)
}

// ErrNoService is returned by a Source while no serving service exists.
var ErrNoService = errors.New("there is no serving service yet: create one with: clearml-serving create")

// Files brings files to this machine.
type Files interface {
	// Fetch may be called from many goroutines. The local file stays in place
	// until Release is called.
	Fetch(ctx context.Context, f File) (Local, error)
}

// Follower learns what an instance serves. Its methods are called on the
// reconciler's one goroutine, so never at the same time, and must not block.
type Follower interface {
	// Planned is called after each reading of the configuration that succeeded, once
	// the urls of the plan are routed and before any new model of it has loaded.
	// changed is false when the configuration reads as it did before; the plan may
	// differ even so, where it depends on what was found on the server.
	Planned(state *State, plan serving.Plan, changed bool)
	// StatusChanged is called after each step that may have changed the status: a
	// reading of the configuration, failed or not, and the begin and end of a load.
	// What a Planned call led to is told after it. status reads the newest one, at any
	// time and from any goroutine.
	StatusChanged(status func() Status)
}

// File is something to bring here.
type File struct {
	URL    string
	SHA256 string // "" when not known
	Unpack bool   // an archive whose content is wanted as a folder
	Verify bool   // what is here already is compared, however untouched it looks
}

// Local is a file or folder on this machine.
type Local struct {
	Path    string
	SHA256  string // of the file as it was fetched
	Release func()
}

// Options of a Reconciler.
type Options struct {
	Router  *router.Router
	Source  Source
	Files   Files
	Loader  engine.Loader
	Changes Changes // nil: polling only
	// Poll is the time between two looks at the configuration. Default 5 minutes.
	Poll time.Duration
	// CacheFile keeps the last good state, "" for none.
	CacheFile string
	// Loads bounds how many models load at once. Default 2.
	Loads int
	// DrainTimeout bounds how long a replaced model waits for its requests. Default 10 minutes.
	DrainTimeout time.Duration
	// RequestTimeout bounds one request, 0 for none.
	RequestTimeout time.Duration
	// LogShare is the share of requests whose variables are logged where neither the
	// endpoint nor the service says. nil: all of them.
	LogShare *float64
	// Followers are told of each plan and of each status, in this order.
	Followers []Follower
	Logger    *slog.Logger
}

// Reconciler is the owner of what an instance serves.
type Reconciler struct {
	o      Options
	status atomic.Pointer[Status]

	// What follows belongs to the goroutine of Run.
	state     *State
	plan      serving.Plan
	stateHash string
	digests   map[serving.EndpointURL]string
	entries   map[serving.EndpointURL]*entry
	canaries  map[serving.EndpointURL]*router.Canary
	loaded    chan loadResult
	outdated  chan *entry   // whose files cannot be brought back as they were: it is loaded anew
	slots     chan struct{} // one for each load under way
	preparing chan struct{} // one for each preparation under way: downloads, environments
	running   sync.WaitGroup
	source    sourceStatus
	disk      error // why the last good state is not on disk
	recalled  bool  // the state on disk has been applied

	lastGood *State // the state on disk at start, nil if there is none; not changed after Run has begun
}

func (o Options) logShare() float64 {
	if o.LogShare == nil {
		return 1
	}
	return *o.LogShare
}

// sourceStatus is how the last look at the configuration went.
type sourceStatus struct {
	err       error
	since     time.Time
	fromCache bool
	synced    bool // the configuration has been seen at least once
}

// preparationsPerLoad is how many endpoints may be prepared for each that may
// load: a preparation mostly waits for the network.
const preparationsPerLoad = 4

// New prepares a Reconciler; Run starts it.
func New(o Options) *Reconciler {
	if o.Poll <= 0 {
		o.Poll = 5 * time.Minute
	}
	if o.Loads <= 0 {
		o.Loads = 2
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 10 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reconciler{
		o:        o,
		entries:  map[serving.EndpointURL]*entry{},
		canaries: map[serving.EndpointURL]*router.Canary{},
		loaded:   make(chan loadResult),
		outdated: make(chan *entry, 64),
		slots:    make(chan struct{}, o.Loads), preparing: make(chan struct{}, preparationsPerLoad*o.Loads),
	}
	r.status.Store(&Status{})
	return r
}

// Run follows the configuration until ctx ends, then drains and closes all models.
func (r *Reconciler) Run(ctx context.Context) error {
	r.lastGood = r.readDisk()
	looks := make(chan look)
	rung := make(chan struct{}, 1) // one waiting ring is enough: a look sees everything
	var readers sync.WaitGroup
	readCtx, stopReading := context.WithCancel(ctx)
	readers.Go(func() { r.readLoop(readCtx, rung, looks) })
	if r.o.Changes != nil {
		readers.Go(func() { r.listen(readCtx, rung) })
	}
	r.follow(ctx, looks)
	stopReading()
	readers.Wait()
	r.shutdown()
	return nil
}

// follow is the owner's loop: everything that changes the state happens here.
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
		r.startDue(ctx)
		retry.Reset(r.untilRetry())
		r.publish()
	}
}

// look is the outcome of one reading of the configuration.
type look struct {
	state *State
	err   error
}

// readLoop reads the configuration at each ring and each poll, apart from the
// owner, so that a slow control plane delays nothing.
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
		pause := time.NewTimer(lookGap)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		wait.Reset(next)
	}
}

// lookGap is the least time between two readings of the configuration: a
// training script that reports ten times a second rings as often.
const lookGap = 100 * time.Millisecond

func (r *Reconciler) listen(ctx context.Context, rung chan<- struct{}) {
	for r.o.Changes.Next(ctx) == nil {
		select {
		case rung <- struct{}{}:
		default:
		}
	}
}

// see takes in one reading of the configuration.
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

// keepOnDisk keeps the last good state. A disk that is full or read-only does not
// stop serving; it is said once, and shown as long as it lasts.
func (r *Reconciler) keepOnDisk(state *State) {
	if r.o.CacheFile == "" {
		return
	}
	before, err := r.disk, writeCache(r.o.CacheFile, state)
	switch r.disk = err; {
	case err != nil && before == nil:
		r.o.Logger.Warn("last good configuration cannot be kept on disk", "file", r.o.CacheFile, "err", err)
	case err == nil && before != nil:
		r.o.Logger.Info("last good configuration is kept on disk again", "file", r.o.CacheFile)
	}
}

// cannotSee keeps what runs; at start it falls back to the last good state on disk.
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
		r.o.Logger.Warn("configuration cannot be read; serving goes on with the last good one", "err", err)
	}
	r.recall()
}

// startPatience is how long a start waits for the control plane before it
// serves the last good configuration; the answer, when it comes, is then applied.
const startPatience = time.Second

// errNoAnswer is what the status says until the first answer or failure.
var errNoAnswer = errors.New("the control plane has not answered yet")

// readDisk reads the last good state on disk, nil if there is none. A file that
// cannot be read is set aside: the next good state takes its place.
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

// apply compares what is wanted with what runs.
func (r *Reconciler) apply(state *State) {
	service := state.service()
	plan := serving.Resolve(service, state.Found, state.Versions)
	share, _ := service.Parameters.LogShare(r.o.logShare()) // a share that cannot be read is one of the plan's problems
	wanted := map[serving.EndpointURL]want{}
	for url, e := range plan.Endpoints {
		wanted[url] = state.want(url, e, plan.Options[url], share)
	}
	current := map[serving.EndpointURL]string{}
	for url, e := range r.entries {
		current[url] = e.want.key
	}
	change := diff(current, wanted)
	for _, url := range change.gone {
		e := r.entries[url]
		delete(r.entries, url)
		e.cancelLoad()
		r.o.Logger.Info("endpoint removed", "endpoint", url)
		defer r.retire(e.live, e.held) // after the snapshot without it is in place
	}
	for _, url := range slices.Concat(change.added, change.changed) {
		e := r.entries[url]
		if e == nil {
			e = &entry{url: url}
			r.entries[url] = e
		}
		e.cancelLoad()
		e.want, e.failure, e.wantedSince = wanted[url], nil, time.Now()
	}
	for url, w := range wanted {
		r.entries[url].want = w // parts that need no load: what is logged
		r.log(r.entries[url])
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
	r.swap()
	for _, f := range r.o.Followers {
		f.Planned(state, plan, first || moved)
	}
}

// log has the live model of an entry log what is wanted, without loading it again.
func (r *Reconciler) log(e *entry) {
	if e.live == nil {
		return
	}
	e.live.SetLogShare(e.want.logShare)
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

// swap builds a new snapshot of what is live and makes it current.
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

// canary makes the choice among the live ones of a canary's targets. While a
// target is still loading, the shares of before stay, so that a new version
// takes its share only when it can answer; a target that failed is left out.
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
	return router.NewCanary(url, targets, shares, reason)
}

// retire drains a model that no snapshot holds any more, closes it, and gives
// back the files that it used.
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

// shutdown ends every load and closes every model; new requests find none.
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
		case result := <-r.loaded: // a load that ended while we were stopping
			result.discard()
		case <-done:
			return
		}
	}
}

// urls returns the endpoints in a stable order.
func (r *Reconciler) urls() []serving.EndpointURL { return slices.Sorted(maps.Keys(r.entries)) }
