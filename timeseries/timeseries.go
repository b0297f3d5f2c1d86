// Package timeseries reads time series of metrics with PromQL. Querier is the one contract for
// pages, drift, and the rules of canaries; they do not see whether the samples are in this process
// (package embedded) or in a Prometheus elsewhere (Client).
package timeseries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

// Vector is the result of a query at one time: one sample of each series. The labels of a sample are
// in Metric, without __name__ if the expression has removed it. Histogram is set instead of Value if
// the sample is a native histogram. Values may be NaN or infinite.
type Vector = model.Vector

// Matrix is the result of a query over a range: the samples of each series at the steps at which the
// series had a value, in order of time.
type Matrix = model.Matrix

// Querier evaluates PromQL expressions. It is safe for use by many goroutines.
//
// No data is an empty result, not an error. Every error is an *Error; Unavailable tells that the
// expression was not evaluated, so that a caller must treat the answer as unknown.
type Querier interface {
	// Query evaluates an expression at a time. A scalar is a Vector with one sample without labels.
	// Expressions of other types (strings, range vectors) are refused with BadData.
	Query(ctx context.Context, expr string, at time.Time) (Vector, error)
	// QueryRange evaluates an expression at start, start+step, ... up to end. A scalar is a Matrix with
	// one series without labels. At most MaxPoints steps are evaluated.
	QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (Matrix, error)
}

// MaxPoints is the largest number of steps of a QueryRange, as in Prometheus.
const MaxPoints = 11000

// Kind is the kind of an error, in the words of Prometheus' HTTP API.
type Kind string

// The kinds of errors.
const (
	BadData     Kind = "bad_data"    // the expression or an argument is wrong
	Execution   Kind = "execution"   // the expression cannot be evaluated on these series
	Timeout     Kind = "timeout"     // evaluating took too long
	Canceled    Kind = "canceled"    // the caller's context ended
	Internal    Kind = "internal"    // the storage failed
	Unavailable Kind = "unavailable" // no time series are at hand: cannot be reached, refused, not started
)

// Error is a failed query.
type Error struct {
	Kind Kind
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind.
func Errorf(kind Kind, format string, args ...any) *Error {
	return &Error{kind, fmt.Errorf(format, args...)}
}

// KindOf returns the kind of an error of a Querier: Internal for other errors.
func KindOf(err error) Kind {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// CheckRange returns an error if the arguments of a QueryRange are not usable.
func CheckRange(start, end time.Time, step time.Duration) error {
	switch {
	case end.Before(start):
		return Errorf(BadData, "invalid parameter \"end\": end timestamp must not be before start time")
	case step <= 0:
		return Errorf(BadData, "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer")
	case step < time.Millisecond: // the resolution of samples; the engine would divide by 0
		return Errorf(BadData, "invalid parameter \"step\": query resolution step widths of less than a millisecond are not accepted")
	case (float64(end.UnixMilli())-float64(start.UnixMilli()))/float64(step.Milliseconds()) >= MaxPoints+1: // end.Sub has a largest value
		return Errorf(BadData, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	}
	return nil
}
