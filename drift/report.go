package drift

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Report is what is known about the drift of a service's variables: for the command line and the web
// pages.
type Report struct {
	At time.Time `json:"at"`
	// Problem says why the counts are not known at present, "" if they are.
	Problem   string           `json:"problem,omitempty"`
	Variables []VariableReport `json:"variables"`
	// Events are the last beginnings and ends of drift, the oldest first.
	Events []Event `json:"events,omitempty"`
}

// Verdict is the state of a variable.
type Verdict string

// The verdicts.
const (
	Steady   Verdict = "steady"
	Drifting Verdict = "drift"
	Waiting  Verdict = "waiting" // fewer rows than a batch have come
	Absent   Verdict = "absent"  // no request and no answer has had a value yet
)

// VariableReport is one variable of one endpoint.
type VariableReport struct {
	Endpoint string    `json:"endpoint"`
	Version  string    `json:"version,omitempty"`
	Variable string    `json:"variable"`
	Kind     string    `json:"kind"`
	Verdict  Verdict   `json:"verdict"`
	Since    time.Time `json:"since,omitzero"`
	Rows     uint64    `json:"rows"` // since the reference was set, the absent ones included
	Distances
	// MinPSI is the drift up to which nothing is reported, by the settings, the reference's daily cycle
	// or its size.
	MinPSI float64 `json:"min_psi"`
	// Evidence decides: there is drift from Threshold on. Both are logarithms; less than 0 is shown as 0.
	Evidence  float64 `json:"evidence"`
	Threshold float64 `json:"threshold"`
	// ChanceDays: without drift so much evidence is expected at most once in so many days.
	ChanceDays float64 `json:"chance_days"`
	// Alarms is how often drift has begun.
	Alarms        uint64  `json:"alarms"`
	ReferenceHash string  `json:"reference"`
	ReferenceRows uint64  `json:"reference_rows"`
	LiveRows      float64 `json:"live_rows"` // that the live shares tell as much as
	Bins          []Bin   `json:"bins"`
}

// Bin is a bin with its shares.
type Bin struct {
	Name      string  `json:"name"`
	Reference float64 `json:"reference"`
	Live      float64 `json:"live"`
}

// Event is the beginning or the end of drift.
type Event struct {
	At       time.Time `json:"at"`
	Endpoint string    `json:"endpoint"`
	Version  string    `json:"version,omitempty"`
	Variable string    `json:"variable"`
	Began    bool      `json:"began"`
	PSI      float64   `json:"psi"`
	Noise    float64   `json:"noise"`
}

// String describes an event for a log.
func (e Event) String() string {
	name := e.Endpoint
	if e.Version != "" {
		name += "/" + e.Version
	}
	if !e.Began {
		return fmt.Sprintf("drift ended: endpoint '%s', variable '%s'", name, e.Variable)
	}
	return fmt.Sprintf("drift began: endpoint '%s', variable '%s', PSI %.2g (noise up to %.2g)", name, e.Variable, e.PSI, e.Noise)
}

// ParseReport reads a stored report.
func ParseReport(text string) (Report, error) {
	var r Report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return r, fmt.Errorf("report of drift: %w", err)
	}
	return r, nil
}

// State is what a watcher keeps of a variable: it can be stored as JSON.
type State struct {
	Hash     string   `json:"hash"` // of the reference
	Detector Detector `json:"detector"`
	Pending  []uint64 `json:"pending"` // rows of the next batch
	Present  bool     `json:"present"` // a value has come
	Absent   uint64   `json:"absent"`  // rows before the first value
}

// NewState starts to watch a variable.
func NewState(v *Variable) *State {
	return &State{Hash: v.Hash(), Pending: make([]uint64, len(v.Counts))}
}

// Add adds the rows of a bin. Rows before the first value do not count: a variable that neither
// requests nor answers have, such as the index of a file, does not drift.
func (s *State) Add(bin int, rows uint64) { s.Pending[bin] += rows }

// Ready reports whether there are enough rows for a batch.
func (s *State) Ready() bool {
	last := len(s.Pending) - 1
	if !s.Present {
		missing := s.Pending[last]
		if s.Present = total(s.Pending) > missing; !s.Present {
			s.Absent += missing
			s.Pending[last] = 0
		}
	}
	return total(s.Pending) >= BatchRows
}

// Close ends the batch and decides. k variables are watched.
func (s *State) Close(v *Variable, k int, settings Settings, now time.Time) Change {
	change := s.Detector.Batch(NewNull(v, k, settings.MinPSI), s.Pending, settings.Threshold(k), now)
	clear(s.Pending)
	return change
}

// Report describes the state. The caller sets the names.
func (s *State) Report(v *Variable, k int, settings Settings) VariableReport {
	n := NewNull(v, k, settings.MinPSI)
	d := &s.Detector
	r := VariableReport{
		Kind: v.Kind, Verdict: Steady, Since: d.Since, Rows: s.Absent + d.Rows + total(s.Pending), Distances: d.Distances(v, n), MinPSI: n.MinPSI(),
		Evidence: max(d.Evidence(), 0), Threshold: settings.Threshold(k), Alarms: d.Alarms,
		ReferenceHash: s.Hash, ReferenceRows: v.Rows(), LiveRows: d.LiveRows(),
	}
	switch {
	case d.Drifting:
		r.Verdict = Drifting
	case !s.Present && s.Absent >= BatchRows:
		r.Verdict = Absent
	case d.Rows == 0:
		r.Verdict = Waiting
	}
	r.ChanceDays = min(settings.Period.Hours()/24/settings.FalseAlarms*math.Exp(min(r.Evidence-r.Threshold, 100)), 1e9)
	var live []float64
	if d.Rows > 0 {
		live = shares(d.Live())
	}
	reference := shares(v.Counts)
	for i, name := range v.Bins() {
		bin := Bin{Name: name, Reference: reference[i]}
		if live != nil {
			bin.Live = live[i]
		}
		r.Bins = append(r.Bins, bin)
	}
	return r
}

// AcceptLive returns a reference with the live shares of the report as its counts.
func (v *Variable) AcceptLive(r VariableReport) (*Variable, error) {
	if r.ReferenceHash != v.Hash() || len(r.Bins) != len(v.Counts) {
		return nil, fmt.Errorf("variable '%s': the live values were counted with another reference", r.Variable)
	}
	if r.LiveRows < minAccept {
		return nil, fmt.Errorf("variable '%s': only %.0f live rows are known, a reference needs %d", r.Variable, r.LiveRows, minAccept)
	}
	counts := make([]uint64, len(r.Bins))
	for i, b := range r.Bins {
		counts[i] = uint64(math.Round(b.Live * r.LiveRows))
	}
	return v.Accept(counts)
}

// minAccept is how many live rows make a reference.
const minAccept = 500
