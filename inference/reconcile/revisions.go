package reconcile

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"time"

	"clearmlserving/retry"
	"clearmlserving/serving"
)

// Journal stores revisions on the control plane.
type Journal interface {
	// Record adds to the stored revisions what the histories have beyond them: verdicts, and
	// revisions that another program has made. It is called from one goroutine. An error means that
	// nothing was stored.
	Record(ctx context.Context, serviceID string, histories map[serving.EndpointURL]serving.History) error
}

// learn merges the stored revisions with what this instance knows beyond them.
func (r *Reconciler) learn(state *State, service serving.Service) {
	known := map[serving.EndpointURL]serving.History{}
	for url, h := range service.Revisions {
		known[serving.EndpointURL(url)] = h
	}
	before := r.known
	if r.state == nil {
		before = remembered(r.lastGood, state.ServiceID)
	} else if r.state.ServiceID != state.ServiceID {
		before = nil
	}
	for url, h := range before {
		known[url], _ = known[url].Merge(h)
	}
	r.known = known
}

// remembered is what an instance of before knew of the revisions of a service.
func remembered(last *State, serviceID string) map[serving.EndpointURL]serving.History {
	known := map[serving.EndpointURL]serving.History{}
	if last == nil || last.ServiceID != serviceID {
		return known
	}
	service := serving.Decode(map[serving.Section]json.RawMessage{serving.SectionRevisions: last.Known}, nil)
	for url, h := range service.Revisions {
		known[serving.EndpointURL(url)] = h
	}
	return known
}

// remember returns the state with what this instance knows of revisions.
func (r *Reconciler) remember(state *State) *State {
	s := serving.Service{Revisions: map[string]serving.History{}}
	for url, h := range r.known {
		s.Revisions[string(url)] = h
	}
	text, err := s.Encode(serving.SectionRevisions)
	if err != nil { // unreadable values are never in known
		r.o.Logger.Warn("revisions cannot be kept on disk", "err", err)
		return state
	}
	remembered := *state
	remembered.Known = json.RawMessage(text)
	return &remembered
}

// judged returns the models found by monitoring with what became of their versions, and which of
// these are live.
func (s *State) judged(service serving.Service, known func(serving.EndpointURL) serving.History, live func(serving.EndpointURL) bool) map[string][]serving.MonitoredModel {
	found := map[string][]serving.MonitoredModel{}
	for key, models := range s.Found {
		judged := make([]serving.MonitoredModel, len(models))
		base := string(serving.CleanURL(service.Monitoring[key].BaseServingURL))
		for i, m := range models {
			judged[i] = m
			if n, numbered := s.Versions[base][m.ID]; numbered {
				url := serving.JoinURL(base, strconv.Itoa(n))
				h := known(url)
				judged[i].State, judged[i].Live = h.Newest().State, live(url)
				if _, good := h.LastGood(); good {
					judged[i].State = serving.RevisionGood
				}
			}
		}
		found[key] = judged
	}
	return found
}

// choose decides for each planned endpoint which revision is loaded.
func (r *Reconciler) choose(state *State, service serving.Service, plan serving.Plan, share float64) map[serving.EndpointURL]want {
	now := time.Now().UTC().Truncate(time.Second)
	rules := map[string]int{}
	for key := range service.Monitoring {
		url := serving.CleanURL(key)
		content, ok := service.ContentOf(url, state.code)
		if !ok || content.Monitoring == nil {
			continue // an endpoint has the URL
		}
		h, choice := r.known[url].Choose(content, now)
		r.known[url], rules[key] = h, choice.Wanted.Number
	}
	wanted := map[serving.EndpointURL]want{}
	for url, e := range plan.Endpoints {
		content := state.content(e, plan.Options[url])
		direct := state.want(url, e, serving.Revision{Content: content}, share)
		h := r.known[url]
		current := h.Current(content)
		seen := h
		if running := r.entries[url]; r.o.Holds == nil && running != nil && current && h.Newest().State == serving.RevisionRefused {
			switch { // another instance has refused it
			case running.live != nil && running.liveKey == direct.loads: // it is served here
				h, _ = h.Judge(h.Newest().Number, r.verdict(serving.Verdict{State: serving.RevisionGood, ModelURI: content.ModelURI, ModelSHA256: running.modelSHA256}))
				seen = h
			case running.cancel != nil && running.want.loads == direct.loads && running.want.revision.State == serving.RevisionPending:
				seen = h.WithNewest(func(r *serving.Revision) { r.State = serving.RevisionPending }) // this instance may get another result
			}
		}
		chosen, choice := seen.Choose(content, now)
		if !current {
			h = chosen
			if rule := rules[e.Monitoring]; rule > 0 {
				h = h.WithNewest(func(r *serving.Revision) { r.Rule = rule })
				choice.Wanted.Rule = rule
			}
		}
		r.known[url] = h
		w := wantOf(state, url, e, plan.Options[url], choice, share)
		if r.o.Holds != nil {
			w = w.held(url)
		}
		wanted[url] = w
	}
	for url := range r.known { // what is neither stored nor planned is of no use any more
		_, stored := service.Revisions[string(url)]
		_, planned := plan.Endpoints[url]
		_, rule := serving.LookUp(service.Monitoring, string(url))
		if !stored && !planned && !rule {
			delete(r.known, url)
		}
	}
	return wanted
}

