package serving

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State says in one word how an endpoint is.
type State string

// The states of an endpoint, and of the model behind it.
const (
	StateReady    State = "ready"    // it answers; a model without a process that starts one at the next request is ready
	StateDegraded State = "degraded" // it answers, but workers are missing or die
	StateUpdating State = "updating" // an old version answers; a newer one is loading or has failed
	StateRefused  State = "refused"  // the last good revision answers; a newer one was refused
	StateLoading  State = "loading"  // it does not answer yet; a model that restarts its workers holds the requests
	StateFailed   State = "failed"   // it does not answer
	StateUnloaded State = "unloaded" // it does not answer, because somebody has taken it out of service
	StateClosed   State = "closed"   // a model that has been replaced
)

// InstanceReport is what an instance tells of itself on the control plane, so that the command
// line and the pages find all instances of a service there, without reaching one of them.
type InstanceReport struct {
	// Name tells the instances of a service apart, for people: "host:port".
	Name string `json:"instance"`
	// Role is what the process does instead of answering requests: "triton" holds the models of Triton. ""
	// for an instance that answers requests.
	Role string `json:"role,omitempty"`
	// URL is where the instance answers requests, as seen from its own machine.
	URL string `json:"serve_url"`
	// Path is the first part of every endpoint's path there.
	Path string `json:"serve_path,omitempty"`
	// Key is the public half of the instance's identity.
	Key string `json:"key,omitempty"`
	PID int    `json:"pid"`
	// Reported is when the report was made, by the server's clock.
	Reported time.Time `json:"reported,omitzero"`
	Usage
	Status
}

// At returns when the report was made; seen is the instance's last sign of life, which stands
// in for it with instances that do not tell.
func (r InstanceReport) At(seen time.Time) time.Time {
	if r.Reported.IsZero() {
		return seen
	}
	return r.Reported
}

// Usage is what an instance takes of its machine, its workers included; 0 where unknown.
type Usage struct {
	CPU       float64 `json:"cpu_percent,omitempty"` // of one core, since the last report
	Memory    int64   `json:"memory_bytes,omitempty"`
	Processes int     `json:"processes,omitempty"`
}

// Status describes what an instance serves, for people, scripts and probes.
type Status struct {
	Started     time.Time `json:"started"`
	ServiceID   string    `json:"service_id,omitempty"`
	ServiceName string    `json:"service_name,omitempty"`
	StateHash   string    `json:"state_hash,omitempty"`
	// StateChanged is when the service's task was written last before this state was read, by the server's clock: a
	// state that was changed and changed back has the same markers as before.
	StateChanged time.Time `json:"state_changed,omitzero"`
	// Digests are the change markers of each URL; see Service.Digests.
	Digests     map[EndpointURL]string `json:"digests,omitempty"`
	Synced      bool                   `json:"synced"` // the configuration, or its last good copy, has been read
	FromCache   bool                   `json:"from_cache,omitempty"`
	SourceError string                 `json:"control_plane_error,omitempty"`
	SourceSince time.Time              `json:"control_plane_since,omitzero"`
	// DiskError says why the last good configuration cannot be stored on disk: serving continues,
	// but a restart without the control plane would not have it.
	DiskError  string            `json:"disk_error,omitempty"`
	Endpoints  []EndpointReport  `json:"endpoints"`
	Canaries   []CanaryReport    `json:"canaries,omitempty"`
	Problems   []Problem         `json:"problems,omitempty"`
	Access     AccessReport      `json:"access"`
	Workers    *MemoryReport     `json:"workers_memory,omitempty"`
	Recordings []RecordingReport `json:"recordings,omitempty"`
	Shadows    []ShadowReport    `json:"shadows,omitempty"`
}

// Ready reports whether every endpoint that can load has loaded.
func (s *Status) Ready() bool {
	if !s.Synced {
		return false
	}
	for _, e := range s.Endpoints {
		if e.State == StateLoading {
			return false
		}
	}
	return true
}

