package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

// entry is an endpoint of the reconciler: the wanted, the live and the loading model, and the last
// failure.
type entry struct {
	url         serving.EndpointURL
	want        want
	wantedSince time.Time
	stats       *router.Stats
	live        *router.Live
	liveKey     string // the want.loads that live satisfies
	serves      int    // the number of the revision of live
	content     string // digest of the files and settings of live
	modelSHA256 string // of the model's file of live
	baseTried   bool   // the base of want has been loaded, or cannot be
	cancel      context.CancelFunc
	attempt     uint64   // the number of the running load, or of the last one
	variables   []string // of the model of live, set last
	reference   []byte   // that the signature of live was completed by
	failure     *serving.LoadFailure
	refusal     *serving.LoadFailure // of the refused revision, as this instance saw it
	held        *heldFiles           // used by live
}

// cancelLoad cancels a running load; its result is discarded.
func (e *entry) cancelLoad() {
	if e.cancel != nil {
		e.cancel()
		e.cancel = nil
	}
}

func (e *entry) obstacle() router.Obstacle {
	if e.failure != nil {
		return router.Obstacle{Reason: cmp.Or(e.failure.Cause, e.failure.Reason), Code: e.failure.Code, Stats: e.stats}
	}
	return router.Obstacle{Loading: true, Reason: "it is being loaded", Stats: e.stats}
}

// settled reports whether the entry needs no action now.
func (e *entry) settled() bool { return e.live != nil && e.liveKey == e.want.loads }

// loadResult is the result of one attempt to load.
type loadResult struct {
	entry     *entry
	attempt   uint64 // the number of the load
	want      want
	base      bool // want is the base of what the entry wants
	content   string
	modelSHA  string       // of the model's file
	model     engine.Model // nil when failed or unchanged
	lessons   *engine.Lessons
	unchanged bool
	failure   *serving.LoadFailure
	files     *heldFiles
}

// discard releases a result that is not used.
func (l loadResult) discard() {
	if l.model != nil {
		closeUnused(context.Background(), l.model)
	}
	l.files.release()
}

// startDue starts every load that is wanted and not running.
func (r *Reconciler) startDue(ctx context.Context) {
	now := time.Now()
	for _, url := range r.urls() {
		e := r.entries[url]
		if e.settled() || e.cancel != nil || (e.failure != nil && now.Before(e.failure.NextTry)) {
			continue
		}
		loadCtx, cancel := context.WithCancel(ctx)
		e.cancel = cancel
		e.attempt++
		w, content, attempt := e.want, e.content, e.attempt
		base := e.live == nil && w.base != nil && !e.baseTried
		if base {
			w = *w.base
		}
		if e.failure != nil && e.failure.Step == stepLoad && e.failure.Attempts == 1 {
			w.code.Verify, w.model.Verify = true, true // the files may be the cause
		}
		r.running.Go(func() {
			defer cancel()
			result := r.load(loadCtx, e, w, content)
			result.entry, result.attempt, result.want, result.base = e, attempt, w, base
			r.loaded <- result // the owner, or shutdown, always receives it
		})
	}
}

// untilRetry is the time until the next failed load is retried.
func (r *Reconciler) untilRetry() time.Duration {
	next := time.Hour
	for _, e := range r.entries {
		if e.failure != nil && e.cancel == nil && !e.settled() {
			next = min(next, max(0, time.Until(e.failure.NextTry)))
		}
	}
	return next
}

