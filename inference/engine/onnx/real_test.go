package onnx

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// tensorFile is a tensor that testdata/real.py has written.
type tensorFile struct {
	Name, Type, File string
	Shape            []int64
}

type realCase struct {
	Title, Model    string
	Inputs, Outputs []tensorFile
}

// results is the folder that testdata/real.py has filled.
func results(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("CLEARML_SERVING_TEST_ONNX")
	if folder == "" {
		t.Skip("CLEARML_SERVING_TEST_ONNX does not name a folder: make e2e-onnx")
	}
	return folder
}

func tensorsOf(t *testing.T, folder string, files []tensorFile) (all []engine.Tensor) {
	t.Helper()
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(folder, f.File))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, engine.Tensor{Name: f.Name, Datatype: engine.DatatypeOf(f.Type), Shape: f.Shape, Data: data})
	}
	return all
}

// Requests at once, also batched, get the bits that Python gets.
func TestRealModelsAnswerAsInPython(t *testing.T) {
	folder := results(t)
	e := newEngine(t)
	text, err := os.ReadFile(filepath.Join(folder, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []realCase
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) < 15 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Title, func(t *testing.T) {
			spec := specOf("", nil)
			spec.ModelPath = c.Model
			m := loaded(t, e, spec)
			in, want := tensorsOf(t, folder, c.Inputs), tensorsOf(t, folder, c.Outputs)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					resp, err := m.Infer(t.Context(), &engine.Request{Tensors: in})
					if err != nil || len(resp.Tensors) != len(want) {
						t.Errorf("%+v, %v", resp, err)
						return
					}
					for i, got := range resp.Tensors {
						if got.Name != want[i].Name || got.Datatype != want[i].Datatype || !slices.Equal(got.Shape, want[i].Shape) || !bytes.Equal(got.Data, want[i].Data) {
							t.Errorf("%s: %s %v differs from Python's %s %v", got.Name, got.Datatype, got.Shape, want[i].Datatype, want[i].Shape)
						}
					}
				})
			}
			all.Wait()
			t.Logf("%s; example %d bytes, warnings %q", c.Model, len(m.Signature().Example), m.Status().Warnings)
		})
	}
}

func TestBrokenModelsCostATrialAtMost(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(results(t), "broken_*.onnx"))
	if err != nil || len(files) < 30 {
		t.Fatal(len(files), err)
	}
	e := newEngine(t)
	refused, answered := 0, 0
	for _, file := range files {
		spec := specOf("", nil)
		spec.ModelPath = file
		m, err := e.Load(t.Context(), spec)
		if err != nil {
			refused++
			t.Logf("%s: %v", filepath.Base(file), err)
			continue
		}
		_, err = m.Infer(t.Context(), &engine.Request{Body: []byte("[[5,3,1,0],[6,3,5,2]]")})
		answered++
		t.Logf("%s: loaded, %v", filepath.Base(file), err)
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d refused, %d loaded", refused, answered)
}

// memory is the resident memory of this process in kB.
func memory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMemoryStaysFlatOverTwoHundredLoads(t *testing.T) {
	folder := results(t)
	e := newEngine(t)
	text, err := os.ReadFile(filepath.Join(folder, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []realCase
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	large := slices.DeleteFunc(cases, func(c realCase) bool {
		return c.Title != "text recognition" && c.Title != "file type" && c.Title != "speech 0"
	})
	cycle := func(k int) {
		c := large[k%len(large)]
		m, err := e.load(t.Context(), mustFind(t, e), c.Model, serving.ONNX{Threads: 1}, &outcome{Probe: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Infer(t.Context(), &engine.Request{Tensors: tensorsOf(t, folder, c.Inputs)}); err == nil {
			_ = m.Close(t.Context()) // never fails
			return
		}
		t.Fatal(c.Title)
	}
	cycles := 200
	after := make([]int, 0, cycles)
	for k := range cycles {
		cycle(k)
		after = append(after, memory(t))
	}
	t.Logf("kB after loads 20, 50, 100, 150, 200: %d %d %d %d %d", after[19], after[49], after[99], after[149], after[199])
	if early, late := slices.Max(after[30:60]), slices.Max(after[cycles-30:]); late > early+early/10 {
		t.Errorf("the memory grew from %d to %d kB", early, late)
	}
}

func mustFind(t *testing.T, e *Engine) string {
	t.Helper()
	library, err := e.o.Find(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return library
}
