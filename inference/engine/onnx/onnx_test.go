package onnx

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/process"
	"clearmlserving/serving"
)

// trialWord makes this test's binary the child process of a trial.
const trialWord = "trial-of-a-model"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == trialWord {
		if strings.Contains(os.Args[2], "crashes.onnx") {
			crash()
		}
		os.Exit(Trial(context.Background(), os.Args[2], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// crash ends this process as a fault in native code does.
func crash() {
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Signal(syscall.SIGSEGV)
	}
	if err != nil {
		panic(err)
	}
	select {}
}

const models = "../../../onnxruntime/testdata/"

func newEngine(tb testing.TB) *Engine {
	tb.Helper()
	library := os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME")
	if library == "" {
		tb.Skip("CLEARML_SERVING_TEST_ONNXRUNTIME does not name an ONNX Runtime")
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return New(Options{Find: func(context.Context) (string, error) { return library, nil }, Trial: []string{self, trialWord}, Memory: 1 << 30})
}

func specOf(name string, aux any) engine.Spec {
	return engine.Spec{URL: "m", ModelPath: models + name, Endpoint: serving.Endpoint{EngineType: serving.EngineONNX, ServingURL: "m", AuxiliaryCfg: aux}}
}

func loaded(tb testing.TB, e *Engine, spec engine.Spec) *model {
	tb.Helper()
	m, err := e.Load(tb.Context(), spec)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return m.(*model) //nolint:forcetypeassert // of this package
}

// ask sends a JSON body.
func ask(tb testing.TB, m engine.Model, body string) (int, string) {
	tb.Helper()
	resp, err := m.Infer(tb.Context(), &engine.Request{Body: []byte(body)})
	if err != nil {
		tb.Fatal(err)
	}
	return resp.Status, string(resp.Body)
}

func floats(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func TestTheEngineFulfilsTheContract(t *testing.T) {
	for name, aux := range map[string]any{"one by one": nil, "batched": map[string]any{"max_batch_size": 16.0}} {
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, enginetest.Engine{
				Loader: newEngine(t),
				Answers: enginetest.Endpoint{
					Spec:    specOf("plus_one.onnx", aux),
					Request: func(i int) *engine.Request { return &engine.Request{Body: fmt.Appendf(nil, "[[%d,0,0.5]]", i)} },
					Want:    func(i int) string { return fmt.Sprintf("[[%d.0,1.0,1.5]]", i+1) },
				},
				Waits: &enginetest.Endpoint{
					Spec: specOf("loop.onnx", nil),
					Request: func(int) *engine.Request {
						return &engine.Request{Body: []byte(`{"times":9223372036854775807,"start":[0]}`)}
					},
				},
				Tensors: &enginetest.Endpoint{
					Spec: specOf("plus_one.onnx", aux),
					Request: func(int) *engine.Request {
						return &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 3}, Data: floats(1, 2, 3)}}}
					},
				},
				Broken: &enginetest.Endpoint{Spec: specOf("answers.json", nil)},
			})
		})
	}
}

type answers map[string]struct {
	X             [][]float32
	Rows          [][]any
	Labels        []any
	Probabilities [][]float64
}

func known(tb testing.TB) (a answers) {
	tb.Helper()
	b, err := os.ReadFile(models + "answers.json")
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		tb.Fatal(err)
	}
	return a
}

func near(got, want []float64) bool {
	return slices.EqualFunc(got, want, func(g, w float64) bool { return math.Abs(g-w) < 1e-5 })
}

