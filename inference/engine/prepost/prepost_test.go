package prepost

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/python/pythontest"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// callback is what answers send_request.
type callback func(c engine.Call) *engine.Response

func (f callback) Call(_ context.Context, c engine.Call) (*engine.Response, error) { return f(c), nil }

// code writes a class with these methods.
func code(t *testing.T, methods string) engine.Spec {
	t.Helper()
	file := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(file, []byte("class Preprocess:\n    "+strings.ReplaceAll(methods, "\n", "\n    ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return engine.Spec{
		URL: "middle", CodePath: file, CodeName: "py_code_middle",
		Endpoint: serving.Endpoint{EngineType: serving.EngineCustom, ServingURL: "middle"},
	}
}

func loaded(t *testing.T, e *python.Engine, spec engine.Spec, m Middle) *Model {
	t.Helper()
	around, err := Load(t.Context(), e, spec, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := around.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return around
}

var doubled = engine.Signature{
	Inputs: []engine.TensorSpec{{Name: "x", Datatype: engine.FP32, Shape: []int64{-1, 2}}}, Outputs: []engine.TensorSpec{{Name: "y", Datatype: engine.FP32, Shape: []int64{-1, 2}}},
	Source: "test",
}

func floats(list ...float32) (b []byte) {
	for _, f := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// double computes y = 2x of FP32.
func double(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	if len(in) != 1 || in[0].Name != "x" || in[0].Datatype != engine.FP32 {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Text: fmt.Sprintf("no x of FP32: %+v", in)}
	}
	out := engine.Tensor{Name: "y", Datatype: engine.FP32, Shape: in[0].Shape}
	for b := in[0].Data; len(b) > 0; b = b[4:] {
		out.Data = append(out.Data, floats(2*math.Float32frombits(binary.LittleEndian.Uint32(b)))...)
	}
	return []engine.Tensor{out}, nil
}

// rows reads a list of rows.
func rows(body []byte) ([]engine.Tensor, error) {
	var list [][2]float32
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("no rows: %w", err)
	}
	x := engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{int64(len(list)), 2}}
	for _, row := range list {
		x.Data = append(x.Data, floats(row[0], row[1])...)
	}
	return []engine.Tensor{x}, nil
}

// ask returns status and body.
func ask(t *testing.T, m engine.Model, body string) string {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{ID: "r1", Body: []byte(body), ContentType: "application/json", Sampled: true})
	if err != nil {
		return err.Error()
	}
	if resp.Stream != nil {
		whole, err := engine.ReadAll(t.Context(), resp.Stream, 1<<20)
		return fmt.Sprintf("%d stream %s %v", resp.Status, whole, err)
	}
	return fmt.Sprintf("%d %s", resp.Status, resp.Body)
}

const surrounds = `def preprocess(self, body, state, collect):
    import numpy
    state["asked"] = body
    if collect:
        collect({"seen": 1})
    if isinstance(body, dict) and "do" in body:
        return eval(body["do"], {"numpy": numpy, "self": self})
    if isinstance(body, dict):
        return body["x"]
    return numpy.array(body)

def postprocess(self, data, state, collect):
    asked = state["asked"]
    if isinstance(asked, dict) and "then" in asked:
        return eval(asked["then"], {"data": data, "self": self})
    kind = f"{type(data).__name__} {data.dtype}"
    return {"kind": kind, "y": data.tolist(), "asked": asked if isinstance(asked, list) else "tensors"}`

