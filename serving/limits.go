package serving

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Limits bound the time and the resources of an endpoint. Values of 0 or nil mean the instance's
// default.
type Limits struct {
	Deadline        float64 `record:"deadline"`         // seconds that one request may take
	MinWorkers      *int    `record:"min_workers"`      // processes without load; 0: none, the next request starts one
	MaxWorkers      int     `record:"max_workers"`      // processes under load
	MaxQueue        int     `record:"max_queue"`        // maximum number of requests that wait for a worker
	Memory          int64   `record:"memory_limit"`     // maximum bytes of one worker; it is killed above
	RecycleRequests int     `record:"recycle_requests"` // a worker is replaced after about this number
	RecycleMemory   int64   `record:"recycle_memory"`   // a worker is replaced above this number of bytes
	IdleTimeout     float64 `record:"idle_timeout"`     // seconds without requests until a worker above the minimum ends
	// TokensPerMinute and TokensPerDay bound the tokens of a language model on each instance.
	TokensPerMinute int `record:"tokens_per_minute"`
	TokensPerDay    int `record:"tokens_per_day"`
	Unknown         map[string]json.RawMessage
}

// Workers returns the number of processes without and under load; otherwise is the instance's
// number.
func (l *Limits) Workers(otherwise int) (least, most int) {
	least, most = max(otherwise, 1), max(otherwise, 1)
	if l == nil {
		return least, most
	}
	if l.MinWorkers != nil {
		least = *l.MinWorkers
		most = max(most, least)
	}
	if l.MaxWorkers > 0 {
		most = l.MaxWorkers
		least = min(least, most)
	}
	return least, most
}

// Within returns the time limit of one request: the shorter of the endpoint's and the instance's
// limit, 0 for none.
func (l *Limits) Within(request time.Duration) time.Duration {
	if l == nil || l.Deadline <= 0 {
		return request
	}
	own := time.Duration(l.Deadline * float64(time.Second))
	if request > 0 {
		return min(own, request)
	}
	return own
}

// IdleAfter returns how long a worker above the minimum stays without requests. Default 1 minute.
func (l *Limits) IdleAfter() time.Duration {
	if l.IdleTimeout <= 0 {
		return time.Minute
	}
	return time.Duration(l.IdleTimeout * float64(time.Second))
}

const (
	maxLimitWorkers = 1024
	maxLimitQueue   = 1_000_000
	maxLimitTokens  = 1 << 50
	maxLimitBytes   = 1 << 50
	minLimitBytes   = 1 << 20 // less than any Python process uses: probably a wrong unit
)

func (l Limits) validate() error {
	for _, f := range []struct {
		name  string
		value float64
	}{{"deadline", l.Deadline}, {"idle_timeout", l.IdleTimeout}} {
		if math.IsNaN(f.value) || f.value < 0 || f.value > maxTimeout {
			return &FieldError{Field: f.name, Value: fmt.Sprint(f.value), Why: fmt.Sprintf("is not a number of seconds: give a number above 0, at most %d", maxTimeout)}
		}
	}
	whole := func(name string, value, most int) error {
		if value < 0 || value > most {
			return &FieldError{Field: name, Value: fmt.Sprint(value), Why: fmt.Sprintf("is not usable: give 1 to %d", most)}
		}
		return nil
	}
	if err := whole("max_workers", l.MaxWorkers, maxLimitWorkers); err != nil {
		return err
	}
	if err := whole("max_queue", l.MaxQueue, maxLimitQueue); err != nil {
		return err
	}
	if err := whole("recycle_requests", l.RecycleRequests, math.MaxInt32); err != nil {
		return err
	}
	if err := whole("tokens_per_minute", l.TokensPerMinute, maxLimitTokens); err != nil {
		return err
	}
	if err := whole("tokens_per_day", l.TokensPerDay, maxLimitTokens); err != nil {
		return err
	}
	if n := l.MinWorkers; n != nil {
		if *n < 0 || *n > maxLimitWorkers {
			return &FieldError{Field: "min_workers", Value: fmt.Sprint(*n), Why: fmt.Sprintf("is not usable: give 0 to %d", maxLimitWorkers)}
		}
		if l.MaxWorkers > 0 && *n > l.MaxWorkers {
			return &FieldError{Field: "min_workers", Value: fmt.Sprint(*n), Why: fmt.Sprintf("is more than max_workers, %d", l.MaxWorkers)}
		}
	}
	for _, f := range []struct {
		name  string
		value int64
	}{{"memory_limit", l.Memory}, {"recycle_memory", l.RecycleMemory}} {
		if f.value != 0 && (f.value < minLimitBytes || f.value > maxLimitBytes) {
			return &FieldError{Field: f.name, Value: fmt.Sprint(f.value), Why: "is not a number of bytes that a worker could do with: give 1 MiB or more"}
		}
	}
	return nil
}

// size reads a number of bytes.
func (f *fields) size(name string) int64 {
	n := f.numberOr(name, 0)
	if n != math.Trunc(n) || math.Abs(n) > maxLimitBytes {
		f.fail(name, nil, "is not a number of bytes")
		return 0
	}
	return int64(n)
}