func TestModelsOfScikitLearnAnswerAsInPython(t *testing.T) {
	e := newEngine(t)
	for name, want := range known(t) {
		t.Run(name, func(t *testing.T) {
			m := loaded(t, e, specOf(name+".onnx", nil))
			body, err := json.Marshal(want.X)
			if want.X == nil {
				records := []map[string]any{}
				for _, row := range want.Rows {
					records = append(records, map[string]any{"age": row[0], "city": row[1], "visits": row[2]})
				}
				body, err = json.Marshal(records)
			}
			if err != nil {
				t.Fatal(err)
			}
			status, text := ask(t, m, string(body))
			var got struct {
				Label         []any `json:"label"`
				OutputLabel   []any `json:"output_label"`
				Probabilities [][]float64
				Maps          []map[string]float64 `json:"output_probability"`
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 {
				t.Fatalf("%d %s", status, text)
			}
			if labels := slices.Concat(got.Label, got.OutputLabel); !slices.Equal(labels, want.Labels) {
				t.Errorf("labels %v, want %v", labels, want.Labels)
			}
			for i, row := range want.Probabilities {
				var p []float64
				if got.Maps != nil {
					classes := []string{"0", "1", "2"}
					if name == "zipmap_words" {
						classes = []string{"setosa", "versicolor", "virginica"}
					}
					for _, class := range classes {
						p = append(p, got.Maps[i][class])
					}
				} else {
					p = got.Probabilities[i]
				}
				if !near(p, row) {
					t.Errorf("row %d: %v, want %v", i, p, row)
				}
			}
		})
	}
}

func TestBodiesOfAllFormsAreAnswered(t *testing.T) {
	e := newEngine(t)
	for _, tc := range []struct {
		model, body, want string
		status            int
	}{
		{"plus_one.onnx", `[[1,2,3],[4,5,6]]`, `[[2.0,3.0,4.0],[5.0,6.0,7.0]]`, 200},
		{"plus_one.onnx", ` {"x": [[1, 2, null]] } `, `'y': a value is NaN, which JSON cannot say: set --aux-config nan_as_null=true`, 500},
		{"plus_one.onnx", `[]`, `[]`, 200},
		{"plus_one.onnx", `[[1,2]]`, `{"detail":"input 'x' has the shape [1 2]: the model takes [? 3]"}`, 422},
		{"plus_one.onnx", `[[1,2,3],[4]]`, `different lengths`, 422},
		{"plus_one.onnx", `[[1,2,"a"]]`, `input 'x', value 2 (of type FP32) is no number: \"a\"`, 422},
		{"plus_one.onnx", `{"z": 1}`, `the model has no input 'z': its inputs are 'x'`, 422},
		{"plus_one.onnx", `{}`, `the body has no 'x'`, 422},
		{"plus_one.onnx", `[[1,2,3]`, `"json_invalid"`, 422},
		{"plus_one.onnx", ``, `the body is empty`, 422},
		{"plus_one.onnx", `[[1,2,3]] 4`, `Extra data`, 422},
		{"scaled.onnx", `{"factor": 2, "x": [[1,2,3]]}`, `[[2.0,4.0,6.0]]`, 200},
		{"scaled.onnx", `[[1,2,3]]`, `the body is not an object: the model has the inputs 'x', 'factor'`, 422},
		{"columns.onnx", `{"age":20,"city":"a","visits":1}`, `"label":[0]`, 200},
		{"columns.onnx", `{"age":[20,30],"city":["a","b"],"visits":[1,2]}`, `"label":[0,1]`, 200},
		{"columns.onnx", `{"age":[[20]],"city":[["a"]],"visits":[[1]]}`, `"label":[0]`, 200},
		{"columns.onnx", `[{"age":20,"city":"a"}]`, `row 0 has no 'visits'`, 422},
		{"columns.onnx", `[{"age":20,"city":"a","visits":1.5}]`, `input 'visits', value 0 (of type INT64) is no such number: 1.5`, 422},
		{"columns.onnx", `[{"age":20,"city":7,"visits":1}]`, `input 'city' (of type BYTES) is no text: 7`, 422},
		{"columns.onnx", `[{"age":20,"age":20,"city":"a","visits":1}]`, `the body has 'age' twice`, 422},
		{"parts.onnx", `[[1,2],[3,4]]`, `[[[1.0,2.0]],[[3.0,4.0]]]`, 200},
	} {
		t.Run(tc.model+tc.body, func(t *testing.T) {
			if status, body := ask(t, loaded(t, e, specOf(tc.model, nil)), tc.body); status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%d %s, want %d %s", status, body, tc.status, tc.want)
			}
		})
	}
	m := loaded(t, e, specOf("plus_one.onnx", map[string]any{"nan_as_null": true}))
	if status, body := ask(t, m, `[[1,2,null]]`); status != 200 || body != `[[2.0,3.0,null]]` {
		t.Errorf("%d %s", status, body)
	}
}