func TestPreprocessAndPostprocessSurroundAComputation(t *testing.T) {
	var calls atomic.Int64
	e := pythontest.Start(t, callback(func(c engine.Call) *engine.Response {
		calls.Add(1)
		return &engine.Response{Status: 200, ContentType: "application/json", Body: fmt.Appendf(nil, `{"depth":%d}`, c.Depth)}
	}))
	var closed atomic.Bool
	m := loaded(t, e, code(t, surrounds), Middle{Compute: double, Signature: doubled, FromJSON: rows, Close: func() { closed.Store(true) }})
	for body, want := range map[string]string{
		`[[1, 2.5]]`:                                          `200 {"kind":"ndarray float32","y":[[2.0,5.0]],"asked":[[1,2.5]]}`,
		`{"do":"numpy.ones((1,2),'f4')"}`:                     `200 {"kind":"ndarray float32","y":[[2.0,2.0]],"asked":"tensors"}`,
		`{"do":"{'x': numpy.ones((1,2))}"}`:                   `200 {"kind":"ndarray float32","y":[[2.0,2.0]],"asked":"tensors"}`,
		`{"do":"[numpy.arange(4)]"}`:                          `200 {"kind":"ndarray float32","y":[0.0,2.0,4.0,6.0],"asked":"tensors"}`,
		`{"do":"[[1, 2], [3, 4]]"}`:                           `200 {"kind":"ndarray float32","y":[[2.0,4.0],[6.0,8.0]],"asked":"tensors"}`,
		`{"do":"numpy.array(['a'])"}`:                         `422 {"detail":"Error [<class 'ValueError'>] processing request: no x of FP32: [{Name:x Datatype:BYTES Shape:[1] Data:[1 0 0 0 97] ContentType:}]"}`,
		`{"do":"'text'"}`:                                     `422 {"detail":"Error [<class 'ValueError'>] processing request: no rows: json: cannot unmarshal string into Go value of type [][2]float32"}`,
		`{"do":"b'bytes'"}`:                                   `422 {"detail":"Error [<class 'ValueError'>] processing request: preprocess returned bytes, and the model takes arrays"}`,
		`{"do":"1/0"}`:                                        `500 {"detail":"Error  [<class 'ZeroDivisionError'>] processing request: division by zero"}`,
		`{"do":"int('x')"}`:                                   `422 {"detail":"Error [<class 'ValueError'>] processing request: invalid literal for int() with base 10: 'x'"}`,
		`{"do":"[[1,2]]","then":"1/0"}`:                       `500 {"detail":"Error  [<class 'ZeroDivisionError'>] processing request: division by zero"}`,
		`{"do":"[[1,2]]","then":"(str(x) for x in data[0])"}`: `200 stream 2.04.0 <nil>`,
		`{"do":"self.send_request('other',data={}) and [[1,2]]","then":"self.send_request('other',data={})"}`: `200 {"depth":1}`,
	} {
		if got := ask(t, m, body); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`[[1,2]]`), Sampled: true})
	if err != nil || string(resp.Stats) != `{"seen":1}` {
		t.Errorf("%+v, %v", resp, err)
	}
	x := engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)}
	resp, err = m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{x}})
	if err != nil || resp.Status != 200 || len(resp.Tensors) != 3 || resp.Tensors[1].Name != "y" || resp.Tensors[1].Datatype != engine.FP64 {
		t.Errorf("tensors: %+v, %v", resp, err)
	}
	if closed.Load() {
		t.Error("closed while it serves")
	}
}

