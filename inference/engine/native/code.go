package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/prepost"
	"clearmlserving/serving"
)

// parsed is the name of a tensor of rows that were read from JSON, with the numbers of categories.
const parsed = "\x00rows"

// withCode is an endpoint whose preprocess and postprocess run in workers, and whose model is computed in Go between
// them.
type withCode struct {
	*prepost.Model

	middle *model
}

// Status implements engine.Model.
func (w *withCode) Status() serving.ModelReport {
	report := w.Model.Status()
	native := w.middle.report
	native.Native = w.middle.native.Load()
	report.Native = &native
	return report
}

// around puts the endpoint's code around a model, which it owns then.
func (e *Engine) around(ctx context.Context, spec engine.Spec, m *model) (engine.Model, error) {
	if m.tensors.Datatype == "" {
		return nil, &unprovenError{reason: "its answers are no arrays, which the endpoint's postprocess would get", final: true}
	}
	made, err := prepost.Load(ctx, e.o.Workers, spec, prepost.Middle{
		Compute: m.between, Signature: engine.Signature{Source: m.signature.Source},
		FromJSON: func(body []byte) ([]engine.Tensor, error) {
			var rows jsontensor.Rows
			if !m.form.read(body, &rows) {
				return nil, errors.New(m.takes("something else"))
			}
			t := engine.Tensor{Name: parsed, Datatype: engine.FP64, Shape: []int64{int64(rows.N), int64(m.form.Width())}}
			for _, v := range rows.Values {
				t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(v))
			}
			return []engine.Tensor{t}, nil
		},
		Close: func() { _ = m.Close(context.WithoutCancel(ctx)) }, // no Python has been started for it
	})
	if err != nil {
		return nil, err
	}
	if made.HasModel() {
		err := made.Close(context.WithoutCancel(ctx))
		return nil, errors.Join(&unprovenError{reason: "the method load of the endpoint's code returns a model of its own", final: true}, err)
	}
	return &withCode{made, m}, nil
}

// takes says what preprocess has to return.
func (m *model) takes(got string) string {
	text := fmt.Sprintf("accelerate=true: the model is computed in Go, which takes rows of %d numbers as a list or an array", m.form.Width())
	if m.form.named {
		text += ", or their columns by name"
	}
	if !m.tensors.Narrow {
		text += ", of float64 or whole numbers"
	}
	return text + ", without values that the model refuses; preprocess returned " + got
}

// between computes what preprocess returned. It has no Python to leave a value to.
func (m *model) between(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if large(in) {
		if err := m.wait(ctx); err != nil {
			return nil, err
		}
		defer m.done()
	}
	s := m.scratch.Get().(*scratch)
	defer m.scratch.Put(s)
	n := 0
	if len(in) == 1 && in[0].Name == parsed && len(in[0].Shape) == 2 && in[0].Shape[1] == int64(m.form.Width()) {
		n = int(in[0].Shape[0])
		if !(&tensorForms{}).numbers(&in[0], grown(&s.rows, n*m.form.Width())) {
			n = 0
		}
	} else {
		n = m.form.readTensors(&engine.Request{Tensors: in}, &m.tensors, &s.rows)
	}
	left := n == 0
	if !left {
		var err error
		if left, err = m.predict(ctx, s, n); err != nil {
			return nil, err
		}
	}
	if left {
		var got []string
		for _, t := range in[:min(len(in), 10)] {
			if t.Name != parsed {
				got = append(got, fmt.Sprintf("%s %v", t.Datatype, t.Shape))
			}
		}
		if len(got) == 0 {
			got = []string{"such a value"}
		}
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: m.takes(strings.Join(got, ", "))}
	}
	t, ok := m.writer.tensor(&m.tensors, m.output, s.out, n)
	if !ok {
		return nil, &engine.Error{Kind: engine.KindInternal, Endpoint: m.url, Text: "Error processing request: the model's answer is no array"}
	}
	m.native.Add(1)
	return []engine.Tensor{t}, nil
}
