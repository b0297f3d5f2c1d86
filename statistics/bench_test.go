package statistics_test

import (
	"testing"
	"time"

	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// BenchmarkRecord measures the cost per request.
func BenchmarkRecord(b *testing.B) {
	for name, s := range map[string]serving.Sample{
		"plain":     {URL: "m/1", Latency: 300 * time.Microsecond, Answered: true, RequestBytes: 100, AnswerBytes: 20},
		"variables": {URL: "m/1", Latency: 300 * time.Microsecond, Answered: true, RequestBytes: 100, AnswerBytes: 20, Sampled: true, Weight: 1, Variables: []byte(`{"x0":1,"x1":2}`)},
	} {
		b.Run(name, func(b *testing.B) {
			m := statistics.New()
			m.Follow(plan(nil, "m/1"))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m.Record(s)
				}
			})
		})
	}
}
