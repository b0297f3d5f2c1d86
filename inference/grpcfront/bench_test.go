package grpcfront_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"clearmlserving/inference/grpcfront/pb"
)

// rawCodec sends bytes and drops what it gets, so that a benchmark measures little of its client.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, _ := v.([]byte)
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}
func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (rawCodec) Name() string                         { return "proto" }

// BenchmarkInfer asks a model that answers at once, over the loopback interface: client and server
// share the processors.
func BenchmarkInfer(b *testing.B) {
	r := start(b, nil, "echo")
	for _, rows := range []int{1, 64, 4096} {
		q := &pb.ModelInferRequest{
			ModelName: "echo", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{int64(rows) * 10, 2}}},
			RawInputContents: [][]byte{make([]byte, rows*80)},
		}
		message := marshal(b, q)
		for _, streams := range []int{1, 64} {
			b.Run(fmt.Sprintf("rows=%d/streams=%d", rows, streams), func(b *testing.B) {
				b.SetBytes(int64(len(message)))
				b.ReportAllocs()
				b.SetParallelism(streams)
				b.RunParallel(func(next *testing.PB) {
					for next.Next() {
						if err := r.Invoke(context.Background(), "/inference.GRPCInferenceService/ModelInfer", message, nil, grpc.ForceCodecV2(rawCodec{})); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
