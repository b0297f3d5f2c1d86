package instance

import (
	"encoding/json"
	"fmt"
	"strings"

	"clearmlserving/inference"
	"clearmlserving/inference/reconcile"
)

// Report is what an instance tells of itself on the control plane, so that
// whoever changes a service finds all its instances there and sees what became
// of the change, without having to reach one of them.
type Report struct {
	// Name tells the instances of a service apart, for people: "host:port".
	Name string `json:"instance"`
	// URL is where the instance answers requests, as seen from its own machine.
	URL string `json:"serve_url"`
	// Path is the first part of every endpoint's path there.
	Path string `json:"serve_path,omitempty"`
	// Key is the public half of the instance's identity.
	Key string `json:"key,omitempty"`
	PID int    `json:"pid"`
	Usage
	inference.Status
}

// Usage is what an instance takes of its machine, its workers included.
type Usage struct {
	CPU       float64 `json:"cpu_percent,omitempty"` // of one core, since the last report
	Memory    int64   `json:"memory_bytes,omitempty"`
	Processes int     `json:"processes,omitempty"`
}

// ParseReport reads what Text has written. Fields of newer versions are passed over.
func ParseReport(text string) (Report, error) {
	var r Report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Report{}, fmt.Errorf("read an instance's report: %w", err)
	}
	return r, nil
}

// maxReason bounds how much of one endpoint's reason is reported: a control
// plane is no place for a model's last words in full. maxWarnings bounds how many of
// its warnings are.
const (
	maxReason   = 500
	maxWarnings = 5
)

// Text is the report as it is stored: without tracebacks, single workers and what they wrote.
func (r Report) Text() (string, error) {
	endpoints := make([]reconcile.EndpointStatus, len(r.Endpoints))
	for i, e := range r.Endpoints {
		if e.Failure != nil {
			failure := *e.Failure
			failure.Traceback, failure.Reason = "", brief(failure.Reason)
			e.Failure = &failure
		}
		e.Model.Workers, e.Model.LastLines = nil, nil
		e.Model.Reason, e.Model.LastDeath = brief(e.Model.Reason), brief(e.Model.LastDeath)
		if w := e.Model.Warnings; len(w) > 0 {
			e.Model.Warnings = make([]string, min(len(w), maxWarnings))
			for j := range e.Model.Warnings {
				e.Model.Warnings[j] = brief(w[j])
			}
		}
		endpoints[i] = e
	}
	r.Endpoints = endpoints
	text, err := json.Marshal(r)
	return string(text), err
}

func brief(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:maxReason], "") + "…"
}

// standing is the report without what every request moves: as long as it stays
// the same there is no news.
func (r Report) standing() (string, error) {
	endpoints := make([]reconcile.EndpointStatus, len(r.Endpoints))
	for i, e := range r.Endpoints {
		e.Requests, e.Errors, e.MeanMS, e.InUse, e.Model.Queued = 0, 0, 0, 0, 0
		endpoints[i] = e
	}
	if r.Workers != nil {
		memory := *r.Workers
		memory.Taken, memory.EndedEarly = 0, 0
		r.Workers = &memory
	}
	r.Endpoints, r.SourceSince, r.Shadows, r.Recordings, r.Usage = endpoints, r.Started, nil, nil, Usage{}
	return r.Text()
}
