package onnx

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python/pythontest"
)

const around = `class Preprocess:
    def preprocess(self, body, state, collect_custom_statistics_fn=None):
        if "wrong" in body:
            return body["wrong"]
        state["unit"] = body["unit"]
        return [[body["a"], body["b"], body["c"]]]

    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"unit": state["unit"], "sum": float(data[0][0]) + float(data[0][1]) + float(data[0][2])}
`

func TestCodeRunsAroundTheModel(t *testing.T) {
	for name, aux := range map[string]any{"one by one": nil, "batched": map[string]any{"max_batch_size": 8.0}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.o.Python = pythontest.Start(t, nil)
			spec := specOf("plus_one.onnx", aux)
			spec.CodePath, spec.CodeName = filepath.Join(t.TempDir(), "preprocess.py"), "py_code_m"
			if err := os.WriteFile(spec.CodePath, []byte(around), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := e.Prepare(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
			m, err := e.Load(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			for body, want := range map[string]string{
				`{"a":1,"b":2,"c":3,"unit":"kg"}`: `200 {"unit":"kg","sum":9.0}`,
				`{"wrong":[[1,2]]}`:               `422 {"detail":"Error [<class 'ValueError'>] processing request: `,
				`{"a":1,"b":2,"unit":"kg"}`:       `500 {"detail":"Error  [<class 'KeyError'>] processing request: 'c'`,
			} {
				resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(body), ContentType: "application/json"})
				if err != nil {
					t.Fatal(err)
				}
				if got := fmt.Sprintf("%d %s", resp.Status, resp.Body); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %s, want %s", body, got, want)
				}
			}
			r := m.Status()
			if batched := r.Batching != nil; batched != (aux != nil) || batched && r.Batching.Batches == 0 || len(r.Warnings) > 0 {
				t.Errorf("%+v", r)
			}
			if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCodeGetsTextsOfTheModel(t *testing.T) {
	e := newEngine(t)
	e.o.Python = pythontest.Start(t, nil)
	spec := specOf("zipmap_words.onnx", nil)
	spec.CodePath, spec.CodeName = filepath.Join(t.TempDir(), "preprocess.py"), "py_code_m"
	code := `class Preprocess:
    def postprocess(self, data, state, collect_custom_statistics_fn=None):
        return {"virginica": "the third"}[data[0][0]]
`
	if err := os.WriteFile(spec.CodePath, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := e.Load(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`[[1,2,3,4]]`), ContentType: "application/json"})
	if err != nil || resp.Status != 200 || string(resp.Body) != `"the third"` {
		t.Errorf("%+v, %v", resp, err)
	}
	if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}