// wantOf is the want of the chosen revision.
func wantOf(state *State, url serving.EndpointURL, e serving.PlannedEndpoint, options serving.EndpointOptions, choice serving.Choice, share float64) want {
	w := state.want(url, e, choice.Load, share)
	w.choice = choice
	proven := choice.Load.State == serving.RevisionGood
	if choice.Base != nil {
		base := state.want(url, e, *choice.Base, share)
		if base.loads == w.loads {
			proven = true // only the golden samples differ, and what serves is not asked
		} else {
			w.base = &base
		}
	}
	if proven {
		return w
	}
	w.golden = state.golden(options.Golden)
	parts := []any{w.loads, choice.Repeated}
	if w.golden != nil {
		parts = append(parts, w.golden.Golden, w.golden.file)
	}
	w.key = digest(parts...)
	return w
}

// held is what a process needs that holds the model for instances that answer requests.
func (w want) held(url serving.EndpointURL) want {
	if w.codeAtFault() != "" {
		w.impossible = ""
	}
	w.planned.PreprocessArtifact, w.planned.Code, w.code, w.model = "", nil, File{}, w.stored
	w.planned.Parameters, w.variables, w.limits, w.golden = serving.Parameters{}, nil, nil, nil
	w.loads = digest(url, w.planned.Endpoint, w.framework, w.model, w.recordChanged, w.impossible)
	w.key = w.loads
	if w.base != nil {
		base := w.base.held(url)
		w.base = &base
	}
	return w
}

// settle notes that the wanted revision is served.
func (r *Reconciler) settle(e *entry) {
	if !e.settled() {
		return
	}
	e.serves = e.want.revision.Number
	if e.want.revision.State != serving.RevisionGood {
		r.judge(e.url, e.serves, serving.Verdict{State: serving.RevisionGood, ModelURI: e.want.model.URL, ModelSHA256: e.modelSHA256})
	}
}

// judge notes what became of a revision, unless others do.
func (r *Reconciler) judge(url serving.EndpointURL, number int, v serving.Verdict) {
	if r.o.Holds != nil {
		return
	}
	h, changed := r.known[url].Judge(number, r.verdict(v))
	if changed {
		r.known[url], r.dirty = h, true
	}
}

func (r *Reconciler) verdict(v serving.Verdict) serving.Verdict {
	v.Time, v.Instance = time.Now().UTC().Truncate(time.Second), r.o.Instance
	return v
}

// settleRevisions follows new verdicts: they may change what is wanted. It ends since each revision
// is judged at most twice.
func (r *Reconciler) settleRevisions() {
	if !r.dirty {
		return
	}
	for r.dirty {
		r.dirty = false
		r.apply(r.state)
	}
	r.keepOnDisk(r.state)
}

// lacking is what the stored revisions of a service lack. found: a revision itself is missing.
func (r *Reconciler) lacking(service serving.Service) (lacking map[serving.EndpointURL]serving.History, found bool) {
	lacking = map[serving.EndpointURL]serving.History{}
	for url, h := range r.known {
		stored := service.Revisions[string(url)]
		if _, more := stored.Merge(h); more {
			lacking[url] = h
			found = found || h.Newest().Number > stored.Newest().Number
		}
	}
	return lacking, found
}

// findings are what the stored revisions of a service lack.
type findings struct {
	serviceID string
	histories map[serving.EndpointURL]serving.History
	// found means that a revision itself is missing, and not only what became of one.
	found bool
}

// report hands what the stored revisions lack to the journal, in the place of an older set.
func (r *Reconciler) report(state *State, service serving.Service) {
	if r.o.Journal == nil || r.source.fromCache {
		return
	}
	lacking, found := r.lacking(service)
	select {
	case <-r.unrecorded:
	default:
	}
	if len(lacking) == 0 {
		return
	}
	select {
	case r.unrecorded <- findings{state.ServiceID, lacking, found}:
	default: // the loop of the journal has just put back a set; the next comparison replaces it
	}
}

const (
	// recordDelay is the wait before a revision is stored that another program has made. A command
	// of ours that has just uploaded code stores its revision meanwhile. A verdict does not wait.
	recordDelay = time.Second
	// The pauses after failures: credentials without the right to write fail for ever.
	recordPause, longestRecordPause = 2 * time.Second, 10 * time.Minute
)

// newest is the newest set of findings. It waits for recordDelay while a revision is missing.
func (r *Reconciler) newest(ctx context.Context, lacking findings) findings {
	delay := time.NewTimer(recordDelay)
	defer delay.Stop()
	for lacking.found {
		select {
		case lacking = <-r.unrecorded:
		case <-delay.C:
			return lacking
		case <-ctx.Done():
			return lacking
		}
	}
	select {
	case lacking = <-r.unrecorded:
	default:
	}
	return lacking
}

// recordLoop stores what the stored revisions lack.
func (r *Reconciler) recordLoop(ctx context.Context) {
	failures, told := 0, ""
	for {
		var lacking findings
		select {
		case lacking = <-r.unrecorded:
		case <-ctx.Done():
			return
		}
		if failures > 0 {
			if retry.Sleep(ctx, retry.Doubled(failures, recordPause, longestRecordPause)) != nil {
				return
			}
		}
		if lacking = r.newest(ctx, lacking); ctx.Err() != nil {
			return
		}
		begun := time.Now()
		err := r.o.Journal.Record(ctx, lacking.serviceID, lacking.histories)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures, told = 0, ""
			if retry.Sleep(ctx, time.Since(begun)) != nil { // many verdicts of a large service are stored together
				return
			}
			continue
		}
		failures++
		level := slog.LevelDebug
		if told != err.Error() {
			level, told = slog.LevelWarn, err.Error()
		}
		r.o.Logger.Log(ctx, level, "revisions cannot be recorded on the serving service", "err", err)
		select {
		case r.unrecorded <- lacking: // unless there is a newer set
		default:
		}
	}
}
