package jsontensor

import "clearmlserving/inference/engine"

// mostVariable bounds the elements of a variable: the statistics count no more, and say that there were
// more.
const mostVariable = 10_000

// Variables are the variables of a request with these names, as a JSON object: inputs and outputs by their
// names, the output if both have the name. nil: there are none.
func Variables(names []string, in, out []engine.Tensor) []byte {
	b := []byte{'{'}
	for _, name := range names {
		t := tensorNamed(out, name)
		if t == nil {
			t = tensorNamed(in, name)
		}
		if t == nil {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(AppendText(b, name), ':')
		before := len(b)
		var err error
		if b, err = AppendTensor(b, limited(*t), false); err != nil {
			b = append(b[:before], "null"...) // as a value without a form of a worker
		}
	}
	if len(b) == 1 {
		return nil
	}
	return append(b, '}')
}

// tensorNamed is the tensor of that name, nil if there is none.
func tensorNamed(tensors []engine.Tensor, name string) *engine.Tensor {
	for i := range tensors {
		if tensors[i].Name == name {
			return &tensors[i]
		}
	}
	return nil
}

// limited is a tensor of few elements: a single one without lists, a list of many.
func limited(t engine.Tensor) *engine.Tensor {
	elements := int64(1)
	for _, n := range t.Shape {
		elements *= n
	}
	switch size := t.Datatype.Size(); {
	case elements == 0:
		t.Shape = []int64{0} // not as many lists as the client wants
	case elements == 1:
		t.Shape = nil
	case elements > mostVariable:
		t.Shape = []int64{mostVariable + 1}
		if size > 0 {
			t.Data = t.Data[:(mostVariable+1)*size]
		}
	}
	return &t
}
