package native

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/onnx"
	"clearmlserving/inference/engine/python"
	"clearmlserving/leaktest"
	"clearmlserving/process"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == trialWord { // this program tries ONNX models
		os.Exit(onnx.Trial(context.Background(), os.Args[2], os.Stdout, os.Stderr))
	}
	leaktest.Main(m)
}

const trialWord = "try-a-model"

// world is an Engine with the interpreter of the machine, and the Python engine that it wraps.
type world struct {
	*Engine

	python *python.Engine
}

func running(tb testing.TB) *world {
	tb.Helper()
	name := os.Getenv("CLEARML_SERVING_TEST_TABLES")
	if name == "" {
		tb.Skip("CLEARML_SERVING_TEST_TABLES names no interpreter with scikit-learn and pandas")
	}
	w := runningOn(tb, name)
	base, err := w.o.Host.Environment(tb.Context(), false, "")
	if err != nil {
		tb.Fatal(err)
	}
	if _, ok := base.Packages["pandas"]; !ok {
		tb.Fatal("the interpreter has no pandas: that of make venv-runtime has")
	}
	return w
}

// runningOn is running with an interpreter.
func runningOn(tb testing.TB, name string) *world {
	tb.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tb.TempDir()}
	base, err := worker.FindEnvironment(tb.Context(), worker.Search{Candidates: []string{name}, Env: env})
	if err != nil {
		tb.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	runtime := tb.TempDir()
	h := host.New(host.Options{
		Find:   func(context.Context) (*worker.Environment, error) { return base, nil },
		Worker: worker.Options{RuntimeDir: runtime, ZygoteEnv: env, Logger: log},
		Env:    env,
	})
	w := &world{python: python.New(python.Options{Host: h})}
	w.Engine = New(Options{Python: w.python, Workers: w.python, Host: h, Dir: filepath.Join(tb.TempDir(), "native"), RuntimeDir: runtime, Logger: log})
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	var run sync.WaitGroup
	run.Go(func() {
		if err := w.python.Run(ctx, nil); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() {
		cancel()
		run.Wait()
	})
	return w
}

// fitted fits models of testdata/models.py, and returns their folder.
func fitted(tb testing.TB, names ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	var mu sync.Mutex
	var said strings.Builder
	child, err := process.Start(tb.Context(), process.Spec{
		Path: os.Getenv("CLEARML_SERVING_TEST_TABLES"), Args: append([]string{"-B", "testdata/models.py", dir}, names...), Env: []string{"PATH=" + os.Getenv("PATH"), "OMP_NUM_THREADS=1"},
		LogLine: func(_ process.Stream, line []byte) {
			mu.Lock()
			defer mu.Unlock()
			said.Write(append(line, '\n'))
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		tb.Fatal(d.Detail(), said.String())
	}
	return dir
}

func specOf(dir, name string, aux map[string]any) engine.Spec {
	kind, ending := serving.EngineSklearn, ".pkl"
	switch {
	case strings.HasPrefix(name, "xgb_"):
		kind, ending = serving.EngineXGBoost, ".json"
	case strings.HasPrefix(name, "lgb_"):
		kind, ending = serving.EngineLightGBM, ".txt"
	}
	return engine.Spec{
		URL: serving.EndpointURL(name), ModelPath: filepath.Join(dir, name+ending),
		Endpoint: serving.Endpoint{EngineType: kind, ServingURL: name, AuxiliaryCfg: aux},
	}
}

func bodiesOf(tb testing.TB, dir, name string) (bodies []string) {
	tb.Helper()
	f, err := os.Open(filepath.Join(dir, name+".bodies"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var body string
		if err := json.Unmarshal(lines.Bytes(), &body); err != nil {
			tb.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	return bodies
}

func load(tb testing.TB, loader engine.Loader, spec engine.Spec) engine.Model {
	tb.Helper()
	m, err := loader.Load(tb.Context(), spec)
	if err != nil {
		tb.Fatalf("%s: %v", spec.URL, err)
	}
	tb.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return m
}

func ask(tb testing.TB, m engine.Model, body string) *engine.Response {
	tb.Helper()
	resp, err := m.Infer(tb.Context(), &engine.Request{Body: []byte(body), ContentType: "application/json"})
	if err != nil {
		tb.Fatal(err)
	}
	return resp
}

func with(method string) map[string]any {
	aux := map[string]any{"accelerate": "true"}
	if method != "" {
		aux["method"] = method
	}
	return aux
}

// TestAnswersAreThoseOfPython asks each model with good and bad bodies, in Go and in Python.
func TestAnswersAreThoseOfPython(t *testing.T) {
	w := running(t)
	models := map[string][]string{
		"forest": {"", "predict_proba"}, "forest_words": {""}, "forest_missing": {"predict_proba"}, "forest_bool": {""}, "forest_float": {""},
		"forest_named": {"predict_proba"}, "forest_regressor": {""}, "extra_regressor": {""}, "tree": {"", "predict_proba"},
		"logistic": {"", "predict_proba", "decision_function"}, "logistic3": {"", "predict_proba"}, "linear": {""}, "linear2": {""}, "ridge": {""}, "lasso": {""},
		"elastic": {""}, "sgd": {"predict_proba"}, "sgd_regressor": {""}, "svc": {"", "decision_function"}, "svr": {""}, "ridge_classifier": {""},
		"scaler": {"transform"}, "scalers": {"transform"}, "imputed": {"predict_proba"}, "scaled_forest": {"predict_proba"}, "calibrated": {"predict_proba"}, "calibrated3": {"predict_proba"},
		"voting": {"", "predict_proba"}, "voting_regressor": {""}, "search": {"predict_proba"},
		"boosting": {"predict_proba"}, "histogram": {"predict_proba"}, "imputed_histogram": {""}, "isolation": {"score_samples"},
		"xgb_binary": {"", "predict_proba"}, "xgb_three": {"", "predict_proba"}, "xgb_named": {""}, "xgb_categories": {""}, "xgbpickle": {"", "predict_proba"},
		"lgb_binary": {""}, "lgb_three": {""}, "lgb_categories": {""},
		"columns": {"predict_proba"}, "columns_sparse": {"predict_proba"}, "columns_strict": {""}, "columns_forest": {"predict_proba"}, "ordinals": {"predict_proba"},
	}
	dir := fitted(t, keys(models)...)
	for name, methods := range models {
		for _, method := range methods {
			t.Run(name+" "+method, func(t *testing.T) {
				spec := specOf(dir, name, with(method))
				own := load(t, w, spec)
				inPython := load(t, w.python, spec)
				if m, ok := own.(*model); !ok || len(own.Status().Workers) > 0 {
					t.Fatalf("a process, or no Go: %+v", own.Status())
				} else if m.report.Checks == nil {
					t.Error("nothing has been compared")
				}
				for _, body := range bodiesOf(t, dir, name) {
					want, got := ask(t, inPython, body), ask(t, own, body)
					same := string(want.Body) == string(got.Body)
					if tolerance := own.Status().Native.Tolerance; !same && tolerance > 0 && want.Status == 200 {
						same = nearly(t, want.Body, got.Body, tolerance)
					}
					if want.Status != got.Status || want.ContentType != got.ContentType || want.Unread != got.Unread || !same {
						t.Errorf("%.200s: %d %.300s, want %d %.300s", body, got.Status, got.Body, want.Status, want.Body)
					}
				}
				compareTensors(t, own, inPython)
				native := own.Status().Native
				if native.Native < 20 {
					t.Errorf("%d requests were answered in Go, %d in Python (%v)", native.Native, native.Fallback, native.Python)
				}
				t.Logf("%d in Go, %d in Python, left %v, tensors %+v", native.Native, native.Fallback, native.Python, own.(*model).tensors)
			})
		}
	}
}

// TestLightGBMTakesWholeRowsAsFloat32: so do the answers in Go, or they are left to Python.
func TestLightGBMTakesWholeRowsAsFloat32(t *testing.T) {
	w := running(t)
	models := map[string]uint64{"lgb_times": 0, "lgbpickle": 0, "lgbvoting": 161} // left to Python
	dir := fitted(t, keys(models)...)
	for name, left := range models {
		spec := specOf(dir, name, with(""))
		own, inPython := load(t, w, spec), load(t, w.python, spec)
		var values []byte
		for i := range 40 {
			n := 1_600_000_000 + 10*i + 3
			for _, body := range []string{
				fmt.Sprintf("[[%d,%d,%d,%d,%d]]", n, n, n, n, n),
				fmt.Sprintf("[[%d,%d,%d,%d,%d.5]]", n, n, n, n, n),
				fmt.Sprintf("[[%d,%d,%d,%d,null]]", n, n, n, n),
				fmt.Sprintf("[[%d.0,%d,%d,%d,null]]", n, n, n, n),
				fmt.Sprintf("[[16777217,%d,3,4,5]]", i),
			} {
				if want, got := ask(t, inPython, body), ask(t, own, body); string(want.Body) != string(got.Body) || want.Status != got.Status {
					t.Errorf("%s: %s: %d %s, want %d %s", name, body, got.Status, got.Body, want.Status, want.Body)
				}
			}
			for range 5 {
				values = binary.LittleEndian.AppendUint64(values, uint64(n))
			}
		}
		req := &engine.Request{Tensors: []engine.Tensor{{Name: "input-0", Datatype: engine.Int64, Shape: []int64{40, 5}, Data: values}}}
		want, err := inPython.Infer(t.Context(), req)
		if err != nil || want.Status != 200 {
			t.Fatalf("%v %+v", err, want)
		}
		if got, err := own.Infer(t.Context(), req); err != nil || !bytes.Equal(got.Tensors[0].Data, want.Tensors[0].Data) {
			t.Errorf("%s: %v: %x, want %x", name, err, got.Tensors[0].Data, want.Tensors[0].Data)
		}
		if n := own.Status().Native; n.Fallback != left {
			t.Errorf("%s: %d in Go, %d in Python, not %d", name, n.Native, n.Fallback, left)
		}
	}
}

// compareTensors asks with tensors of rows, and of columns if they have names.
func compareTensors(t *testing.T, own, inPython engine.Model) {
	t.Helper()
	m := own.(*model)
	width := m.form.Width()
	rows := make([]float64, 3*width)
	for i := range rows {
		rows[i] = float64(i%7) - 2.5
	}
	c := &comparison{form: m.form, m: m.flat, at: m.at, writer: m.writer}
	questions := []*engine.Request{c.request(rows, 3, false, false), c.request(rows, 3, false, true), c.request(rows[:width], 1, false, false)}
	if m.form.named {
		for i := range rows { // as codes
			if m.form.values[i%width] != nil {
				rows[i] = float64(i % 2)
			}
		}
		questions = append(questions, c.request(rows, 3, true, false), c.request(rows[:width], 1, true, false))
		odd := c.request(rows, 3, true, false)
		odd.Tensors = odd.Tensors[1:]
		questions = append(questions, odd)
	}
	for i, q := range questions {
		if q == nil {
			t.Fatalf("tensors %d cannot be made", i)
		}
		want, err := inPython.Infer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := own.Infer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != want.Status || string(got.Body) != string(want.Body) && want.Tensors == nil || len(got.Tensors) != len(want.Tensors) {
			t.Errorf("tensors %d: %d %.200s, want %d %.200s", i, got.Status, got.Body, want.Status, want.Body)
			continue
		}
		for k, w := range want.Tensors {
			g := got.Tensors[k]
			same := bytes.Equal(g.Data, w.Data) || w.Datatype == engine.FP64 && nearNumbers(floatsOf(w.Data), floatsOf(g.Data), m.report.Tolerance)
			if g.Name != w.Name || g.Datatype != w.Datatype || g.ContentType != w.ContentType || !slices.Equal(g.Shape, w.Shape) || !same {
				t.Errorf("tensors %d: %+v, want %+v", i, g, w)
			}
		}
	}
}

func nearly(t *testing.T, a, b []byte, tolerance float64) bool {
	t.Helper()
	var numbers []float64
	flat := strings.NewReplacer("[", "", "]", "")
	if err := json.Unmarshal([]byte("["+flat.Replace(string(a))+"]"), &numbers); err != nil {
		return false
	}
	return near(b, numbers, tolerance)
}

func keys[V any](m map[string]V) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return names
}

func TestWhatCannotBeExactIsRefusedWithItsReason(t *testing.T) {
	w := running(t)
	reasons := map[string]string{
		"function": "a FunctionTransformer is computed in Python only", "bayes": "GaussianNB", "select": "a SelectKBest is computed in Python only",
		"hard": "it counts votes",
	}
	dir := fitted(t, keys(reasons)...)
	for name, reason := range reasons {
		_, err := w.Load(t.Context(), specOf(dir, name, with("")))
		failed, ok := errors.AsType[*engine.LoadError](err)
		if !ok || !failed.Final || !strings.Contains(failed.Text, reason) || !strings.Contains(failed.Text, "accelerate=auto") {
			t.Errorf("%s: %v", name, err)
		}
		m := load(t, w, specOf(dir, name, map[string]any{"accelerate": "auto"}))
		report := m.Status().Native
		if report == nil || report.On || !strings.Contains(report.Reason, reason) || len(m.Status().Workers) == 0 {
			t.Errorf("%s: %+v", name, report)
		}
		if got := ask(t, m, `[[1,2,3,4,5]]`); got.Status != 200 {
			t.Errorf("%s: %s", name, got.Body)
		}
	}
}
