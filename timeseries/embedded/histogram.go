package embedded

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
)

// histogramOf converts a native histogram to the form of the HTTP API.
func histogramOf(h *histogram.FloatHistogram) *model.SampleHistogram {
	out := &model.SampleHistogram{Count: model.FloatString(h.Count), Sum: model.FloatString(h.Sum)}
	eachBucket(h, func(bounds int, b histogram.Bucket[float64]) {
		out.Buckets = append(out.Buckets, &model.HistogramBucket{
			Boundaries: int32(bounds), Lower: model.FloatString(b.Lower), Upper: model.FloatString(b.Upper), Count: model.FloatString(b.Count), //nolint:gosec // 0 to 3
		})
	})
	return out
}

// eachBucket calls each for the buckets with a count. bounds is 0 if the upper bound is in the bucket,
// 1 if the lower is, 2 for none and 3 for both.
func eachBucket(h *histogram.FloatHistogram, each func(bounds int, b histogram.Bucket[float64])) {
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		bounds := 2
		switch {
		case b.LowerInclusive && b.UpperInclusive:
			bounds = 3
		case b.LowerInclusive:
			bounds = 1
		case b.UpperInclusive:
			bounds = 0
		}
		each(bounds, b)
	}
}
