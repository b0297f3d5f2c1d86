package inference

import (
	"errors"

	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Readiness reports whether an instance, or one endpoint, can answer.
type Readiness struct {
	Ready    bool       `json:"ready"`
	Reason   string     `json:"reason,omitempty"`
	NotReady []NotReady `json:"not_ready,omitempty"`
	// Problems are the parts of the configuration that are not served as stored. The instance
	// serves the rest, and the last good form of these if there is one, so it stays ready.
	Problems []string `json:"problems,omitempty"`
}

// NotReady names an endpoint that cannot answer, or not as configured, and why.
type NotReady struct {
	Endpoint serving.EndpointURL `json:"endpoint"`
	State    serving.State       `json:"state"`
	Reason   string              `json:"reason,omitempty"`
}

// Readiness describes the instance or, if one is named, one endpoint or canary; known is
// false if that is not configured. The instance is ready from the moment when every
// endpoint that can load has loaded: a later one that loads or fails is reported, but does not
// take the others out of service.
func (s *Service) Readiness(endpoint serving.EndpointURL) (r Readiness, known bool) {
	status := s.reconciler.Status()
	r.Ready = s.loaded.Load() || status.Ready()
	if !status.Synced {
		r.Reason = "the configuration has not been read yet"
		if status.SourceError != "" {
			r.Reason += ": " + status.SourceError
		}
	} else if status.SourceError != "" {
		r.Reason = status.SourceError
	}
	for _, p := range status.Problems {
		r.Problems = append(r.Problems, p.String())
	}
	known = endpoint == ""
	for _, e := range status.Endpoints {
		if endpoint != "" && e.URL != endpoint {
			continue
		}
		answers := e.Model.State == serving.StateReady || e.Model.State == serving.StateDegraded
		if endpoint != "" {
			known, r.Ready = true, answers
		}
		if e.State != serving.StateReady {
			r.NotReady = append(r.NotReady, NotReady{Endpoint: e.URL, State: e.State, Reason: e.Reason()})
		}
	}
	if !known {
		_, err := s.router.Check(endpoint)
		notReady, is := errors.AsType[*router.NotReadyError](err)
		if is {
			r.Reason = notReady.Error()
		}
		known, r.Ready = err == nil || is, err == nil
	}
	if !known {
		return Readiness{Reason: "endpoint '" + string(endpoint) + "' is not configured"}, false
	}
	if s.stopping.Load() {
		r.Ready, r.Reason = false, "the instance is stopping"
	}
	return r, true
}

// Arms returns the counts of the canaries with steps.
func (s *Service) Arms() map[serving.EndpointURL]*router.Arms {
	arms := map[serving.EndpointURL]*router.Arms{}
	for url, c := range s.router.Snapshot().Canaries {
		if c.Arms != nil {
			arms[url] = c.Arms
		}
	}
	return arms
}

// Status describes the instance for operators and scripts.
func (s *Service) Status() serving.Status {
	status := s.reconciler.Status()
	status.Started, status.Access, status.Shadows = s.started, s.gate.status(), s.taps.shadows.status()
	if s.o.Recent != nil {
		for i := range status.Endpoints {
			e := &status.Endpoints[i]
			perSecond, p95 := s.o.Recent(e.URL)
			e.PerSecond, e.P95MS = perSecond, p95.Seconds()*1e3
		}
	}
	if s.o.Rollout != nil {
		for i := range status.Canaries {
			status.Canaries[i].Rollout = s.o.Rollout(status.Canaries[i].URL)
		}
	}
	if s.o.WorkersMemory != nil {
		memory := s.o.WorkersMemory()
		status.Workers = &memory
	}
	if s.taps.tapes != nil {
		status.Recordings = s.taps.tapes.status()
	}
	return status
}
