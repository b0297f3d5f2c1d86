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

	failed   atomic.Uint64 // the part of nanos that had no answer
	waited   atomic.Uint64 // the part of nanos before an engine began, of answered requests
	decoded  atomic.Uint64 // nanoseconds in which fronts made tensors of requests
	encoded  atomic.Uint64 // nanoseconds in which fronts made answers of tensors
	moreRows atomic.Uint64 // rows of answered requests beyond one each
	last     atomic.Int64  // when the last request was asked, in milliseconds since 1970
}

// Done counts a request that reached a model.
func (s *Stats) Done(o Outcome, took time.Duration) {
	s.requests[o].Add(1)
	s.nanos.Add(uint64(took))
	if o != Answered {
		s.failed.Add(uint64(took))
	}
}

// Asked counts details of a request with tensors, which Done has counted as answered.
func (s *Stats) Asked(begun time.Time, waited, decoded time.Duration, rows int64) {
	s.last.Store(begun.UnixMilli())
	s.waited.Add(uint64(max(waited, 0)))
	s.decoded.Add(uint64(max(decoded, 0)))
	s.moreRows.Add(uint64(max(rows-1, 0)))
}

// Encoded counts the time in which a front made an answer of tensors. A nil *Stats counts nothing.
func (s *Stats) Encoded(took time.Duration) {
	if s != nil {
		s.encoded.Add(uint64(max(took, 0)))
	}
}

// Times are the sums of the times of a url's requests.
type Times struct {
	Answered, Failed         uint64
	AnsweredFor, FailedFor   time.Duration
	Waited, Decoded, Encoded time.Duration
	Rows                     uint64
	Last                     time.Time // zero if there was none with tensors
}

// Times returns the present sums.
func (s *Stats) Times() Times {
	if s == nil {
		return Times{}
	}
	t := Times{Answered: s.requests[Answered].Load(), Waited: time.Duration(s.waited.Load()), Decoded: time.Duration(s.decoded.Load()), Encoded: time.Duration(s.encoded.Load())}
	for o := range s.requests {
		if Outcome(o) != Answered {
			t.Failed += s.requests[o].Load()
		}
	}
	t.FailedFor = time.Duration(s.failed.Load())
	t.AnsweredFor = max(time.Duration(s.nanos.Load())-t.FailedFor, t.Waited)
	t.Rows = t.Answered + s.moreRows.Load()
	if ms := s.last.Load(); ms > 0 {
		t.Last = time.UnixMilli(ms)
	}
	return t
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
