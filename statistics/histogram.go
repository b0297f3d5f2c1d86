package statistics

import (
	"math"
	"math/bits"
	"slices"

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
	first   [66]int // the first cell that a value of so many bits may be in; the last cell of all
}

// newScale returns a scale with 2^schema native buckets for each power of two from 2^low to 2^high,
// and these classic buckets. Both are in the exposed unit. Cells end at the further bounds too.
func newScale(schema int32, low, high int, unit float64, classic []float64, further ...float64) *scale {
	type bound struct {
		value float64
		index int // of the native bucket that ends here, else -1
	}
	first, end := low<<schema, high<<schema
	var bounds []bound
	for k := first; k <= end; k++ {
		bounds = append(bounds, bound{math.Exp2(float64(k) / float64(int(1)<<schema)), k})
	}
	for _, b := range slices.Concat(classic, further) {
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
	for n := range s.first {
		least := int64(0)
		if n > 0 {
			least = 1 << min(n-1, 62)
		}
		s.first[n], _ = slices.BinarySearch(s.bounds, least)
	}
	return s
}

// cell finds the cell of a value, which is not negative.
func (s *scale) cell(value int64) int {
	n := bits.Len64(uint64(value))
	low, high := s.first[n], s.first[n+1]
	for low < high {
		if middle := (low + high) / 2; value <= s.bounds[middle] {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// histogram is the place of a histogram in the cells of a block: its sum, and then a count for each
// cell of its scale.
type histogram struct {
	scale *scale
	at    int
}

// width is the number of cells of a histogram.
func (h histogram) width() int { return len(h.scale.bounds) + 2 }

// observe adds a value to a change.
func (h histogram) observe(c *change, b *block, value int64) {
	value = max(value, 0)
	c.add(b, h.at, uint64(value))
	c.add(b, h.at+1+h.scale.cell(value), 1)
}

// of returns the histogram in added up cells.
func (h histogram) of(cells []uint64) (counts []uint64, sum int64) {
	return cells[h.at+1 : h.at+h.width()], int64(cells[h.at])
}

// encode returns a classic and a native histogram in one.
func (h histogram) encode(cells []uint64) *dto.Histogram {
	counts, sum := h.of(cells)
	return h.scale.encode(counts, float64(sum)/math.Round(1/h.scale.unit)) // exact, unlike a product
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
