package statistics

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestAHistogramCountsEachValueInTheClassicAndTheNativeBucketThatItBelongsTo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same values at each run
	for name, s := range map[string]*scale{"seconds": seconds, "sizes": sizes} {
		values := []int64{-5, 0, 1, 1 << 43}
		for _, b := range s.bounds {
			values = append(values, b-1, b, b+1)
		}
		for _, b := range s.classic {
			values = append(values, int64(math.Round(b/s.unit)), int64(math.Round(b/s.unit))+1)
		}
		for range 2000 {
			values = append(values, int64(math.Exp2(random.Float64()*42)))
		}
		h := histogram{s, 0}
		counter := newCounter(h)
		classic, native, zero, sum := make([]uint64, len(s.classic)), map[int]int64{}, uint64(0), 0.0
		for _, v := range values {
			counter.observe(v)
			exposed := float64(max(v, 0)) * s.unit
			sum += exposed
			for j, b := range s.classic {
				if max(v, 0) <= int64(math.Round(b/s.unit)) {
					classic[j]++
				}
			}
			if exposed <= s.zero {
				zero++
				continue
			}
			index := int(math.Ceil(math.Log2(exposed) * math.Exp2(float64(s.schema))))
			native[min(index, s.native[len(s.native)-1])]++
		}
		got := h.encode(counter.block.cells)
		if got.GetSampleCount() != uint64(len(values)) || math.Abs(got.GetSampleSum()-sum) > sum*1e-9 {
			t.Errorf("%s: %d values with a sum of %v, want %d and %v", name, got.GetSampleCount(), got.GetSampleSum(), len(values), sum)
		}
		for j, b := range got.GetBucket() {
			if b.GetUpperBound() != s.classic[j] || b.GetCumulativeCount() != classic[j] {
				t.Errorf("%s: bucket %v has %d, want %v with %d", name, b.GetUpperBound(), b.GetCumulativeCount(), s.classic[j], classic[j])
			}
		}
		index, delta, before, total := 0, 0, int64(0), got.GetZeroCount()
		for _, span := range got.GetPositiveSpan() {
			index += int(span.GetOffset())
			for range span.GetLength() {
				before += got.GetPositiveDelta()[delta]
				total += uint64(before)
				if diff := before - native[index]; diff < -2 || diff > 2 { // a float's error at the bound of a bucket
					t.Errorf("%s: native bucket %d has %d, want %d", name, index, before, native[index])
				}
				index, delta = index+1, delta+1
			}
		}
		if total != uint64(len(values)) || got.GetZeroCount() != zero {
			t.Errorf("%s: the native buckets have %d of %d values, %d of them zero, want %d", name, total, len(values), got.GetZeroCount(), zero)
		}
	}
}

func TestAnEmptyHistogramIsANativeOne(t *testing.T) {
	h := histogram{seconds, 0}
	got := h.encode(newCounter(h).block.cells)
	if got.GetSampleCount() != 0 || len(got.GetPositiveSpan()) == 0 || len(got.GetBucket()) != len(seconds.classic) {
		t.Errorf("%v", got)
	}
}

func TestManyCoresLoseNoValue(t *testing.T) {
	m := New()
	const each, cores = 5000, 8
	var all sync.WaitGroup
	for range cores {
		all.Go(func() {
			for i := range each {
				m.Record(serving.Sample{URL: "m", Latency: time.Duration(i), RequestBytes: -1, AnswerBytes: -1})
			}
		})
	}
	all.Wait()
	if got := places.duration.encode(m.sum(m.tables.Load().meters["m"])).GetSampleCount(); got != each*cores {
		t.Errorf("%d values of %d", got, each*cores)
	}
}

// counter counts values in one histogram.
type counter struct {
	of    histogram
	block *block
}

func newCounter(h histogram) counter {
	return counter{h, &block{cells: make([]uint64, h.width())}}
}

func (c counter) observe(value int64) {
	one := change{journal: new(journal)}
	c.of.observe(&one, c.block, value)
	one.commit()
}
