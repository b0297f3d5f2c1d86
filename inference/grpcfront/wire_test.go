package grpcfront

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/grpcfront/pb"
)

// BenchmarkDecode compares the reader of requests with protobuf's, for one row and for a large
// tensor.
func BenchmarkDecode(b *testing.B) {
	for name, rows := range map[string]int{"1 row": 1, "1 MB": 1 << 20 / 80} {
		message, err := proto.Marshal(&pb.ModelInferRequest{
			ModelName: "test_model", Id: "1", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "input-0", Datatype: "FP32", Shape: []int64{int64(rows), 20}}},
			RawInputContents: [][]byte{make([]byte, rows*80)},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/by hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, _ := requests.Get().(*request)
				if r.read(message, 1<<30); r.broken != nil {
					b.Fatal(r.broken)
				}
				r.release()
				requests.Put(r)
			}
		})
		b.Run(name+"/protobuf", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(message, new(pb.ModelInferRequest)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
