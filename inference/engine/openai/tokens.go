package openai

import (
	"sync/atomic"
	"time"

	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

// tokens counts the tokens of an endpoint, and measures when they come.
type tokens struct {
	prompt, completion atomic.Uint64
	first, between     times
}

// The bounds of times are those that OpenTelemetry advises for generative AI.
var (
	firstBounds   = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}        //nolint:gochecknoglobals // a constant table
	betweenBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5} //nolint:gochecknoglobals // a constant table
)

func newTokens() *tokens {
	t := &tokens{}
	t.first.init(firstBounds)
	t.between.init(betweenBounds)
	return t
}

func (t *tokens) count(u openaiapi.Usage) {
	t.prompt.Add(uint64(max(u.Prompt, 0)))
	t.completion.Add(uint64(max(u.Completion, 0)))
}

func (t *tokens) report() *serving.TokensReport {
	return &serving.TokensReport{Prompt: t.prompt.Load(), Completion: t.completion.Load(), First: t.first.report(), Between: t.between.report()}
}

// times is a histogram.
type times struct {
	bounds []float64
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64    // of nanoseconds
}

func (h *times) init(bounds []float64) {
	h.bounds, h.counts = bounds, make([]atomic.Uint64, len(bounds)+1)
}

func (h *times) add(d time.Duration) {
	i := 0
	for seconds := d.Seconds(); i < len(h.bounds) && seconds > h.bounds[i]; {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *times) report() serving.TimesReport {
	r := serving.TimesReport{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Seconds: time.Duration(h.sum.Load()).Seconds()}
	for i := range h.counts {
		r.Counts[i] = h.counts[i].Load()
	}
	return r
}
