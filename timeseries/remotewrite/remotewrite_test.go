package remotewrite

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"

	"clearmlserving/timeseries/gather"
)

func batch(at int64, v float64, pairs ...string) gather.Batch {
	return gather.Batch{Samples: []gather.Sample{{Labels: labels.FromStrings(pairs...), At: at, Value: v}}}
}

func TestARequestIsReadAsItWasWritten(t *testing.T) {
	h := &histogram.Histogram{
		Count: 3, Sum: 4, Schema: 3, ZeroThreshold: 1e-9, ZeroCount: 1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []int64{2},
	}
	b := batch(1000, 7, "__name__", "x", "instance", "claimed", "endpoint", "m")
	b.Samples[0].Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "abc"), Value: 7, Ts: 999, HasTs: true}}
	b.Samples = append(b.Samples,
		gather.Sample{Labels: labels.FromStrings("__name__", "h"), At: 1000, Histogram: h},
		gather.Sample{Labels: labels.FromStrings("__name__", "gone"), At: 1000, Value: math.Float64frombits(value.StaleNaN)})
	b.Metas = []gather.Meta{{Name: "x", Type: "counter", Help: "Help.", Unit: "seconds"}}
	body, err := Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(body, map[string]string{"instance": "a:1", "service": "s"})
	if err != nil {
		t.Fatal(err)
	}
	if l := got.Samples[0].Labels.String(); l != `{__name__="x", endpoint="m", instance="a:1", service="s"}` {
		t.Errorf("labels are %s", l)
	}
	if e := got.Samples[0].Exemplars; len(e) != 1 || e[0].Labels.Get("trace_id") != "abc" || e[0].Ts != 999 {
		t.Errorf("exemplars are %v", e)
	}
	if !got.Samples[1].Histogram.Equals(h) {
		t.Errorf("the histogram is %v", got.Samples[1].Histogram)
	}
	if !value.IsStaleNaN(got.Samples[2].Value) {
		t.Error("the stale marker is lost")
	}
	if !slices.Equal(got.Metas, b.Metas) {
		t.Errorf("metas are %v", got.Metas)
	}
}

func request1(series ...prompb.TimeSeries) []byte {
	r := prompb.WriteRequest{Timeseries: series}
	text, err := r.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, text)
}

func TestBadRequestsAreRefused(t *testing.T) {
	one := []prompb.Sample{{Timestamp: 1, Value: 1}}
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"empty":           {nil, "snappy"},
		"not compressed":  {[]byte("requests_total 1"), "snappy"},
		"too large":       {[]byte{0xff, 0xff, 0xff, 0xff, 0x07}, "decompressed"},
		"not protobuf":    {snappy.Encode(nil, []byte("requests_total 1")), "remote write"},
		"no name":         {request1(prompb.TimeSeries{Labels: []prompb.Label{{Name: "a", Value: "b"}}, Samples: one}), "no name"},
		"twice":           {request1(prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "x"}, {Name: "a", Value: "b"}, {Name: "a", Value: "c"}}, Samples: one}), "twice"},
		"invalid UTF-8":   {request1(prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "x\xff"}}, Samples: one}), "label"},
		"too many labels": {request1(prompb.TimeSeries{Labels: slices.Repeat([]prompb.Label{{Name: "a", Value: "b"}}, 65), Samples: one}), "more than 64"},
		"long value":      {request1(prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: strings.Repeat("x", 9000)}}, Samples: one}), "too long"},
		"bad histogram": {request1(prompb.TimeSeries{
			Labels:     []prompb.Label{{Name: "__name__", Value: "x"}},
			Histograms: []prompb.Histogram{{Schema: 3, Count: &prompb.Histogram_CountInt{CountInt: 5}, PositiveSpans: []prompb.BucketSpan{{Length: 4_000_000_000}}}},
		}), "histogram"},
		"histogram without a schema": {request1(prompb.TimeSeries{
			Labels: []prompb.Label{{Name: "__name__", Value: "x"}}, Histograms: []prompb.Histogram{{Schema: 99}},
		}), "histogram"},
	} {
		if _, err := Decode(c.body, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	body, _ := Encode(batch(1000, 7, "__name__", "x"))
	f.Add(body)
	f.Fuzz(func(_ *testing.T, body []byte) { _, _ = Decode(body, map[string]string{"instance": "a"}) })
}

// receiver takes requests as told.
type receiver struct {
	mu     sync.Mutex
	status []int // of the next requests; then 204
	got    []float64
	asked  chan int // the number of requests so far
	n      int
}

func (r *receiver) send(_ context.Context, body []byte) (int, string, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	select {
	case r.asked <- r.n:
	default:
	}
	status := 204
	if len(r.status) > 0 {
		status, r.status = r.status[0], r.status[1:]
	}
	if status == 0 {
		return 0, "", 0, errors.New("connection refused")
	}
	if status < 300 {
		b, err := Decode(body, nil)
		if err != nil {
			return 400, err.Error(), 0, nil
		}
		for _, s := range b.Samples {
			r.got = append(r.got, s.Value)
		}
	}
	return status, "text", 0, nil
}

func TestTheQueueSendsInOrderAndAgain(t *testing.T) {
	r := &receiver{status: []int{0, 503, 204, 400}, asked: make(chan int, 100)}
	q := NewQueue(r.send, slog.New(slog.DiscardHandler))
	for i := range 4 {
		if err := q.Write(t.Context(), batch(int64(i), float64(i), "__name__", "x")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); q.Run(ctx) }()
	for n := 0; n < 6; n = <-r.asked {
	}
	cancel()
	<-done
	if !slices.Equal(r.got, []float64{0, 2, 3}) {
		t.Errorf("got %v", r.got)
	}
	if c := q.Counts(); c != (Counts{Sent: 3, Refused: 1}) {
		t.Errorf("counts are %+v", c)
	}
}

func TestTheOldestAreDroppedAndCounted(t *testing.T) {
	r := &receiver{}
	q := NewQueue(r.send, slog.New(slog.DiscardHandler))
	body, _ := Encode(batch(1, 1, "__name__", "x"))
	q.limit = 3 * len(body)
	for i := range 10 {
		if err := q.Write(t.Context(), batch(int64(i), float64(i), "__name__", "x")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Run(ctx) // ends with what waits
	if len(r.got) == 0 || r.got[len(r.got)-1] != 9 {
		t.Errorf("got %v", r.got)
	}
	if c := q.Counts(); c.Sent+c.Dropped != 10 || c.Dropped < 6 || c.Waiting != 0 {
		t.Errorf("counts are %+v", c)
	}
}

func TestALargeBatchIsSentInParts(t *testing.T) {
	r := &receiver{asked: make(chan int, 100)}
	q := NewQueue(r.send, slog.New(slog.DiscardHandler))
	var b gather.Batch
	for i := range 2*atOnce + 1 {
		b.Samples = append(b.Samples, gather.Sample{Labels: labels.FromStrings("__name__", "x", "i", string(rune('a'+i%26))), At: 1, Value: float64(i)})
	}
	if err := q.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.Run(ctx)
	if r.n != 3 || len(r.got) != len(b.Samples) {
		t.Errorf("%d requests with %d samples", r.n, len(r.got))
	}
}
