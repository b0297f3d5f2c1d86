package worker

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func TestTensorsThatAreCutShortAreRefused(t *testing.T) {
	v := Value{Layout: DictOfArrays, As: "pd", Outputs: []string{"y", ""}, Tensors: []Tensor{
		{Name: "a", DType: "<f4", ContentType: "np", Shape: []int64{1, 2}, Data: make([]byte, 8)}, {Name: "b", DType: "|b1", Shape: []int64{}, Data: []byte{1}},
	}}
	kind, whole := v.encode(nil)
	if got, err := parseValue(kind, whole); err != nil || !reflect.DeepEqual(got, v) {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range whole {
		if _, err := parseValue(kind, whole[:n]); !errors.Is(err, errFrame) {
			t.Errorf("of %d bytes: %v", n, err)
		}
	}
	if _, err := parseValue(kind, append(whole, 0)); !errors.Is(err, errFrame) {
		t.Errorf("one byte more: %v", err)
	}
}

func FuzzTensorsOfAWorker(f *testing.F) {
	v := Value{As: "pd", Outputs: []string{"y"}, Tensors: []Tensor{{Name: "a", DType: "<f4", ContentType: "np", Shape: []int64{1, 2}, Data: make([]byte, 8)}}}
	_, whole := v.encode(nil)
	f.Add(whole)
	f.Add([]byte{1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := parseValue(contentTensors, body)
		if err != nil {
			return
		}
		if _, again := v.encode(nil); v.Tensors != nil && !bytes.Equal(again, body) {
			t.Errorf("%x is encoded as %x", body, again)
		}
	})
}
