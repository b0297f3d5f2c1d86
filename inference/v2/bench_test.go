package v2_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

func BenchmarkRequest(b *testing.B) {
	for _, datatype := range []string{"FP32", "FP64", "INT64", "BYTES"} {
		for _, rows := range []int{1, 64} {
			data := []byte{'['}
			for i := range rows * 20 {
				if i > 0 {
					data = append(data, ',')
				}
				switch datatype {
				case "INT64":
					data = strconv.AppendInt(data, rand.Int64N(1000000), 10)
				case "BYTES":
					data = append(data, `"a word"`...)
				default:
					data = strconv.AppendFloat(data, rand.NormFloat64(), 'g', -1, 64)
				}
			}
			body := []byte(one(fmt.Sprintf("[%d,20]", rows), datatype, string(append(data, ']'))))
			b.Run(fmt.Sprintf("json/%s/%dx20", datatype, rows), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v2.ParseRequest(body, v2.WholeBody, limit); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	head := `{"inputs":[{"name":"x","shape":[64,20],"datatype":"FP32","parameters":{"binary_data_size":5120}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`
	body := append([]byte(head), make([]byte, 5120)...)
	b.Run("binary/FP32/64x20", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v2.ParseRequest(body, len(head), limit); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkResponse(b *testing.B) {
	values := make([]float32, 64*20)
	for i := range values {
		values[i] = rand.Float32()
	}
	answer := v2.Response{Model: "m", Outputs: []engine.Tensor{{Name: "y", Datatype: engine.FP32, Shape: []int64{64, 20}, Data: little(values)}}}
	for _, binary := range []bool{false, true} {
		b.Run(fmt.Sprintf("binary=%t/FP32/64x20", binary), func(b *testing.B) {
			b.ReportAllocs()
			var body []byte
			for b.Loop() {
				var err error
				if body, _, err = answer.Append(body[:0], &v2.Request{BinaryOutput: binary}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