func TestCodeNeedsNeitherMethod(t *testing.T) {
	e := pythontest.Start(t, nil)
	m := loaded(t, e, code(t, "pass"), Middle{Compute: double, Signature: doubled, FromJSON: rows})
	if got := ask(t, m, `[[1,2]]`); got != `200 [[2.0,4.0]]` {
		t.Error(got)
	}
	x := engine.Tensor{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)}
	resp, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{x}})
	if want := []engine.Tensor{{Name: "y", Datatype: engine.FP32, Shape: []int64{1, 2}, Data: floats(2, 4)}}; err != nil || !reflect.DeepEqual(resp.Tensors, want) {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestArraysThatTheModelCannotTakeAreNotChanged(t *testing.T) {
	e := pythontest.Start(t, nil)
	spec := engine.Signature{Inputs: []engine.TensorSpec{{Name: "i", Datatype: engine.Int8}, {Name: "f", Datatype: engine.FP16}, {Name: "t", Datatype: engine.Bytes}}, Source: "test"}
	echo := func(_ context.Context, in []engine.Tensor) ([]engine.Tensor, error) { return in, nil }
	m := loaded(t, e, code(t, `def preprocess(self, body, state, collect):
    import numpy
    return eval(body["do"], {"numpy": numpy, "np": numpy})

def postprocess(self, data, state, collect):
    return [f"{a.dtype} {a.tolist()}" for a in data] if isinstance(data, list) else f"{data.dtype} {data.tolist()}"`),
		Middle{Compute: echo, Signature: spec, FromJSON: func(body []byte) ([]engine.Tensor, error) { return nil, errors.New(string(body)) }})
	for do, want := range map[string]string{
		"[np.array([1., -2.]), np.array([1, 2]), np.array(['a', 'bc'])]": `200 ["int8 [1, -2]","float16 [1.0, 2.0]","object [b'a', b'bc']"]`,
		"{'f': np.array([1e9])}":                `200 "float16 [inf]"`,
		"{'i': np.array([1.5])}":                "422 {\"detail\":\"Error [<class 'ValueError'>] processing request: preprocess returned float64 for the model's input 'i', which takes int8, and not all of its numbers are the same as such\"}",
		"{'i': np.array([300])}":                "422 {\"detail\":\"Error [<class 'ValueError'>] processing request: preprocess returned int64 for the model's input 'i', which takes int8, and not all of its numbers are the same as such\"}",
		"[np.array([7])]":                       `200 "int64 [7]"`,
		"[[1], [2.5], ['a']]":                   `422 {"detail":"Error [<class 'ValueError'>] processing request: {\"f\":[2.5],\"i\":[1],\"t\":[\"a\"]}"}`,
		"[[1], [2]]":                            `422 {"detail":"Error [<class 'ValueError'>] processing request: [[1],[2]]"}`,
		"[[float('nan'), None, np.float32(1)]]": `422 {"detail":"Error [<class 'ValueError'>] processing request: [[NaN,null,1.0]]"}`,
		"{'x': [1, {}], 'f': np.ones(1)}":       `422 {"detail":"Error [<class 'ValueError'>] processing request: {\"x\":[1,{}],\"f\":[1.0]}"}`,
		"{'l': [1], 'f': np.ones(1)}":           `200 ["int64 [1]","float64 [1.0]"]`,
	} {
		body, err := json.Marshal(map[string]string{"do": do})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, m, string(body)); got != want {
			t.Errorf("%s: %s\nwant %s", do, got, want)
		}
	}
}

func TestAProcessOfTheCodeReplacesTheComputationWhereThatIsWanted(t *testing.T) {
	e := pythontest.Start(t, nil)
	spec := code(t, "def load(self, path):\n    return 'own'\ndef process(self, data, state, collect):\n    return {'processed': 1}")
	for wanted, want := range map[bool]string{true: `200 {"processed":1}`, false: `200 [[2.0,4.0]]`} {
		m := loaded(t, e, spec, Middle{Compute: double, Signature: doubled, FromJSON: rows, Process: wanted})
		if got := ask(t, m, `[[1,2]]`); got != want {
			t.Errorf("%t: %s", wanted, got)
		}
		if !m.HasModel() {
			t.Error("load has returned a model")
		}
	}
	if m := loaded(t, e, code(t, "pass"), Middle{Compute: double}); m.HasModel() {
		t.Error("no load has returned a model")
	}
}

func TestTheComputationIsBatchedAndHoldsNoWorker(t *testing.T) {
	e := pythontest.Start(t, nil)
	gate, sizes := make(chan struct{}), make(chan int64, 100)
	m := loaded(t, e, code(t, surrounds), Middle{Signature: doubled, FromJSON: rows, Batching: serving.Batching{MaxRows: 32}, Compute: func(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
		sizes <- in[0].Shape[0]
		<-gate
		return double(ctx, in)
	}})
	const clients = 9
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			want := fmt.Sprintf(`200 {"kind":"ndarray float32","y":[[%d.0,0.0]],"asked":[[%d,0]]}`, 2*i, i)
			if got := ask(t, m, fmt.Sprintf(`[[%d, 0]]`, i)); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
	first := <-sizes
	if got := ask(t, m, `{"do":"1/0"}`); !strings.HasPrefix(got, "500") { // the worker is free meanwhile
		t.Error(got)
	}
	close(gate)
	all.Wait()
	close(sizes)
	rest := int64(0)
	for n := range sizes {
		rest += n
	}
	if b := m.Status().Batching; first+rest != clients || b == nil || b.MaxRows != 32 {
		t.Errorf("%d rows and %d, %+v", first, rest, b)
	}
}

