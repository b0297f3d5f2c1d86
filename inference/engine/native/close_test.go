package native

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// opened opens a file of package native's tests, without Python.
func opened(t *testing.T, name string, x extracted) *model {
	t.Helper()
	return openedBy(t, New(Options{}), name, x)
}

func openedBy(t *testing.T, e *Engine, name string, x extracted) *model {
	t.Helper()
	x.model = "../../../native/testdata/" + name + ".native"
	x.Report.Method = "predict"
	m, err := e.open(engine.Spec{URL: "e"}, serving.AccelerateOn, &x)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return m
}

// rowsOf is a body of n rows.
func rowsOf(m *model, n int) []byte {
	row := "[" + strings.TrimSuffix(strings.Repeat("1,", m.form.Width()), ",") + "]"
	return []byte("[" + strings.TrimSuffix(strings.Repeat(row+",", n), ",") + "]")
}

// during calls do when a computation looks at its context.
type during struct {
	context.Context //nolint:containedctx // it is a context

	do func()
}

func (d during) Err() error {
	d.do()
	return d.Context.Err()
}

// TestARequestMayOutliveItsModel: a model is closed after its drain time, also with requests under way.
func TestARequestMayOutliveItsModel(t *testing.T) {
	m := opened(t, "forest", extracted{})
	req := &engine.Request{Body: rowsOf(m, 5*chunkRows), ContentType: jsonType}
	want, err := m.Infer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	closing := during{t.Context(), func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	got, err := m.Infer(closing, req)
	if err != nil || !bytes.Equal(got.Body, want.Body) {
		t.Errorf("%v, %+v", err, got)
	}
	if m.flat.Close() != nil || m.users.Load() != closed {
		t.Error("the file is still open")
	}
	_, err = m.Infer(t.Context(), req)
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindUnavailable {
		t.Errorf("after the end: %v", err)
	}
}

// TestNoTensorOfPreprocessIsTakenForRowsOfJSON: a dict of preprocess may have any name, also one of a client's.
func TestNoTensorOfPreprocessIsTakenForRowsOfJSON(t *testing.T) {
	m := opened(t, "forest", extracted{})
	for _, shape := range [][]int64{nil, {3}, {3, 1}, {1, 3}, {1, 1, 3}} {
		in := engine.Tensor{Name: parsed, Datatype: engine.FP64, Shape: shape, Data: make([]byte, 24)}
		if shape == nil {
			in.Data = in.Data[:8]
		}
		_, err := m.between(t.Context(), []engine.Tensor{in})
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindBadRequest {
			t.Errorf("%v: %v", shape, err)
		}
	}
}

func TestVeryManyResultsAreLeftToPython(t *testing.T) {
	m := opened(t, "forest", extracted{})
	m.most = 10 * m.writer.method.Width
	for n, want := range map[int]bool{10: false, 11: true} {
		var s scratch
		if !m.form.read(rowsOf(m, n), &s.rows) {
			t.Fatal("the body is not read")
		}
		if left, err := m.predict(t.Context(), &s, n); left != want || err != nil {
			t.Errorf("%d rows: left %v, %v", n, left, err)
		}
	}
}

func TestLargeTensorsWaitForAPlaceAsLargeBodiesDo(t *testing.T) {
	e := New(Options{})
	other := openedBy(t, e, "forest", extracted{})
	m := openedBy(t, e, "forest", extracted{Tensors: tensorForms{Rows: true, Datatype: engine.FP64}})
	for range cap(other.places) {
		other.places <- struct{}{}
	}
	defer func() {
		for range cap(m.places) {
			m.done()
		}
	}()
	tensors := func(n int) []engine.Tensor {
		width := m.form.Width()
		return []engine.Tensor{{Name: "input-0", Datatype: engine.FP64, Shape: []int64{int64(n), int64(width)}, Data: make([]byte, 8*n*width)}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := m.Infer(ctx, &engine.Request{Tensors: tensors(1)}); err != nil {
		t.Errorf("small ones wait: %v", err)
	}
	_, err := m.Infer(ctx, &engine.Request{Tensors: tensors(largeBody)})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDeadline {
		t.Errorf("large ones: %v", err)
	}
	_, err = m.between(ctx, tensors(largeBody))
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDeadline {
		t.Errorf("large ones of preprocess: %v", err)
	}
}
