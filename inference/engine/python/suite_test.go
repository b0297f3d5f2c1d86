package python

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
)

// suiteCode is the code of the suite's endpoints.
var suiteCode = map[string]string{
	"answers": "def process(self, data, state, collect):\n        return data",
	"waits":   "def process(self, data, state, collect):\n        import time\n        time.sleep(3600)",
	"refuses": "def process(self, data, state, collect):\n        raise ValueError('no')",
	"streams": "def process(self, data, state, collect):\n        return (str(i) for i in range(3))",
	"broken":  "def load(self, path):\n        raise KeyError('weights')",
}

func TestPythonFulfilsTheContractOfEngines(t *testing.T) {
	at := func(name string, want func(int) string) *enginetest.Endpoint {
		code := filepath.Join(t.TempDir(), "preprocess.py")
		if err := os.WriteFile(code, []byte("class Preprocess:\n    "+suiteCode[name]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		spec := specOf(name, code, nil)
		spec.Endpoint.InputName, spec.Endpoint.InputType, spec.Endpoint.InputSize = []string{"x"}, []string{"float32"}, []any{[]any{-1.0, 4.0}}
		return &enginetest.Endpoint{Spec: spec, Want: want, Request: func(i int) *engine.Request {
			return &engine.Request{ID: fmt.Sprint(i), Body: fmt.Appendf(nil, `{"n":%d}`, i), ContentType: "application/json"}
		}}
	}
	python := running(t)
	tensors := at("answers", nil)
	tensors.Request = func(i int) *engine.Request {
		return &engine.Request{ID: fmt.Sprint(i), Tensors: []engine.Tensor{{Name: "x", Datatype: engine.Uint8, Shape: []int64{1, 2}, Data: []byte{1, 2}}}}
	}
	enginetest.Run(t, enginetest.Engine{
		Loader:  python,
		Answers: *at("answers", func(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }),
		Waits:   at("waits", nil), Refuses: at("refuses", nil), Broken: at("broken", nil), BrokenByUser: true,
		Streams: at("streams", func(int) string { return "012" }), Tensors: tensors,
	})
	_, err := python.Load(t.Context(), at("broken", nil).Spec)
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || failed.Cause != "KeyError: 'weights'" || failed.Text != "Failed loading preprocess code for 'py_code_broken': KeyError: 'weights'" {
		t.Errorf("the code at fault is named by a field and not by the text alone: %#v", err)
	}
}
