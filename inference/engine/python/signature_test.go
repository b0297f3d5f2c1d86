package python

import (
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

func TestTheSignatureComesFromTheCodeAndTheSettings(t *testing.T) {
	e := running(t)
	for name, tc := range map[string]struct {
		code           string
		body, source   string
		example        string
		workers, input int
	}{
		"hints": {
			code: "from typing import List\nclass Preprocess:\n    def preprocess(self, body: List[float], state, c=None): return body\n",
			body: `{"type": "array", "items": {"type": "number"}}`, source: engine.SourceHints, example: `[0.0]`, workers: 1,
		},
		"hints, several workers": {
			code: "class Preprocess:\n    def process(self, data: dict, state, c=None): return data\n",
			body: `{"type": "object"}`, source: "settings, type hints", workers: 2, input: 1,
		},
		"an annotation that exits": {
			code:   "from __future__ import annotations\nclass Preprocess:\n    def process(self, data: __import__('sys').exit(3), state, c=None): return data\n",
			source: engine.SourceNone, workers: 1,
		},
		"nothing": {code: "class Preprocess:\n    def process(self, data, state, c=None): return data\n", source: "settings", workers: 1, input: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "preprocess.py")
			if err := os.WriteFile(file, []byte(tc.code), 0o600); err != nil {
				t.Fatal(err)
			}
			spec := specOf("e", file, nil)
			spec.Limits = &serving.Limits{MaxWorkers: tc.workers, MinWorkers: &tc.workers}
			if tc.input > 0 {
				spec.Endpoint.InputName, spec.Endpoint.InputType = []string{"x"}, []string{"float32"}
			}
			m, err := e.Load(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = m.Close(t.Context()) }()
			s := m.(engine.Signed).Signature()
			if s.Source != tc.source || string(s.BodySchema) != tc.body || string(s.Example) != tc.example || len(s.Inputs) != tc.input {
				t.Errorf("%+v", s)
			}
		})
	}
}
