package inference

import (
	"errors"
	"time"

	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Readiness tells whether an instance, or one endpoint, can answer.
type Readiness struct {
	Ready    bool       `json:"ready"`
	Reason   string     `json:"reason,omitempty"`
	NotReady []NotReady `json:"not_ready,omitempty"`
	// Problems names what of the configuration is not served as stored. The instance
	// serves the rest, and the last good form where there is one, so it stays ready.
	Problems []string `json:"problems,omitempty"`
}

// NotReady names an endpoint that cannot answer, or not as configured, and why.
type NotReady struct {
	Endpoint serving.EndpointURL `json:"endpoint"`
	State    string              `json:"state"`
	Reason   string              `json:"reason,omitempty"`
}

// Readiness describes the instance or, when one is named, one endpoint; known is false
// when that is not configured. The instance is ready once every endpoint that can load
// has loaded: one that cannot is named, but does not take the others out of service.
func (s *Service) Readiness(endpoint serving.EndpointURL) (r Readiness, known bool) {
	status := s.reconciler.Status()
	r.Ready = status.Ready()
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
		n := NotReady{Endpoint: e.URL, State: e.State, Reason: e.Model.Reason}
		if e.Failure != nil {
			n.Reason = e.Failure.Step + ": " + e.Failure.Reason
		}
		answers := e.Model.State == "ready" || e.Model.State == "degraded"
		if endpoint != "" {
			known, r.Ready = true, answers
		}
		if e.State != "ready" {
			r.NotReady = append(r.NotReady, n)
		}
	}
	if !known && s.unclear(endpoint, &r) {
		known, r.Ready = true, false
	}
	if !known {
		return Readiness{Reason: "endpoint '" + string(endpoint) + "' is not configured"}, false
	}
	if s.stopping.Load() {
		r.Ready, r.Reason = false, "the instance is stopping"
	}
	return r, true
}

// unclear tells whether a url that is no endpoint of the status may be configured
// nevertheless: its record or section cannot be read.
func (s *Service) unclear(endpoint serving.EndpointURL, r *Readiness) bool {
	_, err := s.router.Check(endpoint) // nil for a canary
	notReady, ok := errors.AsType[*router.NotReadyError](err)
	if ok {
		r.Reason = notReady.Error()
	}
	return ok
}

// WorkersMemory is what all workers take, and what is done about it.
type WorkersMemory struct {
	Budget int64 `json:"budget"`
	Taken  int64 `json:"taken"`
	// EndedEarly counts the idle workers that were ended before their idle timeout.
	EndedEarly uint64 `json:"ended_early"`
	// Short: that happens these days. Exceeded: more is taken than the budget, and no
	// worker can be spared. Unmeasured: the system does not tell what workers take.
	Short      bool `json:"short,omitempty"`
	Exceeded   bool `json:"exceeded,omitempty"`
	Unmeasured bool `json:"unmeasured,omitempty"`
}

// Status describes an instance.
type Status struct {
	Started time.Time `json:"started"`
	reconcile.Status
	Access     AccessStatus      `json:"access"`
	Workers    *WorkersMemory    `json:"workers_memory,omitempty"`
	Recordings []RecordingStatus `json:"recordings,omitempty"`
	Shadows    []ShadowStatus    `json:"shadows,omitempty"`
}

// Status describes the instance for people and scripts.
func (s *Service) Status() Status {
	status := Status{Started: s.started, Status: s.reconciler.Status(), Access: s.gate.status(), Shadows: s.taps.shadows.status()}
	if s.o.WorkersMemory != nil {
		memory := s.o.WorkersMemory()
		status.Workers = &memory
	}
	if s.taps.tapes != nil {
		status.Recordings = s.taps.tapes.status()
	}
	return status
}
