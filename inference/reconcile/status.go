package reconcile

import (
	"cmp"
	"slices"

	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Status returns what the reconciler knows of the present state: Started, Access, Workers,
// Recordings and Shadows are left to its caller. It may be called from any goroutine.
func (r *Reconciler) Status() serving.Status {
	for {
		published, snapshot := r.status.Load(), r.o.Router.Snapshot()
		s, closed := report(*published, snapshot)
		// A model that is replaced while its status is read may be closed by then. It says nothing
		// about its endpoint, which the next model serves.
		if !closed || snapshot == r.o.Router.Snapshot() {
			return s
		}
	}
}

// report adds the present state of a snapshot's models to s; closed says that one of them has been closed.
func report(s serving.Status, snapshot *router.Snapshot) (_ serving.Status, closed bool) {
	endpoints := make([]serving.EndpointReport, len(s.Endpoints))
	for i, e := range s.Endpoints {
		e.Counts = snapshot.Waiting[e.URL].Stats.Counts()
		if live, ok := snapshot.Models[e.URL]; ok {
			e.Counts, e.InUse, e.Model = live.Stats.Counts(), live.InUse(), live.Model.Status()
			e.Signature = live.SignatureReport(signatureReport)
			closed = closed || e.Model.State == serving.StateClosed
			if e.State == serving.StateReady && e.Model.State != "" {
				e.State = e.Model.State
			}
		}
		endpoints[i] = e
	}
	canaries := make([]serving.CanaryReport, len(s.Canaries))
	for i, c := range s.Canaries {
		if canary, ok := snapshot.Canaries[c.URL]; ok {
			c.Counts = canary.Stats.Counts()
		}
		canaries[i] = c
	}
	s.Endpoints, s.Canaries = endpoints, canaries
	return s, closed
}

// publish makes the owner's state visible to Status.
func (r *Reconciler) publish() {
	s := &serving.Status{Synced: r.source.synced, FromCache: r.source.fromCache, SourceSince: r.source.since, Problems: r.plan.Problems}
	if r.source.err != nil {
		s.SourceError = r.source.err.Error()
	}
	if r.disk != nil {
		s.DiskError = r.disk.Error()
	}
	if r.state != nil {
		s.ServiceID, s.ServiceName, s.StateHash = r.state.ServiceID, r.state.ServiceName, r.stateHash
		s.StateChanged, s.Digests = r.state.Changed, r.digests
	}
	for _, url := range r.urls() {
		e := r.entries[url]
		status := serving.EndpointReport{URL: url, Engine: e.want.planned.EngineType, ModelID: e.want.planned.ModelID, Monitoring: e.want.planned.Monitoring, Failure: e.failure}
		setRevisions(&status, e)
		switch {
		case e.settled() && status.Refusal != nil:
			status.State = serving.StateRefused
		case e.settled():
			status.State = serving.StateReady
		case e.live != nil:
			status.State = serving.StateUpdating
		case e.failure != nil:
			status.State = serving.StateFailed
		default:
			status.State = serving.StateLoading
		}
		s.Endpoints = append(s.Endpoints, status)
	}
	for url, e := range r.plan.Endpoints {
		if e.Unloaded != nil {
			s.Endpoints = append(s.Endpoints, serving.EndpointReport{
				URL: url, Engine: e.EngineType, ModelID: e.ModelID, Monitoring: e.Monitoring, State: serving.StateUnloaded,
				Model: serving.ModelReport{State: serving.StateUnloaded, Reason: e.Unloaded.Reason()},
			})
		}
	}
	slices.SortFunc(s.Endpoints, func(a, b serving.EndpointReport) int { return cmp.Compare(a.URL, b.URL) })
	for url, c := range r.canaries {
		table := r.plan.Canaries[url]
		told := serving.CanaryReport{URL: url, Shares: c.Shares(), Problem: table.Problem}
		for _, target := range table.Targets {
			e := r.entries[target]
			told.Loading = told.Loading || e != nil && e.live == nil && e.failure == nil
		}
		if _, err := c.Main(); err != nil && told.Problem == "" && !told.Loading {
			told.Problem = err.Error() // of the endpoints
		}
		s.Canaries = append(s.Canaries, told)
	}
	r.status.Store(s)
	for _, f := range r.o.Followers {
		f.StatusChanged(r.Status)
	}
}

// setRevisions sets what a report says of revisions.
func setRevisions(s *serving.EndpointReport, e *entry) {
	wanted := e.want.choice.Wanted
	s.Configured = wanted.Number
	if e.live != nil {
		s.Revision = e.serves
	}
	if wanted.State != serving.RevisionRefused || wanted.Number == e.want.revision.Number {
		return // there is none to fall back to: it is loaded again and again
	}
	s.Refusal = &serving.Refusal{Revision: wanted.Number, Step: wanted.Step, Reason: wanted.Reason, Since: wanted.Since, Instance: wanted.Instance}
	if s.Failure != nil {
		return
	}
	s.Failure = &serving.LoadFailure{Step: wanted.Step, Reason: wanted.Reason, Since: wanted.Since, Attempts: 1, Revision: wanted.Number}
	if e.refusal != nil && e.refusal.Revision == wanted.Number {
		s.Failure = e.refusal // with the traceback
	}
}
