package router

import (
	"sync/atomic"
	"time"

	"clearmlserving/serving"
)

// Outcome is the result of a request.
type Outcome = serving.Outcome

// The outcomes, as serving.Counts describes them.
const (
	Answered     = serving.Answered
	Errors       = serving.Errors
	TimedOut     = serving.TimedOut
	Refused      = serving.Refused
	ClientErrors = serving.ClientErrors
	BadRequests  = serving.BadRequests
	outcomes     = serving.Outcomes
)

// Stats counts the outcomes of the requests to one url. It is updated without locks and
// outlives the models of the url. A nil *Stats counts nothing.
type Stats struct {
	requests [outcomes]atomic.Uint64
	nanos    atomic.Uint64 // sum of the models' time
	missed   atomic.Uint64 // requests that reached no model
	copies   atomic.Uint64
}

// Done counts a request that reached a model.
func (s *Stats) Done(o Outcome, took time.Duration) {
	s.requests[o].Add(1)
	s.nanos.Add(uint64(took))
}

// Missed counts a request that reached no model.
func (s *Stats) Missed(o Outcome) {
	if s != nil {
		s.requests[o].Add(1)
		s.missed.Add(1)
	}
}

// Broken changes an answered request to an error, because its stream has failed.
func (s *Stats) Broken() {
	s.requests[Answered].Add(^uint64(0))
	s.requests[Errors].Add(1)
}

// Copied counts a shadow copy.
func (s *Stats) Copied() { s.copies.Add(1) }

// Counts returns the present counts.
func (s *Stats) Counts() serving.Counts {
	if s == nil {
		return serving.Counts{}
	}
	missed, nanos := s.missed.Load(), s.nanos.Load()
	c := serving.Counts{
		Errors: s.requests[Errors].Load(), TimedOut: s.requests[TimedOut].Load(), Refused: s.requests[Refused].Load(),
		ClientErrors: s.requests[ClientErrors].Load(), BadRequests: s.requests[BadRequests].Load(), Copies: s.copies.Load(),
	}
	c.Requests = s.requests[Answered].Load() + c.Errors + c.TimedOut + c.Refused + c.ClientErrors + c.BadRequests
	if c.Requests > missed {
		c.MeanMS = float64(nanos) / float64(c.Requests-missed) / 1e6
	}
	return c
}