func TestTheSignatureIsThatOfTheModel(t *testing.T) {
	e := newEngine(t)
	s := loaded(t, e, specOf("columns.onnx", nil)).Signature()
	if !s.Table || len(s.Inputs) != 3 || s.Inputs[1].Name != "city" || s.Inputs[1].Datatype != engine.Bytes || !slices.Equal(s.Inputs[1].Shape, []int64{-1, 1}) {
		t.Errorf("%+v", s)
	}
	if string(s.Example) != `{"age":1.0,"city":"a","visits":1}` {
		t.Errorf("%s", s.Example)
	}
	for _, name := range []string{"columns.onnx", "logistic.onnx", "zipmap.onnx", "scaled.onnx", "all_types.onnx"} {
		m := loaded(t, e, specOf(name, nil))
		if status, body := ask(t, m, string(m.Signature().Example)); status != 200 {
			t.Errorf("%s: the example %s is answered %d %s", name, m.Signature().Example, status, body)
		}
	}
	out := loaded(t, e, specOf("zipmap.onnx", nil)).Signature().Outputs
	if len(out) != 2 || out[1].Datatype != engine.FP32 || !slices.Equal(out[1].Shape, []int64{-1, -1}) {
		t.Errorf("%+v", out)
	}
}

func TestTensorsAreCheckedAgainstTheModel(t *testing.T) {
	e := newEngine(t)
	m := loaded(t, e, specOf("columns.onnx", nil))
	text := func(s string) []byte { return append(binary.LittleEndian.AppendUint32(nil, uint32(len(s))), s...) }
	good := func() []engine.Tensor {
		return []engine.Tensor{
			{Name: "visits", Datatype: engine.Int64, Shape: []int64{1, 1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0}},
			{Name: "age", Datatype: engine.FP32, Shape: []int64{1, 1}, Data: floats(20)},
			{Name: "city", Datatype: engine.Bytes, Shape: []int64{1, 1}, Data: text("a")},
		}
	}
	resp, err := m.Infer(t.Context(), &engine.Request{Tensors: good()})
	if err != nil || len(resp.Tensors) != 2 || resp.Tensors[0].Name != "label" || resp.Tensors[1].Datatype != engine.FP32 {
		t.Fatalf("%+v, %v", resp, err)
	}
	for name, tc := range map[string]struct {
		change func(in []engine.Tensor) []engine.Tensor
		want   string
	}{
		"missing":       {func(in []engine.Tensor) []engine.Tensor { return in[:2] }, "no input 'city'"},
		"twice":         {func(in []engine.Tensor) []engine.Tensor { return append(in, in[0]) }, "'visits' is there twice"},
		"another type":  {func(in []engine.Tensor) []engine.Tensor { in[1].Datatype = engine.FP64; return in }, "is of type FP64: the model takes FP32"},
		"another shape": {func(in []engine.Tensor) []engine.Tensor { in[1].Shape = []int64{1}; return in }, "the model takes [? 1]"},
		"negative":      {func(in []engine.Tensor) []engine.Tensor { in[1].Shape = []int64{-1, 1}; return in }, "no tensor has"},
		"short":         {func(in []engine.Tensor) []engine.Tensor { in[1].Data = in[1].Data[:3]; return in }, "needs 4"},
		"short text":    {func(in []engine.Tensor) []engine.Tensor { in[2].Data = in[2].Data[:4]; return in }, "fewer strings"},
		"no UTF-8":      {func(in []engine.Tensor) []engine.Tensor { in[2].Data = text("\xff"); return in }, "not valid UTF-8"},
		"other rows": {func(in []engine.Tensor) []engine.Tensor {
			in[1].Shape, in[1].Data = []int64{2, 1}, floats(1, 2)
			return in
		}, ""},
	} {
		_, err := m.Infer(t.Context(), &engine.Request{Tensors: tc.change(good())})
		if failed, ok := errors.AsType[*engine.Error](err); !ok || !strings.Contains(err.Error(), tc.want) || tc.want != "" && failed.Kind != engine.KindBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMapsAreATableForClientsOfTensors(t *testing.T) {
	m := loaded(t, newEngine(t), specOf("zipmap_words.onnx", nil))
	resp, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{{Name: "X", Datatype: engine.FP32, Shape: []int64{2, 4}, Data: floats(5, 3, 1, 0, 6, 3, 5, 2)}}})
	if err != nil || len(resp.Tensors) != 2 || resp.Tensors[0].ContentType != "str" || !slices.Equal(resp.Tensors[1].Shape, []int64{2, 3}) || len(resp.Tensors[1].Data) != 24 {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestRequestsAreComputedTogether(t *testing.T) {
	e := newEngine(t)
	m := loaded(t, e, specOf("zipmap.onnx", map[string]any{"max_batch_size": 64.0, "dynamic_batching": map[string]any{"max_queue_delay_microseconds": 20000.0}}))
	want := known(t)["zipmap"]
	var all sync.WaitGroup
	for client := range 32 {
		all.Go(func() {
			i := client % len(want.X)
			body, err := json.Marshal(want.X[i : i+1])
			if err != nil {
				t.Error(err)
				return
			}
			status, text := ask(t, m, string(body))
			if label := fmt.Sprintf(`"output_label":[%v]`, want.Labels[i]); status != 200 || !strings.Contains(text, label) {
				t.Errorf("%d %s, want %s", status, text, label)
			}
		})
	}
	all.Wait()
	if r := m.Status().Batching; r == nil || r.Batches >= 32 || r.Batches == 0 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"loop.onnx", "parts.onnx", "scaled.onnx"} {
		if _, err := e.Load(t.Context(), specOf(name, map[string]any{"max_batch_size": 8.0})); err == nil || !strings.Contains(err.Error(), "no first dimension") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAModelThatCrashesCostsItsTrialOnly(t *testing.T) {
	e := newEngine(t)
	file := filepath.Join(t.TempDir(), "crashes.onnx")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := specOf("", nil)
	spec.ModelPath = file
	_, err := e.Load(t.Context(), spec)
	failed, ok := errors.AsType[*engine.LoadError](err)
	if !ok || !failed.Final || !strings.Contains(failed.Text, "crashes.onnx was tried in a process of its own") || !strings.Contains(failed.Text, "SIGSEGV") {
		t.Errorf("%#v", err)
	}
}

func TestOnlyACrashOfTheModelIsFinal(t *testing.T) {
	for name, tc := range map[string]struct {
		death process.Death
		want  bool
	}{
		"a fault in native code":            {process.Death{Code: 2, LastLines: []string{"SIGSEGV: segmentation violation", "PC=0x0 m=0"}}, true},
		"a signal":                          {process.Death{Code: -1, Signal: syscall.SIGSEGV}, true},
		"a panic of ours":                   {process.Death{Code: 2, LastLines: []string{"panic: runtime error: index out of range", ""}}, true},
		"killed":                            {process.Death{Code: -1, Signal: syscall.SIGKILL}, false},
		"no memory":                         {process.Death{Code: 2, LastLines: []string{"fatal error: runtime: out of memory"}}, false},
		"no thread":                         {process.Death{Code: 2, LastLines: []string{"pthread_create failed", "SIGABRT: abort"}}, false},
		"no thread for Go":                  {process.Death{Code: 2, LastLines: []string{"fatal error: newosproc"}}, false},
		"a limit that cannot be set":        {process.Death{Code: 1, LastLines: []string{"limit the memory of this process: operation not permitted"}}, false},
		"another program in our file":       {process.Death{Code: 2, LastLines: []string{"unknown command: onnx-trial"}}, false},
		"an end without a word or a reason": {process.Death{}, false},
	} {
		if got := crashed(tc.death); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAModelThatNeedsTooMuchMemoryIsRefused(t *testing.T) {
	e := newEngine(t)
	spec := specOf("forest.onnx", nil)
	spec.Limits = &serving.Limits{Memory: 100}
	if _, err := e.Load(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "models may use 100 B here") {
		t.Error(err)
	}
	m := loaded(t, e, specOf("square.onnx", nil))
	_, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.FP32, Shape: []int64{1 << 16}, Data: make([]byte, 4<<16)}}}) // 16 GB
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindTooLarge {
		t.Error(err)
	}
	if status, body := ask(t, m, "[1,2,3]"); status != 200 || body != "0.0" {
		t.Errorf("%d %s", status, body)
	}
}

func TestWhatCannotBeLoadedSaysWhy(t *testing.T) {
	e := newEngine(t)
	folder := t.TempDir()
	for name, tc := range map[string]struct {
		spec  engine.Spec
		want  string
		final bool
	}{
		"no model":        {engine.Spec{URL: "m", Endpoint: serving.Endpoint{EngineType: serving.EngineONNX}}, "needs a model", true},
		"an empty folder": {engine.Spec{URL: "m", ModelPath: folder, Endpoint: serving.Endpoint{EngineType: serving.EngineONNX}}, "no file with the ending .onnx", true},
		"several models":  {specOf("", nil), "name the one to serve model.onnx", true},
		"no model at all": {specOf("answers.json", nil), "answers.json cannot be loaded", true},
		"data elsewhere":  {specOf("escapes", nil), "escapes", true},
		"no GPU":          {specOf("plus_one.onnx", map[string]any{"providers": "CUDAExecutionProvider"}), "this ONNX Runtime has no CUDAExecutionProvider", false},
		"a wrong setting": {specOf("plus_one.onnx", map[string]any{"threads": "many"}), "auxiliary_cfg.threads", true},
	} {
		_, err := e.Load(t.Context(), tc.spec)
		if failed, ok := errors.AsType[*engine.LoadError](err); !ok || failed.Final != tc.final || !strings.Contains(failed.Text, tc.want) {
			t.Errorf("%s: %#v", name, err)
		}
	}
	e.o.Find = func(context.Context) (string, error) { return "", errors.New("there is no ONNX Runtime: get one") }
	if _, err := e.Load(t.Context(), specOf("plus_one.onnx", nil)); err == nil || !strings.Contains(err.Error(), "get one") {
		t.Error(err)
	}
}

func TestRunsOfAllModelsShareTheCores(t *testing.T) {
	e := newEngine(t)
	m := loaded(t, e, specOf("loop.onnx", map[string]any{"threads": 1000.0 / 4}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			_, err := m.Infer(ctx, &engine.Request{Body: []byte(`{"times":9223372036854775807,"start":[0]}`)})
			if err == nil {
				t.Error("an endless loop has ended")
			}
		})
	}
	for end := time.Now().Add(2 * time.Minute); m.Status().Queued < 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if q := m.Status().Queued; q != 3 {
		t.Errorf("%d wait", q)
	}
	if e.slots.TryAcquire(1) {
		t.Error("a run with all threads leaves a core to others")
	}
	short, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	_, err := m.Infer(short, &engine.Request{Body: []byte(`{"times":1,"start":[0]}`)})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindDeadline {
		t.Error(err)
	}
	m.maxQueue = 3
	_, err = m.Infer(t.Context(), &engine.Request{Body: []byte(`{"times":1,"start":[0]}`)})
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindOverloaded {
		t.Error(err)
	}
	cancel()
	all.Wait()
	if status, body := ask(t, m, `{"times":3,"start":[0]}`); status != 200 || body != "[3.0]" {
		t.Errorf("%d %s", status, body)
	}
}