func TestARequestThatEndsWhileItIsComputedLeavesNoState(t *testing.T) {
	e := pythontest.Start(t, nil)
	begun := make(chan struct{}, 1)
	var closed atomic.Int64
	around, err := Load(t.Context(), e, code(t, surrounds), Middle{Signature: doubled, FromJSON: rows, Close: func() { closed.Add(1) }, Compute: func(ctx context.Context, _ []engine.Tensor) ([]engine.Tensor, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, &engine.Error{Kind: engine.KindDeadline, Text: "late", Err: ctx.Err()}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := around.Infer(ctx, &engine.Request{Body: []byte(`[[1,2]]`)})
		done <- err
	}()
	<-begun
	cancel()
	if failed, ok := errors.AsType[*engine.Error](<-done); !ok || failed.Kind != engine.KindDeadline {
		t.Errorf("%v", failed)
	}
	if err := around.Close(t.Context()); err != nil { // it waits for what is prepared
		t.Error(err)
	}
	if n := closed.Load(); n != 1 {
		t.Errorf("the computation was closed %d times", n)
	}
}

func TestTheSignatureSaysWhatTheCodeTellsOfBodies(t *testing.T) {
	e := pythontest.Start(t, nil)
	m := loaded(t, e, code(t, "def preprocess(self, body: int, state, collect):\n    return [[body, 1]]"), Middle{Compute: double, Signature: doubled, FromJSON: rows})
	s := m.Signature()
	if !s.Preprocessed || s.Postprocessed || string(s.BodySchema) == "" || s.AnswerSchema != nil || s.Source != "test, type hints" || s.Inputs != nil || len(s.ModelInputs) != 1 || len(s.Outputs) != 1 {
		t.Errorf("%+v", s)
	}
	m = loaded(t, e, code(t, "def process(self, data, state, collect):\n    return 1"), Middle{Compute: double, Signature: doubled, Process: true})
	if s = m.Signature(); s.Inputs != nil || s.Source != engine.SourceNone {
		t.Errorf("%+v", s)
	}
}

// loader loads code around a computation.
type loader struct {
	python *python.Engine
	middle Middle
}

func (l loader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	m, err := Load(ctx, l.python, spec, l.middle)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func TestCodeAroundAComputationFulfilsTheContractOfEngines(t *testing.T) {
	at := func(methods string, want func(int) string) *enginetest.Endpoint {
		return &enginetest.Endpoint{Spec: code(t, methods), Want: want, Request: func(i int) *engine.Request {
			return &engine.Request{ID: fmt.Sprint(i), Body: fmt.Appendf(nil, `[[%d,1]]`, i), ContentType: "application/json"}
		}}
	}
	tensors := at("pass", nil)
	tensors.Request = func(int) *engine.Request {
		return &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)}}}
	}
	enginetest.Run(t, enginetest.Engine{
		Loader:  loader{pythontest.Start(t, nil), Middle{Compute: double, Signature: doubled, FromJSON: rows}},
		Answers: *at("pass", func(i int) string { return fmt.Sprintf("[[%d.0,2.0]]", 2*i) }),
		Waits:   at("def preprocess(self, body, state, collect):\n    import time\n    time.sleep(3600)", nil),
		Refuses: at("def postprocess(self, data, state, collect):\n    raise ValueError('no')", nil),
		Broken:  at("def load(self, path):\n    raise KeyError('weights')", nil), BrokenByUser: true,
		Streams: at("def postprocess(self, data, state, collect):\n    return (str(i) for i in range(3))", func(int) string { return "012" }),
		Tensors: tensors,
	})
}
