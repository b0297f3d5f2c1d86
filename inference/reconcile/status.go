package reconcile

import (
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// Status describes what an instance serves, for people and probes. It is a snapshot, except for the
// models' own states, which are read on access.
type Status struct {
	ServiceID   string `json:"service_id,omitempty"`
	ServiceName string `json:"service_name,omitempty"`
	StateHash   string `json:"state_hash,omitempty"`
	// Digests are the change markers of each URL; see serving.Service.Digests.
	Digests     map[serving.EndpointURL]string `json:"digests,omitempty"`
	Synced      bool                           `json:"synced"` // the configuration, or its last good copy, has been read
	FromCache   bool                           `json:"from_cache,omitempty"`
	SourceError string                         `json:"control_plane_error,omitempty"`
	SourceSince time.Time                      `json:"control_plane_since,omitzero"`
	// DiskError says why the last good configuration cannot be stored on disk: serving continues,
	// but a restart without the control plane would not have it.
	DiskError string            `json:"disk_error,omitempty"`
	Endpoints []EndpointStatus  `json:"endpoints"`
	Canaries  []CanaryStatus    `json:"canaries,omitempty"`
	Problems  []serving.Problem `json:"problems,omitempty"`
}

// EndpointStatus describes one endpoint.
type EndpointStatus struct {
	URL        serving.EndpointURL `json:"endpoint"`
	Engine     string              `json:"engine"`
	ModelID    serving.ModelID     `json:"model_id,omitempty"`
	Monitoring string              `json:"monitoring,omitempty"`
	// State is ready, degraded, loading, failed, or updating (an old version is in service while a
	// newer one is loading or has failed: see Failure).
	State    string        `json:"state"`
	Failure  *Failure      `json:"failure,omitempty"`
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"`
	MeanMS   float64       `json:"mean_ms"`
	InUse    int64         `json:"in_use"`
	Model    engine.Status `json:"model,omitzero"`
}

// CanaryStatus describes one canary with its present shares.
type CanaryStatus struct {
	URL     serving.EndpointURL             `json:"endpoint"`
	Shares  map[serving.EndpointURL]float64 `json:"shares"`
	Problem string                          `json:"problem,omitempty"`
}

// Ready reports whether every endpoint that can load has loaded.
func (s *Status) Ready() bool {
	if !s.Synced {
		return false
	}
	for _, e := range s.Endpoints {
		if e.State == stateLoading {
			return false
		}
	}
	return true
}

const (
	stateReady    = "ready"
	stateLoading  = "loading"
	stateFailed   = "failed"
	stateUpdating = "updating"
)

// Status returns the present state. It may be called from any goroutine.
func (r *Reconciler) Status() Status {
	s := *r.status.Load()
	snapshot := r.o.Router.Snapshot()
	endpoints := make([]EndpointStatus, len(s.Endpoints))
	for i, e := range s.Endpoints {
		if live, ok := snapshot.Models[e.URL]; ok {
			e.Requests, e.Errors, e.InUse = live.Stats.Requests.Load(), live.Stats.Errors.Load(), live.InUse()
			if e.Requests > 0 {
				e.MeanMS = float64(live.Stats.Nanos.Load()) / float64(e.Requests) / 1e6
			}
			e.Model = live.Model.Status()
			if e.State == stateReady && e.Model.State != "" {
				e.State = e.Model.State
			}
		}
		endpoints[i] = e
	}
	s.Endpoints = endpoints
	return s
}

// publish makes the owner's state visible to Status.
func (r *Reconciler) publish() {
	s := &Status{Synced: r.source.synced, FromCache: r.source.fromCache, SourceSince: r.source.since, Problems: r.plan.Problems}
	if r.source.err != nil {
		s.SourceError = r.source.err.Error()
	}
	if r.disk != nil {
		s.DiskError = r.disk.Error()
	}
	if r.state != nil {
		s.ServiceID, s.ServiceName, s.StateHash = r.state.ServiceID, r.state.ServiceName, r.stateHash
		s.Digests = r.digests
	}
	for _, url := range r.urls() {
		e := r.entries[url]
		status := EndpointStatus{URL: url, Engine: e.want.planned.EngineType, ModelID: e.want.planned.ModelID, Monitoring: e.want.planned.Monitoring, Failure: e.failure}
		switch {
		case e.settled():
			status.State = stateReady
		case e.live != nil:
			status.State = stateUpdating
		case e.failure != nil:
			status.State = stateFailed
		default:
			status.State = stateLoading
		}
		s.Endpoints = append(s.Endpoints, status)
	}
	for url, c := range r.canaries {
		s.Canaries = append(s.Canaries, CanaryStatus{URL: url, Shares: c.Shares(), Problem: r.plan.Canaries[url].Problem})
	}
	r.status.Store(s)
	for _, f := range r.o.Followers {
		f.StatusChanged(r.Status)
	}
}
