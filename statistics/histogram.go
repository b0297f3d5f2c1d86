package statistics

import (
	"math"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// scale has the buckets of a kind of histogram. Values are integers in a small unit. The buckets
// of a classic and of a native histogram are sums of its cells.
type scale struct {
	unit    float64   // of the value 1, in the exposed unit
	bounds  []int64   // inclusive upper bounds of the cells, except the last
	native  []int     // index of each cell in a native histogram; the first cell is its zero bucket
	classic []float64 // upper bounds of the classic buckets, as exposed
	last    []int     // last cell of each classic bucket
	schema  int32
	zero    float64 // upper bound of the first cell, as exposed
}

// newScale returns a scale with 2^schema native buckets for each power of two from 2^low to 2^high,
// and these classic buckets. Both are in the exposed unit.
func newScale(schema int32, low, high int, unit float64, classic []float64) *scale {
	type bound struct {
		value float64
		index int // of the native bucket that ends here, else -1
	}
	first, end := low<<schema, high<<schema
	var bounds []bound
	for k := first; k <= end; k++ {
		bounds = append(bounds, bound{math.Exp2(float64(k) / float64(int(1)<<schema)), k})
	}
	for _, b := range classic {
		if !slices.ContainsFunc(bounds, func(other bound) bool { return other.value == b }) {
			bounds = append(bounds, bound{b, math.MinInt})
		}
	}
	slices.SortFunc(bounds, func(a, b bound) int { return int(math.Copysign(1, a.value-b.value)) })
	s := &scale{unit: unit, classic: classic, schema: schema, zero: bounds[0].value}
	index := end + 1
	s.native = make([]int, len(bounds)+1)
	s.native[len(bounds)] = index
	for i := len(bounds) - 1; i >= 0; i-- {
		if bounds[i].index != math.MinInt {
			index = bounds[i].index
		}
		s.native[i] = index
	}
	for _, b := range bounds {
		s.bounds = append(s.bounds, int64(math.Floor(b.value/unit*(1+1e-12))))
	}
	for _, b := range classic {
		s.last = append(s.last, slices.IndexFunc(bounds, func(other bound) bool { return other.value == b }))
	}
	return s
}

// cell finds the cell of a value.
func (s *scale) cell(value int64) int {
	return sort.Search(len(s.bounds), func(i int) bool { return value <= s.bounds[i] })
}

// cells are mostly counted by one core at a time.
type cells struct {
	counts []atomic.Uint64
	sum    atomic.Int64
}

// histogram counts values without a lock. Each lane has separate cells, so that cores rarely
// write to the same memory.
type histogram struct {
	scale *scale
	lanes []atomic.Pointer[cells]
}

func newHistogram(s *scale, lanes int) *histogram {
	return &histogram{scale: s, lanes: make([]atomic.Pointer[cells], lanes)}
}

// observe counts a value.
func (h *histogram) observe(lane int, value int64) {
	value = max(value, 0)
	c := h.lanes[lane].Load()
	if c == nil {
		c = &cells{counts: make([]atomic.Uint64, len(h.scale.bounds)+1)}
		if !h.lanes[lane].CompareAndSwap(nil, c) {
			c = h.lanes[lane].Load()
		}
	}
	c.sum.Add(value)
	c.counts[h.scale.cell(value)].Add(1)
}

// snapshot adds up the lanes.
func (h *histogram) snapshot() (counts []uint64, sum int64) {
	counts = make([]uint64, len(h.scale.bounds)+1)
	for i := range h.lanes {
		c := h.lanes[i].Load()
		if c == nil {
			continue
		}
		sum += c.sum.Load()
		for j := range c.counts {
			counts[j] += c.counts[j].Load()
		}
	}
	return counts, sum
}

// encode returns a classic and a native histogram in one.
func (h *histogram) encode() *dto.Histogram {
	counts, sum := h.snapshot()
	return h.scale.encode(counts, float64(sum)*h.scale.unit)
}

func (s *scale) encode(counts []uint64, sum float64) *dto.Histogram {
	var total uint64
	upTo := make([]uint64, len(counts))
	for i, n := range counts {
		total += n
		upTo[i] = total
	}
	out := &dto.Histogram{SampleCount: &total, SampleSum: &sum, Schema: &s.schema, ZeroThreshold: &s.zero, ZeroCount: &counts[0]}
	for i, bound := range s.classic {
		out.Bucket = append(out.Bucket, &dto.Bucket{CumulativeCount: &upTo[s.last[i]], UpperBound: &bound})
	}
	s.addNative(out, counts)
	return out
}

// addNative adds the populated buckets of a native histogram: each as the difference to the
// previous one, in spans without gaps.
func (s *scale) addNative(out *dto.Histogram, counts []uint64) {
	next, before := 0, int64(0)
	for i := 1; i < len(counts); {
		index, n := s.native[i], int64(0)
		for ; i < len(counts) && s.native[i] == index; i++ {
			n += int64(counts[i])
		}
		if n == 0 {
			continue
		}
		if len(out.PositiveSpan) == 0 || index != next {
			offset, length := int32(index-next), uint32(0)
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: &offset, Length: &length})
		}
		*out.PositiveSpan[len(out.PositiveSpan)-1].Length++
		out.PositiveDelta = append(out.PositiveDelta, n-before)
		next, before = index+1, n
	}
	if len(out.PositiveSpan) == 0 { // marks an empty histogram as a native one
		zero, none := int32(0), uint32(0)
		out.PositiveSpan = []*dto.BucketSpan{{Offset: &zero, Length: &none}}
	}
}

// histogramMetric is an encoded histogram.
type histogramMetric struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  *dto.Histogram
}

// Desc implements prometheus.Metric.
func (m *histogramMetric) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *histogramMetric) Write(out *dto.Metric) error {
	out.Label, out.Histogram = m.labels, m.value
	return nil
}

// maxLanes bounds the memory of an endpoint on a machine with many cores.
const maxLanes = 16

// lanes assigns numbers so that a core almost always gets the same one.
type lanes struct {
	n    int
	next atomic.Uint32
	pool sync.Pool // of *int; its items stay with their core
}

func newLanes() *lanes {
	l := &lanes{n: min(runtime.GOMAXPROCS(0), maxLanes)}
	l.pool.New = func() any {
		lane := int(l.next.Add(1)) % l.n
		return &lane
	}
	return l
}

// take returns the number of a lane; put releases it.
func (l *lanes) take() *int { return l.pool.Get().(*int) } //nolint:forcetypeassert // New returns no other type

func (l *lanes) put(lane *int) { l.pool.Put(lane) }
