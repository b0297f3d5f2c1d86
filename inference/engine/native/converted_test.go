package native

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine/onnx"
	"clearmlserving/process"
	"clearmlserving/serving"
)

// converting is running with an interpreter that has skl2onnx, and with ONNX Runtime.
func converting(t *testing.T) *world {
	t.Helper()
	name, library := os.Getenv("CLEARML_SERVING_TEST_CONVERT"), os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME")
	if name == "" || library == "" {
		t.Skip("CLEARML_SERVING_TEST_CONVERT and CLEARML_SERVING_TEST_ONNXRUNTIME name no Python with skl2onnx and no ONNX Runtime")
	}
	w := runningOn(t, name)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	find := func(context.Context) (string, error) { return library, nil }
	w.Engine.o.ONNX = onnx.New(onnx.Options{Find: find, Trial: []string{self, trialWord}, Logger: slog.New(slog.DiscardHandler)})
	w.Engine.o.ONNXRuntime = find
	return w
}

// others fits models without a native form, and returns their folder.
func others(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	child, err := process.Start(t.Context(), process.Spec{
		Path: os.Getenv("CLEARML_SERVING_TEST_CONVERT"), Args: []string{"-B", "testdata/others.py", dir}, Env: []string{"PATH=" + os.Getenv("PATH"), "OMP_NUM_THREADS=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatal(d)
	}
	return dir
}

func TestAModelWithoutANativeFormIsConvertedIfItsAnswersAgree(t *testing.T) {
	w, dir := converting(t), others(t)
	for _, tc := range []struct{ name, method, accelerate string }{
		{"neighbors", "predict", "true"}, {"neighbors", "predict_proba", "auto"}, {"bayes", "predict_proba", "true"}, {"network", "predict", "true"}, {"words", "predict", "true"},
	} {
		t.Run(tc.name+" "+tc.method, func(t *testing.T) {
			spec := specOf(dir, tc.name, map[string]any{"accelerate": tc.accelerate, "method": tc.method})
			recorded := `[[0.5, 1, -0.25, 2]]`
			spec.Recorded = func() []serving.Exchange {
				return []serving.Exchange{{Time: time.Now(), Body: []byte(recorded), ContentType: "application/json"}, {Body: []byte(`{"a":1}`)}, {Body: []byte("x")}}
			}
			m := load(t, w, spec)
			n := m.Status().Native
			if !n.On || n.By != byONNX || n.Tolerance != convertedTolerance || len(n.Checks) != 5 || n.Checks[4].Rows != recordedRows || n.Checks[4].Count != 1 {
				t.Fatalf("%+v", n)
			}
			compared, differ, _ := n.Compared()
			if compared < 1000 || differ != 0 {
				t.Errorf("%d compared, %d differ", compared, differ)
			}
			inPython := load(t, w.python, spec)
			for _, body := range []string{recorded, `[[1,2,3,4],[0,0,0,0],[-1.5,2.25,1e-3,9]]`, `[[1,2,3]]`, `[[1,2,3,null]]`, `[]`, `{"x":1}`} {
				want, got := ask(t, inPython, body), ask(t, m, body)
				if want.Status != got.Status || !alike(want.Body, got.Body) {
					t.Errorf("%s: %d %s, want %d %s", body, got.Status, got.Body, want.Status, want.Body)
				}
			}
			if n := m.Status().Native; n.Native != 2 || n.Fallback != 4 {
				t.Errorf("%d by ONNX Runtime, %d by Python", n.Native, n.Fallback)
			}
			// The result is kept: the next load starts no process.
			started := 0
			w.Engine.o.started = nil
			if again := load(t, w, spec).Status().Native; !again.Proven.Equal(n.Proven) {
				t.Errorf("proven again: %d", started)
			}
		})
	}
}

func TestAModelThatCannotBeConvertedSaysBothReasons(t *testing.T) {
	w, dir := converting(t), others(t)
	for name, want := range map[string]string{
		"own":      "skl2onnx does not convert it", // a class of its own
		"shifting": "differs from the endpoint's Python",
	} {
		m := load(t, w, specOf(dir, name, map[string]any{"accelerate": "auto"}))
		n := m.Status().Native
		if n.On || !strings.Contains(n.Reason, "; nor by ONNX Runtime: ") || !strings.Contains(n.Reason, want) {
			t.Errorf("%s: %+v", name, n)
		}
		if got := ask(t, m, `[[1,2,3,4]]`); got.Status != 200 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
		if _, err := w.Load(t.Context(), specOf(dir, name, map[string]any{"accelerate": "true"})); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(w.Engine.o.Dir, "*.onnx"))
	if err != nil || len(files) > 0 {
		t.Errorf("kept %q", files)
	}
}

// Recorded requests are rows of the proof of a model in Go too.
func TestRecordedRequestsAreComparedAtTheProof(t *testing.T) {
	w := running(t)
	dir := fitted(t, "forest")
	spec := specOf(dir, "forest", with(""))
	var recorded []serving.Exchange
	for i, body := range bodiesOf(t, dir, "forest")[:20] {
		recorded = append(recorded, serving.Exchange{Time: time.Unix(int64(i), 0), Body: []byte(body), ContentType: "application/json"})
	}
	recorded = append(recorded, serving.Exchange{Body: []byte(`no JSON`)}, serving.Exchange{Body: []byte(`x`), ContentType: "text/plain"})
	spec.Recorded = func() []serving.Exchange { return recorded }
	checks := load(t, w, spec).Status().Native.Checks
	for _, c := range checks {
		if c.Rows == recordedRows {
			if c.Count < 20 || c.Differ != 0 {
				t.Errorf("%+v", c)
			}
			return
		}
	}
	t.Errorf("no recorded requests in %+v", checks)
}

func TestAnswersAreAlikeWithinTheTolerance(t *testing.T) {
	for _, tc := range []struct {
		want, got string
		alike     bool
	}{
		{`[1,2]`, `[1, 2.0000001]`, true},
		{`[1,2]`, `[1,2.1]`, false},
		{`[[1],[2]]`, `[1,2]`, false},
		{`["a"]`, `["a"]`, true},
		{`["a"]`, `["b"]`, false},
		{`[1]`, `["1"]`, false},
		{`[1]`, `[1,2]`, false},
		{`{"detail":1}`, `[1]`, false},
		{`[null]`, `[null]`, true},
		{`[1000000]`, `[1000000.5]`, true},
		{`[1]`, `[1`, false},
	} {
		if alike([]byte(tc.want), []byte(tc.got)) != tc.alike {
			t.Errorf("%s, %s: not %t", tc.want, tc.got, tc.alike)
		}
	}
	body := rowsBody([]float64{1, 2.5, 3, -4}, 2)
	if !json.Valid(body) || !onlyNumbers(body) || string(body) != "[[1.0,2.5],[3.0,-4.0]]" {
		t.Error(string(body))
	}
	for body, want := range map[string]bool{`[[1e-3, 2]]`: true, `[[null]]`: false, `[{"a":1}]`: false, `[[true]]`: false, `[[NaN]]`: false, "": false, "[]": false} {
		if onlyNumbers([]byte(body)) != want {
			t.Error(fmt.Sprint(body, want))
		}
	}
}
