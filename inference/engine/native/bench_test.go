package native

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
)

// processorTime is what this process has used: on a machine that does much beside it tells more than the clock.
func processorTime(b *testing.B) int64 {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// BenchmarkInfer measures whole requests within this process: a body is read, computed, and answered.
func BenchmarkInfer(b *testing.B) {
	w := running(b)
	dir := fitted(b, "forest100", "logistic20")
	for _, name := range []string{"forest100", "logistic20"} {
		m := load(b, w, specOf(dir, name, with("predict_proba")))
		for _, rows := range []int{1, 64} {
			r := rand.New(rand.NewPCG(1, 1))
			values := make([]float64, rows*20)
			for i := range values {
				values[i] = r.NormFloat64()
			}
			req := &engine.Request{Body: jsontensor.AppendFloats(nil, values, rows, 20), ContentType: "application/json"}
			b.Run(name+map[int]string{1: "/1", 64: "/64"}[rows], func(b *testing.B) {
				b.ReportAllocs()
				begun := processorTime(b)
				for b.Loop() {
					if resp, err := m.Infer(b.Context(), req); err != nil || resp.Status != 200 {
						b.Fatal(resp, err)
					}
				}
				b.ReportMetric(float64(processorTime(b)-begun)/float64(b.N), "cpu-ns/op")
			})
		}
		if m.Status().Native.Fallback > 0 {
			b.Error("Python has answered")
		}
	}
}
