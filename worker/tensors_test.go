package worker

import (
	"errors"
	"testing"
)

func TestTensorsThatAreCutShortAreRefused(t *testing.T) {
	v := Value{Layout: DictOfArrays, Tensors: []Tensor{
		{Name: "a", DType: "<f4", Shape: []int64{1, 2}, Data: make([]byte, 8)}, {Name: "b", DType: "|b1", Shape: []int64{}, Data: []byte{1}},
	}}
	kind, whole := v.encode(nil)
	if _, err := parseValue(kind, whole); err != nil {
		t.Fatal(err)
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
