package jsontensor

import (
	"slices"
	"testing"

	"clearmlserving/inference/engine"
)

func TestAVariableHasBoundedElements(t *testing.T) {
	many := engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{2, 10_000}, Data: make([]byte, 80_000)}
	if few := limited(many); few.Shape[0] != mostVariable+1 || len(few.Data) != 4*(mostVariable+1) {
		t.Errorf("%v, %d bytes", few.Shape, len(few.Data))
	}
	if none := limited(engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{1 << 40, 0}}); !slices.Equal(none.Shape, []int64{0}) {
		t.Errorf("%v", none.Shape)
	}
}

func TestVariablesAreOutputsAndInputsByName(t *testing.T) {
	in := []engine.Tensor{{Name: "a", Datatype: engine.Int8, Shape: []int64{2}, Data: []byte{1, 2}}, {Name: "b", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{3}}}
	out := []engine.Tensor{{Name: "a", Datatype: engine.Bool, Data: []byte{1}}, {Name: "c", Datatype: "QUANTUM"}}
	if got := string(Variables([]string{"a", "b", "none", "c"}, in, out)); got != `{"a":true,"b":3,"c":null}` {
		t.Error(got)
	}
	if got := Variables([]string{"none"}, in, out); got != nil {
		t.Errorf("%s", got)
	}
}