// load brings an endpoint's files and makes its model. It runs apart from the owner.
// A panic of an engine costs the load, not the process.
func (r *Reconciler) load(ctx context.Context, e *entry, w want, liveContent string) (result loadResult) {
	url := e.url
	var model engine.Model
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		r.o.Logger.Error("load panicked", "endpoint", url, "panic", p, "stack", string(debug.Stack()))
		if model != nil {
			closeUnused(ctx, model)
		}
		result.failure = &serving.LoadFailure{Step: stepLoad, Reason: fmt.Sprintf("the engine panicked: %v", p)}
	}()
	if w.impossible != "" {
		return loadResult{failure: &serving.LoadFailure{Step: "fetch", Reason: w.impossible, Code: w.codeAtFault()}}
	}
	prepared, ok := turn(ctx, r.preparing) // bounds concurrent downloads
	if !ok {
		return givenUp()
	}
	defer prepared()
	spec := engine.Spec{
		URL: url, Endpoint: w.planned.Endpoint, Framework: w.framework, CodeName: w.planned.PreprocessArtifact, Variables: w.variables, Limits: w.limits, Parameters: w.planned.Parameters,
	}
	fetched, err := r.fetch(ctx, w)
	result.files = fetched.held
	if err != nil {
		result.failure = &serving.LoadFailure{Step: "fetch", Reason: err.Error()}
		return result
	}
	spec.CodePath, spec.ModelPath = fetched.code.Path, fetched.model.Path
	spec.Restore = func(ctx context.Context, distrust bool) error { return r.restore(ctx, e, w, fetched, distrust) }
	result.modelSHA = fetched.model.SHA256
	result.content = digest(append([]any{url, w.planned.Endpoint, fetched.code.SHA256, fetched.model.SHA256, w.limits}, parametersOf(w.planned)...)...)
	if result.content == liveContent {
		result.unchanged = true
		return result
	}
	var samples []serving.Exchange
	if w.golden != nil {
		if samples, err = r.samples(ctx, w.golden); err != nil {
			result.failure = &serving.LoadFailure{Step: stepGolden, Reason: err.Error()}
			return result
		}
	}
	spec.Recorded = func() []serving.Exchange {
		if r.o.Recorded == nil {
			return samples
		}
		return append(slices.Clip(samples), r.o.Recorded(url)...)
	}
	if preparer, ok := r.o.Loader.(engine.Preparer); ok {
		if err := preparer.Prepare(ctx, spec); err != nil {
			result.failure = w.loadFailure(err)
			return result
		}
	}
	prepared()
	loaded, ok := turn(ctx, r.slots) // bounds the resources that loading takes from serving
	if !ok {
		result.failure = givenUp().failure
		return result
	}
	defer loaded()
	model, err = r.o.Loader.Load(ctx, spec)
	if err != nil && w.loadFailure(err).Final && r.repaired(ctx, w, fetched) {
		model, err = r.o.Loader.Load(ctx, spec)
	}
	if err != nil {
		result.failure = w.loadFailure(err)
		return result
	}
	if w.golden != nil {
		if err := w.golden.reproduces(ctx, model, samples, w.golden.Limit(w.limits.Within(r.o.RequestTimeout))); err != nil {
			closeUnused(ctx, model)
			result.failure = &serving.LoadFailure{Step: stepGolden, Reason: err.Error(), Final: ctx.Err() == nil}
			return result
		}
	}
	result.model = model
	result.lessons = r.lessons(url, w, samples)
	return result
}

// turn acquires a slot of a semaphore; done releases it, and may be called again.
func turn(ctx context.Context, places chan struct{}) (done func(), ok bool) {
	select {
	case places <- struct{}{}:
		return sync.OnceFunc(func() { <-places }), true
	case <-ctx.Done():
		return nil, false
	}
}

func givenUp() loadResult {
	return loadResult{failure: &serving.LoadFailure{Step: "fetch", Reason: "given up: the configuration changed"}}
}

// loadFailure is the engine's reason, with the artifact of the code that failed.
func (w want) loadFailure(err error) *serving.LoadFailure {
	failure := &serving.LoadFailure{Step: stepLoad, Reason: err.Error()}
	loadErr, ok := errors.AsType[*engine.LoadError](err)
	failure.Final = ok && loadErr.Final
	if ok {
		failure.Within = loadErr.Within
	}
	if ok && loadErr.UserCode {
		failure.Traceback, failure.Code = loadErr.Traceback, w.planned.PreprocessArtifact
		if failure.Code != "" {
			failure.Cause = loadErr.Cause
		}
	}
	return failure
}