// EndpointReport describes one endpoint.
type EndpointReport struct {
	URL        EndpointURL  `json:"endpoint"`
	Engine     string       `json:"engine"`
	ModelID    ModelID      `json:"model_id,omitempty"`
	Monitoring string       `json:"monitoring,omitempty"`
	State      State        `json:"state"`
	Failure    *LoadFailure `json:"failure,omitempty"`
	// Revision is the one in service, 0 for none.
	Revision int `json:"revision,omitempty"`
	// Configured is the newest revision, which the configuration asks for.
	Configured int `json:"configured_revision,omitempty"`
	// Refusal says why Configured is not served, nil if it may be. Failure has more of it.
	Refusal *Refusal `json:"refused_revision,omitempty"`
	Counts
	InUse int64       `json:"in_use"`
	Model ModelReport `json:"model,omitzero"`
	// Signature describes inputs and outputs, nil if nothing is known of them or no model is loaded.
	Signature *SignatureReport `json:"signature,omitempty"`
}

// Counts say what became of the requests to an endpoint since it was configured, or since the
// instance has started. A request is in at most one of the counts beside Requests.
type Counts struct {
	Requests uint64 `json:"requests"`
	// Errors had an answer of status 500 or above, or nothing could answer them.
	Errors uint64 `json:"errors"`
	// TimedOut took longer than their limit.
	TimedOut uint64 `json:"timed_out,omitempty"`
	// Refused met a limit: the queue was full, or too many bodies were held.
	Refused uint64 `json:"refused,omitempty"`
	// ClientErrors had an answer of user code of status 400 to 499.
	ClientErrors uint64 `json:"client_errors,omitempty"`
	// BadRequests never came to user code: bad JSON, an unknown encoding, a body that is too large.
	BadRequests uint64 `json:"bad_requests,omitempty"`
	// Copies are shadow copies. They are in no other count.
	Copies uint64 `json:"shadow_copies,omitempty"`
	// MeanMS is the mean time of the requests that a model took.
	MeanMS float64 `json:"mean_ms"`
	// PerSecond is how many requests came to a model per second within the last minute, P95MS the
	// time that 95 of 100 of them did not exceed. Of several instances, it is that of the slowest.
	PerSecond float64 `json:"per_second,omitempty"`
	P95MS     float64 `json:"p95_ms,omitempty"`
}

// Add adds the counts of another instance.
func (c *Counts) Add(d Counts) {
	if n := c.Requests + d.Requests; n > 0 {
		c.MeanMS = (c.MeanMS*float64(c.Requests) + d.MeanMS*float64(d.Requests)) / float64(n)
	}
	c.PerSecond, c.P95MS = c.PerSecond+d.PerSecond, max(c.P95MS, d.P95MS)
	c.Requests += d.Requests
	c.Errors += d.Errors
	c.TimedOut += d.TimedOut
	c.Refused += d.Refused
	c.ClientErrors += d.ClientErrors
	c.BadRequests += d.BadRequests
	c.Copies += d.Copies
}

// Reason says why the endpoint is not ready, "" when it is.
func (e EndpointReport) Reason() string {
	if e.Refusal != nil {
		text := fmt.Sprintf("revision %d refused: %s: %s", e.Refusal.Revision, e.Refusal.Step, e.Refusal.Reason)
		if e.Revision > 0 {
			text += fmt.Sprintf("; %d serves", e.Revision)
		}
		return text
	}
	if e.Failure != nil {
		return e.Failure.Step + ": " + e.Failure.Reason
	}
	return e.Model.Reason
}

// Note is what matters most of the endpoint: why it is not ready, else its warnings, else how its
// last worker died.
func (e EndpointReport) Note() string {
	return cmp.Or(e.Reason(), strings.Join(e.Model.Warnings, "\n"), e.Model.LastDeath)
}

