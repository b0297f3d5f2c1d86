package statistics

import (
	"sync"
	"time"

	"clearmlserving/serving"
)

// markEvery is the interval of marks of the counts. The recent time is from the mark
// before the last one until now: 30 to 60 seconds.
const markEvery = 30 * time.Second

// recent has earlier counts of a histogram.
type recent struct {
	mu    sync.Mutex
	marks [2]mark // the older one first
}

type mark struct {
	at     time.Time
	counts []uint64 // nil: nothing
}

// mark stores the present counts, if it is due.
func (m *Metrics) mark(now time.Time) {
	for _, t := range m.tables.Load().meters {
		r := t.recent
		r.mu.Lock()
		if now.Sub(r.marks[1].at) >= markEvery {
			counts, _ := places.duration.of(m.sum(t))
			r.marks = [2]mark{r.marks[1], {now, counts}}
		}
		r.mu.Unlock()
	}
}

// Recent returns the recent rate of requests of an endpoint's model per second, and their 95th
// percentile.
func (m *Metrics) Recent(url serving.EndpointURL) (perSecond float64, p95 time.Duration) {
	t := m.tables.Load().meters[url]
	if t == nil {
		return 0, 0
	}
	counts, _ := places.duration.of(m.sum(t))
	t.recent.mu.Lock()
	since := t.recent.marks[0]
	t.recent.mu.Unlock()
	total := uint64(0)
	for i := range counts {
		if since.counts != nil && since.counts[i] <= counts[i] { // else the file of the counters was damaged
			counts[i] -= since.counts[i]
		}
		total += counts[i]
	}
	if total == 0 {
		return 0, 0
	}
	// A rate over a short time is meaningless, such as that of a new endpoint with one request.
	took := max(time.Since(since.at), time.Second)
	return float64(total) / took.Seconds(), time.Duration(seconds.quantile(counts, total, 0.95))
}

// quantile estimates the value that this share of the counted values does not exceed. It assumes
// an even distribution within a cell.
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