// part is one file of a model: as it is to be fetched again, and as it was fetched.
type part struct {
	name string
	file File
	was  Local
}

// parts are the files of a model, to be fetched with the content that they had.
func parts(w want, was fetchedFiles, verify bool) []part {
	var all []part
	for _, p := range []part{{"code", w.code, was.code}, {"model", w.model, was.model}} {
		if p.file.URL != "" {
			p.file.SHA256, p.file.Verify = p.was.SHA256, verify
			all = append(all, p)
		}
	}
	return all
}

// repaired compares the files of a failed load with what they should be, and reports whether one
// was damaged and has been fetched again.
func (r *Reconciler) repaired(ctx context.Context, w want, was fetchedFiles) bool {
	repaired := false
	for _, part := range parts(w, was, true) {
		local, err := r.o.Files.Fetch(ctx, part.file)
		if err != nil {
			continue // the load has failed with what there is
		}
		was.held.put(part.name, local.Release)
		repaired = repaired || (local.Fresh && local.Path == part.was.Path)
	}
	return repaired
}

// closeUnused closes a model that was never in service.
func closeUnused(ctx context.Context, model engine.Model) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	_ = model.Close(ctx) // its workers are killed at the latest when the process ends
}

// codeAtFault names the preprocess artifact if it is missing.
func (w want) codeAtFault() string {
	if w.planned.PreprocessArtifact != "" && w.code.URL == "" {
		return w.planned.PreprocessArtifact
	}
	return ""
}

// fetchedFiles are the local files of one endpoint.
type fetchedFiles struct {
	code, model Local
	held        *heldFiles
}

// heldFiles keeps the files of one model in place until release.
type heldFiles struct {
	mu       sync.Mutex // guards the rest
	releases map[string]func()
	released bool
}

// put holds a file, replacing the one held under that name.
func (h *heldFiles) put(name string, release func()) {
	h.mu.Lock()
	before := h.releases[name]
	if h.released {
		before = release
	} else {
		h.releases[name] = release
	}
	h.mu.Unlock()
	if before != nil {
		before()
	}
}

// release releases all files; nil holds nothing.
func (h *heldFiles) release() {
	if h == nil {
		return
	}
	h.mu.Lock()
	releases := h.releases
	h.releases, h.released = nil, true
	h.mu.Unlock()
	for _, release := range releases {
		release()
	}
}

func (r *Reconciler) fetch(ctx context.Context, w want) (fetchedFiles, error) {
	f := fetchedFiles{held: &heldFiles{releases: map[string]func(){}}}
	var err error
	if w.code.URL != "" {
		if f.code, err = r.o.Files.Fetch(ctx, w.code); err != nil {
			return f, fmt.Errorf("preprocess code '%s': %w", w.planned.PreprocessArtifact, err)
		}
		f.held.put("code", f.code.Release)
	}
	if w.model.URL != "" {
		if f.model, err = r.o.Files.Fetch(ctx, w.model); err != nil {
			return f, fmt.Errorf("model %s: %w", w.planned.ModelID, err)
		}
		f.held.put("model", f.model.Release)
	}
	return f, nil
}

// restore fetches the files of a model again if they are missing or were changed. If their source
// has other content now, the endpoint is loaded again with that.
func (r *Reconciler) restore(ctx context.Context, e *entry, w want, was fetchedFiles, distrust bool) error {
	for _, part := range parts(w, was, distrust) {
		local, err := r.o.Files.Fetch(ctx, part.file)
		if err == nil {
			was.held.put(part.name, local.Release)
			if local.Path == part.was.Path {
				continue
			}
			err = fmt.Errorf("it now lies at %s", local.Path)
		}
		if ctx.Err() == nil {
			select {
			case r.outdated <- e:
			default: // the next try reports it again
			}
		}
		return fmt.Errorf("%s: %w", part.name, err)
	}
	return nil
}

