package load

import (
	"math/bits"
	"time"
)

// A power of two is divided into this many steps, so values have a precision of 1.6 %.
const (
	stepBits = 6
	steps    = 1 << stepBits
)

// Histogram counts durations from a microsecond to hours in a fixed space. Its zero value is empty.
type Histogram struct {
	counts [(40 - stepBits) * steps]uint64
	total  uint64
	max    time.Duration
}

// Record counts one duration.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)/100))]++ // in tenths of a microsecond
	h.total++
	h.max = max(h.max, d)
}

// Add adds the counts of other.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Count is the number of recorded durations.
func (h *Histogram) Count() uint64 { return h.total }

// Max is the longest one.
func (h *Histogram) Max() time.Duration { return h.max }

// Percentile is the duration that p percent of the recorded ones do not exceed,
// 0 if nothing was recorded.
func (h *Histogram) Percentile(p float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := uint64(p / 100 * float64(h.total))
	rank = min(max(rank, 1), h.total)
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if seen >= rank {
			return min(time.Duration(upper(i))*100, h.max)
		}
	}
	return h.max
}

// bucket is the index of a value: exact below steps, then steps indexes for each power of two.
func bucket(v uint64) int {
	if v < steps {
		return int(v)
	}
	shift := bits.Len64(v) - stepBits - 1
	i := (shift+1)*steps + int(v>>shift) - steps
	return min(i, (40-stepBits)*steps-1)
}

// upper is the largest value of a bucket.
func upper(i int) uint64 {
	if i < steps {
		return uint64(i)
	}
	shift := i/steps - 1
	return (uint64(i%steps+steps)+1)<<shift - 1
}
