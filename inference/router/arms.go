package router

import (
	"sync/atomic"
	"time"

	"clearmlserving/canary"
	"clearmlserving/serving"
)

// Arms counts the requests of a canary that draws between a candidate and a baseline with constant
// shares. It is updated without locks. A nil *Arms counts nothing.
type Arms struct {
	Rollout             string // the ID of the rollout
	Candidate, Baseline serving.EndpointURL
	Share               float64 // the probability with which the candidate is drawn
	Copies              bool    // the candidate gets a copy of each request instead
	withdrawn           atomic.Bool
	candidate, baseline arm
}

// arm has the counts of one arm. The space keeps the arms on separate cache lines.
type arm struct {
	requests, errors, clientErrors atomic.Uint64
	latencies                      [canary.Bins]atomic.Uint32
	_                              [64]byte
}

// NewArms returns arms without requests, nil if nothing is drawn.
func NewArms(r serving.Rollout, share float64) *Arms {
	a := &Arms{Rollout: r.ID, Candidate: r.Candidate, Baseline: r.Baseline, Share: share}
	if r.Step == serving.MirrorStep {
		// Both get each request, so that an error of one of them is either's with the same probability.
		a.Share, a.Copies = 0.5, true
		return a
	}
	if !(share > 0 && share < 1) {
		return nil
	}
	return a
}

// Same reports whether both count the same draws.
func (a *Arms) Same(b *Arms) bool {
	return a != nil && b != nil && a.Rollout == b.Rollout && a.Candidate == b.Candidate && a.Baseline == b.Baseline && a.Share == b.Share && a.Copies == b.Copies
}

// Withdraw gives all requests to the baseline, before the stored configuration says so. Requests
// without a draw are not counted.
func (a *Arms) Withdraw() { a.withdrawn.Store(true) }

// Restore ends Withdraw.
func (a *Arms) Restore() { a.withdrawn.Store(false) }

// Withdrawn reports whether the baseline gets all requests.
func (a *Arms) Withdrawn() bool { return a != nil && a.withdrawn.Load() }

// Done counts a request whose draw was this url.
func (a *Arms) Done(drawn serving.EndpointURL, o Outcome, took time.Duration) {
	if a == nil {
		return
	}
	of := &a.baseline
	if drawn == a.Candidate {
		of = &a.candidate
	}
	of.requests.Add(1)
	switch o {
	case Errors, TimedOut, Refused:
		of.errors.Add(1)
	case ClientErrors:
		of.clientErrors.Add(1)
	case Answered:
		of.latencies[canary.Bin(took)].Add(1)
	case BadRequests, outcomes: // never came to user code
	}
}

// Pair counts a request and its copy, by their statuses: both arms got the same. Their latencies
// cannot be compared.
func (a *Arms) Pair(candidate, baseline int) {
	if a == nil {
		return
	}
	a.candidate.status(candidate)
	a.baseline.status(baseline)
}

func (a *arm) status(status int) {
	a.requests.Add(1)
	switch {
	case status >= 500:
		a.errors.Add(1)
	case status >= 400:
		a.clientErrors.Add(1)
	}
}

// Broken changes an answered request to an error, because its stream has failed.
func (a *Arms) Broken(drawn serving.EndpointURL) {
	if a == nil {
		return
	}
	if drawn == a.Candidate {
		a.candidate.errors.Add(1)
	} else {
		a.baseline.errors.Add(1)
	}
}

// Take returns the requests since the last Take. It is called from one goroutine.
func (a *Arms) Take() (candidate, baseline canary.Arm) {
	return a.candidate.take(), a.baseline.take()
}

func (a *arm) take() canary.Arm {
	// Requests first: a request is never in an error count before it is in this one for long.
	t := canary.Arm{Requests: a.requests.Swap(0), Errors: a.errors.Swap(0), ClientErrors: a.clientErrors.Swap(0)}
	for i := range a.latencies {
		if a.latencies[i].Load() == 0 {
			continue
		}
		if t.Latencies == nil {
			t.Latencies = make([]uint32, canary.Bins)
		}
		t.Latencies[i] = a.latencies[i].Swap(0)
	}
	return t
}