// finish handles the end of a load: the new model goes live, the old one is retired.
func (r *Reconciler) finish(result loadResult) {
	e := result.entry
	// The wanted configuration may have changed and changed back: the key alone does not
	// distinguish the result of a cancelled load from that of the running one.
	if r.entries[e.url] != e || e.attempt != result.attempt || e.cancel == nil {
		r.running.Go(result.discard)
		return
	}
	e.cancel = nil
	e.baseTried = e.baseTried || result.base
	switch {
	case result.failure != nil && result.base:
		result.files.release()
		r.o.Logger.Error("last good revision cannot be loaded", "endpoint", e.url, "revision", result.want.revision.Number, "step", result.failure.Step, "reason", result.failure.Reason)
	case result.failure != nil:
		r.fail(e, result)
	case result.unchanged:
		result.files.release() // live holds the same files already
		e.liveKey, e.failure = result.want.loads, nil
	default:
		old, held := e.live, e.held
		e.live = router.NewLive(e.url, result.want.planned.ModelID, result.model)
		e.live.Stats = e.stats
		e.live.Timeout = result.want.limits.Within(r.o.RequestTimeout)
		e.variables = result.want.variables
		e.reference = result.want.planned.Reference
		e.live.Describe(described(result.model, e.reference), result.lessons)
		r.log(e)
		e.liveKey, e.content, e.modelSHA256, e.held, e.failure = result.want.loads, result.content, result.modelSHA, result.files, nil
		e.serves = result.want.revision.Number
		r.o.Logger.Info("endpoint live", "endpoint", e.url, "model_id", result.want.planned.ModelID, "revision", e.serves, "took", time.Since(e.wantedSince).Round(time.Millisecond))
		r.settle(e)
		// A version that is live may take the place and the share of others.
		r.dirty = r.dirty || (old == nil && result.want.planned.Monitoring != "")
		r.swap()
		r.retire(old, held)
		return
	}
	r.settle(e)
	r.swap()
}

// finishOthers handles the other loads that have ended by now: what follows compares the whole configuration, and of a
// thousand endpoints that are new it would do so a thousand times.
func (r *Reconciler) finishOthers() {
	for {
		select {
		case result := <-r.loaded:
			r.finish(result)
		default:
			return
		}
	}
}

func (r *Reconciler) fail(e *entry, result loadResult) {
	result.files.release()
	f := result.failure
	f.Since, f.Attempts, f.Revision = time.Now(), 1, result.want.revision.Number
	if e.failure != nil {
		f.Since, f.Attempts = e.failure.Since, e.failure.Attempts+1
	}
	pause := retry.Doubled(f.Attempts, 2*time.Second, 5*time.Minute)
	if f.Within > 0 {
		pause = min(pause, f.Within)
	}
	f.NextTry = time.Now().Add(pause)
	repeated := e.failure != nil && e.failure.Reason == f.Reason
	e.failure = f
	if e.live == nil {
		e.baseTried = false // what served before may load again by then
	}
	if !repeated {
		r.o.Logger.Error("endpoint cannot be loaded", "endpoint", e.url, "revision", f.Revision, "step", f.Step, "reason", f.Reason, "traceback", f.Traceback, "old_version_serves", e.live != nil)
	} else {
		r.o.Logger.Debug("endpoint still cannot be loaded", "endpoint", e.url, "attempts", f.Attempts, "reason", f.Reason)
	}
	if f.Final && result.want.revision.State == serving.RevisionPending && r.o.Holds == nil {
		refusal := *f
		refusal.NextTry = time.Time{}
		e.refusal = &refusal
		r.judge(e.url, f.Revision, serving.Verdict{State: serving.RevisionRefused, Step: f.Step, Reason: f.Reason})
		r.dirty = true // also if another instance has refused it first: it is not wanted any more
	}
}

// archives are the file name extensions of packed models, which are served as folders.
var archives = []string{".zip", ".tgz", ".tar.gz", ".tar"} //nolint:gochecknoglobals // a constant table

func isArchive(uri string) bool {
	name := strings.ToLower(path.Base(uri))
	for _, ending := range archives {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return false
}