// Refusal says which revision is not served.
type Refusal struct {
	Revision int       `json:"revision"`
	Step     string    `json:"step"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Instance string    `json:"instance,omitempty"` // that refused it first
}

// LoadFailure says why an endpoint could not be loaded.
type LoadFailure struct {
	Step      string    `json:"step"` // fetch, load, golden
	Reason    string    `json:"reason"`
	Traceback string    `json:"traceback,omitempty"`
	Code      string    `json:"code,omitempty"` // artifact whose code failed
	Since     time.Time `json:"since"`
	Attempts  int       `json:"attempts"`
	NextTry   time.Time `json:"next_try,omitzero"` // zero for a refused revision
	// Cause is Reason without the name of the code, "" where it does not name it.
	Cause string `json:"-"`
	// Revision is the one that failed, 0 if it has no number.
	Revision int `json:"revision,omitempty"`
	// Final: the revision is at fault, so that it fails on every machine, and again.
	Final bool `json:"-"`
	// Within bounds the time until the next attempt, 0: no bound.
	Within time.Duration `json:"-"`
}

// ModelReport describes a loaded model.
type ModelReport struct {
	State State `json:"state"`
	// Reason says why the state is not ready.
	Reason string `json:"reason,omitempty"`
	Queued int    `json:"queued"`
	// Answered counts the answers of all workers, also of those that are gone, with copies
	// and with the questions of a golden check.
	Answered uint64 `json:"answered,omitempty"`
	// Asleep: it has no process until the next request, which is held.
	Asleep bool `json:"asleep,omitempty"`
	// Restarts counts the unwanted deaths of workers; LastDeath is the cause of the last one,
	// LastLines the end of what that worker wrote to stderr.
	Restarts  int      `json:"restarts,omitempty"`
	LastDeath string   `json:"last_death,omitempty"`
	LastLines []string `json:"last_lines,omitempty"`
	// MinWorkers and MaxWorkers say how many workers there are without and under load, MaxQueue
	// how many requests may wait.
	MinWorkers int            `json:"min_workers,omitempty"`
	MaxWorkers int            `json:"max_workers,omitempty"`
	MaxQueue   int            `json:"max_queue,omitempty"`
	Workers    []WorkerReport `json:"workers,omitempty"`
	// Shared: the workers share the memory of one loaded model; SharedReason why, or why not: ""
	// when there is only one worker, or no process that has loaded.
	Shared       bool   `json:"shared,omitempty"`
	SharedReason string `json:"shared_reason,omitempty"`
	// Warnings are what the endpoint's owner should know although it answers: a setting without
	// effect, a model of another release of its library.
	Warnings []string `json:"warnings,omitempty"`
	// Batching tells how requests are executed together, nil: one by one.
	Batching *BatchingReport `json:"batching,omitempty"`
	// Native tells how the model is computed in Go, or why it is not; nil: the endpoint does not ask for it.
	Native *NativeReport `json:"native,omitempty"`
	// Addresses are those of the engine, if it runs beside the instance.
	Addresses []AddressReport `json:"addresses,omitempty"`
	// Tokens counts those of a language model, nil: the endpoint is none.
	Tokens *TokensReport `json:"tokens,omitempty"`
}

// TokensReport counts the tokens of a language model since it was loaded.
type TokensReport struct {
	Prompt     uint64 `json:"prompt_tokens"`
	Completion uint64 `json:"completion_tokens"`
	// First are the times from a request to the first piece of its streamed answer, Between those from
	// each piece to the next.
	First   TimesReport `json:"time_to_first_token"`
	Between TimesReport `json:"time_between_tokens"`
}

// TimesReport is a histogram of times. Counts has one more element than Bounds.
type TimesReport struct {
	Bounds  []float64 `json:"bounds_seconds"`
	Counts  []uint64  `json:"counts"`
	Seconds float64   `json:"sum_seconds"`
}

// NativeReport describes the acceleration of a model.
type NativeReport struct {
	Setting Acceleration `json:"accelerate"`
	// On: the model is computed in Go, or by what By names: ONNX Runtime. Reason says why it is not.
	On     bool   `json:"on"`
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Model is the model's class, Method the method that answers requests, Releases are those of the
	// packages that the model was compared with.
	Model    string            `json:"model,omitempty"`
	Method   string            `json:"method,omitempty"`
	Releases map[string]string `json:"releases,omitempty"`
	// Tolerance is the largest difference that counts as equal, relative to numbers above 1; 0: all bits are equal.
	Tolerance float64 `json:"tolerance,omitempty"`
	// Checks are the comparisons that have proven the model.
	Checks []NativeCheck `json:"checks,omitempty"`
	// Notes say what the library answers otherwise, and when.
	Notes []string `json:"notes,omitempty"`
	// Python lists the forms of bodies that the endpoint's Python answers, beside all that are faulty.
	Python []string  `json:"python_forms,omitempty"`
	Proven time.Time `json:"proven,omitzero"`
	// Native and Fallback count the requests that were computed in Go and those that Python has answered.
	Native   uint64 `json:"native_requests"`
	Fallback uint64 `json:"python_requests"`
}

// Compared sums the checks up: the answers that were compared, those that differ, and those with other bits.
func (n *NativeReport) Compared() (count, differ, bits int) {
	for _, c := range n.Checks {
		count, differ, bits = count+c.Count, differ+c.Differ, bits+c.Bits
	}
	return count, differ, bits
}

// NativeCheck is the comparison of one kind of rows with the library.
type NativeCheck struct {
	Rows   string `json:"rows"` // their kind
	Method string `json:"method,omitempty"`
	Count  int    `json:"count"`
	// Differ counts the rows that differ by more than the tolerance, Bits those that differ at all.
	Differ int `json:"differ"`
	Bits   int `json:"other_bits,omitempty"`
	// Unsteady counts the rows for which the library answers otherwise alone than among others.
	Unsteady int `json:"library_unsteady,omitempty"`
}

// WorkerReport describes one process behind a model.
type WorkerReport struct {
	PID      int       `json:"pid"`
	State    string    `json:"state"` // idle, busy, calling (it waits for a send_request), leaving
	Since    time.Time `json:"since"`
	Requests uint64    `json:"requests"`
	InFlight int       `json:"in_flight"`
}

// BatchSizes is how many sizes of batches are told apart.
const BatchSizes = 12

// BatchingReport describes how requests are executed together, and what the last decisions were.
type BatchingReport struct {
	MaxRows   int    `json:"max_batch_size"`
	DelayUS   int64  `json:"max_queue_delay_microseconds,omitempty"`
	Preferred []int  `json:"preferred_batch_size,omitempty"`
	Batches   uint64 `json:"batches"`
	Rows      uint64 `json:"-"` // of all batches
	// Sizes counts the batches of up to 1, 2, 4, 8, ... rows; the last count has all larger ones.
	Sizes [BatchSizes]uint64 `json:"-"`
	// BySize has the batches of each number of rows, in ascending order; those of very many numbers are left out.
	BySize       []BatchTimes `json:"-"`
	LastRows     int          `json:"last_rows"`
	LastRequests int          `json:"last_requests"`
	MeanRows     float64      `json:"mean_rows"`
	// A batch takes about PerBatchUS + rows * PerRowUS; both 0 while unknown.
	PerRowUS   float64 `json:"us_per_row"`
	PerBatchUS float64 `json:"us_per_batch"`
	// Limit is how many rows the last batch could have, LimitedBy what said so.
	Limit     int    `json:"limit"`
	LimitedBy string `json:"limited_by"`
}

// BatchTimes are the batches of a number of rows.
type BatchTimes struct {
	Rows    int
	Batches uint64
	Took    time.Duration // by all of them
}

// MemoryReport is what all workers of an instance take, and what is done about it.
type MemoryReport struct {
	// Budget bounds Taken, the memory of the workers and of the processes that fork them, in bytes.
	Budget int64 `json:"budget"`
	Taken  int64 `json:"taken"`
	// EndedEarly counts the idle workers that were ended before their idle timeout.
	EndedEarly uint64 `json:"ended_early"`
	// Short: that happened within the last minute. Exceeded: over budget with no idle worker left.
	// Unmeasured: the system does not tell what workers take.
	Short      bool `json:"short,omitempty"`
	Exceeded   bool `json:"exceeded,omitempty"`
	Unmeasured bool `json:"unmeasured,omitempty"`
}

// Apart lists in words the requests that had no good answer for another reason than an error, and
// the copies.
func (c Counts) Apart() []string {
	var told []string
	for _, part := range []struct {
		n    uint64
		what string
	}{{c.TimedOut, "timed out"}, {c.Refused, "refused"}, {c.ClientErrors, "client errors"}, {c.BadRequests, "bad requests"}, {c.Copies, "shadow copies"}} {
		if part.n > 0 {
			told = append(told, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	return told
}

// CanaryReport describes one canary with its present shares.
type CanaryReport struct {
	URL     EndpointURL             `json:"endpoint"`
	Shares  map[EndpointURL]float64 `json:"shares"`
	Problem string                  `json:"problem,omitempty"`
	// Loading: an endpoint that it chooses among is being loaded for the first time, and gets its share then.
	Loading bool           `json:"loading,omitempty"`
	Rollout *RolloutReport `json:"rollout,omitempty"` // nil: it has no steps
	// Counts are those of the requests that came to none of the canary's endpoints.
	Counts
}

// RolloutReport describes the steps of a canary, and what is known about the candidate.
type RolloutReport struct {
	Candidate EndpointURL  `json:"candidate"`
	Baseline  EndpointURL  `json:"baseline"`
	Phase     RolloutPhase `json:"phase"`
	Step      int          `json:"step"` // of the steps, from 1; 0 while there are only copies
	Steps     []float64    `json:"steps"`
	Share     float64      `json:"share"` // of the candidate
	Since     time.Time    `json:"since"` // of phase or step
	Verdict   string       `json:"verdict"`
	// Evidence is the natural logarithm of the evidence against the candidate; Limit is the value at
	// which it is rolled back. Rule has the largest part of it.
	Evidence float64 `json:"evidence"`
	Limit    float64 `json:"evidence_limit"`
	Rule     string  `json:"rule,omitempty"`
	// Rules has the logarithm of the evidence of each rule alone.
	Rules map[string]float64 `json:"rules,omitempty"`
	// AtMostWorse has, for each comparison, by how much the candidate's share of such requests
	// exceeds the baseline's at most, with 95 % confidence. Missing names those that the next step waits for.
	AtMostWorse map[string]float64 `json:"at_most_worse,omitempty"`
	Missing     []string           `json:"missing,omitempty"`
	// The requests of all instances since the rollout began.
	Requests         uint64 `json:"candidate_requests"`
	Errors           uint64 `json:"candidate_errors"`
	BaselineRequests uint64 `json:"baseline_requests"`
	BaselineErrors   uint64 `json:"baseline_errors"`
	// Decides: this instance stores the decisions.
	Decides bool   `json:"decides,omitempty"`
	Note    string `json:"note,omitempty"`
}

// AccessReport says who may send requests.
type AccessReport struct {
	KeysRequired bool   `json:"keys_required"`
	Keys         int    `json:"keys"`    // that are good now
	Refused      uint64 `json:"refused"` // requests, since the start
}

// RecordingReport describes the recording of one url's requests.
type RecordingReport struct {
	URL      EndpointURL `json:"endpoint"`
	Recorded uint64      `json:"recorded"`
	Dropped  uint64      `json:"dropped"` // there was no time or room to write them
	Skipped  uint64      `json:"skipped"` // streamed, too large, not redactable, or tensors
	Problem  string      `json:"problem,omitempty"`
}

// ShadowReport counts the shadow traffic from one url to another.
type ShadowReport struct {
	From      EndpointURL `json:"endpoint"`
	To        EndpointURL `json:"to"`
	Share     float64     `json:"share"`
	Shadowed  uint64      `json:"shadowed"`  // copies that were sent
	Dropped   uint64      `json:"dropped"`   // copies that were not: too many waited, or the request held tensors
	Errors    uint64      `json:"errors"`    // copies without an answer, or with a status of 500 and above
	Equal     uint64      `json:"equal"`     // answers like the client's
	Different uint64      `json:"different"` // other answers
}

// ParseReport reads what Text has written. Fields of newer versions are ignored.
func ParseReport(text string) (InstanceReport, error) {
	var r InstanceReport
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return InstanceReport{}, fmt.Errorf("read an instance's report: %w", err)
	}
	return r, nil
}

// Bounds of a stored report: bytes of one reason, and the number of a model's warnings.
const (
	maxReason   = 500
	maxWarnings = 5
)

// Text is the report as it is stored: without tracebacks, single workers and what they wrote.
func (r InstanceReport) Text() (string, error) {
	endpoints := make([]EndpointReport, len(r.Endpoints))
	for i, e := range r.Endpoints {
		if e.Failure != nil {
			failure := *e.Failure
			failure.Traceback, failure.Reason = "", Shorten(failure.Reason, maxReason)
			e.Failure = &failure
		}
		e.Model.Workers, e.Model.LastLines = nil, nil
		e.Signature = e.Signature.Cut(storedSignature)
		if e.Model.Addresses != nil {
			e.Model.Addresses = slices.Clone(e.Model.Addresses)
			for j := range e.Model.Addresses {
				a := &e.Model.Addresses[j]
				a.Reason, a.LastError = Shorten(a.Reason, maxReason), Shorten(a.LastError, maxReason)
			}
		}
		e.Model.Reason, e.Model.LastDeath = Shorten(e.Model.Reason, maxReason), Shorten(e.Model.LastDeath, maxReason)
		if w := e.Model.Warnings; len(w) > 0 {
			e.Model.Warnings = make([]string, min(len(w), maxWarnings))
			for j := range e.Model.Warnings {
				e.Model.Warnings[j] = Shorten(w[j], maxReason)
			}
		}
		endpoints[i] = e
	}
	r.Endpoints = endpoints
	text, err := json.Marshal(r)
	return string(text), err
}

// Standing is the report without what every request changes: while it stays the same there is
// nothing new to store but counts.
func (r InstanceReport) Standing() (string, error) {
	endpoints := make([]EndpointReport, len(r.Endpoints))
	for i, e := range r.Endpoints {
		e.Counts, e.InUse = Counts{}, 0
		e.Model.Queued, e.Model.Answered, e.Model.Batching = 0, 0, nil
		e.Model.Addresses = standing(e.Model.Addresses)
		endpoints[i] = e
	}
	canaries := make([]CanaryReport, len(r.Canaries))
	for i, c := range r.Canaries {
		c.Counts, c.Rollout = Counts{}, nil
		canaries[i] = c
	}
	if r.Workers != nil {
		memory := *r.Workers
		memory.Taken, memory.EndedEarly = 0, 0
		r.Workers = &memory
	}
	r.Endpoints, r.Canaries, r.SourceSince, r.Shadows, r.Recordings, r.Usage = endpoints, canaries, r.Started, nil, nil, Usage{}
	r.StateChanged = time.Time{} // each ping moves it
	r.Access.Refused = 0
	return r.Text()
}

// standing are addresses without what every request changes.
func standing(addresses []AddressReport) []AddressReport {
	list := slices.Clone(addresses)
	for i := range list {
		a := &list[i]
		a.Outstanding, a.Answered, a.Failed, a.LastError, a.LastErrorAt = 0, 0, 0, "", time.Time{}
	}
	return list
}
