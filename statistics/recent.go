package statistics

import (
	"sync"
	"time"

	"clearmlserving/serving"
)

// markEvery is how often what was counted so far is noted. What is recent lies between the mark
// before the last one and now: 30 to 60 seconds.
const markEvery = 30 * time.Second

// recent remembers what a histogram had counted.
type recent struct {
	mu    sync.Mutex
	marks [2]mark // the older one first
}

type mark struct {
	at     time.Time
	counts []uint64 // nil: nothing
}

// mark notes what was counted so far, if it is time for that.
func (m *Metrics) mark(now time.Time) {
	for _, t := range *m.meters.Load() {
		r := t.recent
		r.mu.Lock()
		if now.Sub(r.marks[1].at) >= markEvery {
			counts, _ := t.duration.snapshot()
			r.marks = [2]mark{r.marks[1], {now, counts}}
		}
		r.mu.Unlock()
	}
}

// Recent tells how many requests came to an endpoint's model per second lately, and the time that
// 95 of 100 of them did not exceed.
func (m *Metrics) Recent(url serving.EndpointURL) (perSecond float64, p95 time.Duration) {
	t := (*m.meters.Load())[url]
	if t == nil {
		return 0, 0
	}
	counts, _ := t.duration.snapshot()
	t.recent.mu.Lock()
	since := t.recent.marks[0]
	t.recent.mu.Unlock()
	total := uint64(0)
	for i := range counts {
		if since.counts != nil {
			counts[i] -= since.counts[i]
		}
		total += counts[i]
	}
	if total == 0 {
		return 0, 0
	}
	// A short time tells little about a rate: an endpoint that is new, with one request.
	took := max(time.Since(since.at), time.Second)
	return float64(total) / took.Seconds(), time.Duration(seconds.quantile(counts, total, 0.95))
}

// quantile estimates the value that this share of the counted ones does not exceed. Within a cell
// it takes them for evenly spread.
func (s *scale) quantile(counts []uint64, total uint64, share float64) float64 {
	rank, below := share*float64(total), 0.0
	for i, n := range counts {
		if below+float64(n) < rank || n == 0 {
			below += float64(n)
			continue
		}
		if i == len(s.bounds) { // it has no upper bound
			break
		}
		low := 0.0
		if i > 0 {
			low = float64(s.bounds[i-1])
		}
		return low + (float64(s.bounds[i])-low)*(rank-below)/float64(n)
	}
	return float64(s.bounds[len(s.bounds)-1])
}