func TestSampledRequestsReportTheirVariables(t *testing.T) {
	spec := specOf("columns.onnx", nil)
	spec.Variables = []string{"age", "city", "label", "nothing"}
	m := loaded(t, newEngine(t), spec)
	req := &engine.Request{Body: []byte(`{"age":20,"city":"a","visits":1}`), Sampled: true}
	resp, err := m.Infer(t.Context(), req)
	if err != nil || string(resp.Stats) != `{"age":20.0,"city":"a","label":0}` {
		t.Errorf("%s, %v", resp.Stats, err)
	}
	req.Body = []byte(`[{"age":20,"city":"a","visits":1},{"age":30,"city":"b","visits":2}]`)
	if resp, err = m.Infer(t.Context(), req); err != nil || string(resp.Stats) != `{"age":[[20.0],[30.0]],"city":[["a"],["b"]],"label":[0,1]}` {
		t.Errorf("%s, %v", resp.Stats, err)
	}
	if err := m.SetVariables([]string{"visits"}); err != nil {
		t.Fatal(err)
	}
	if resp, err = m.Infer(t.Context(), req); err != nil || string(resp.Stats) != `{"visits":[[1],[2]]}` {
		t.Errorf("%s, %v", resp.Stats, err)
	}
	req.Sampled = false
	if resp, err = m.Infer(t.Context(), req); err != nil || resp.Stats != nil {
		t.Errorf("%s, %v", resp.Stats, err)
	}
}
