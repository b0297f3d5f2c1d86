package native

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/serving"
	"clearmlserving/worker/host"
)

func TestNativeFulfilsTheContractOfEngines(t *testing.T) {
	w := running(t)
	dir := fitted(t, "forest")
	spec := specOf(dir, "forest", with(""))
	bodies, want := bodiesOf(t, dir, "forest")[:10], []string{}
	inPython := load(t, w.python, spec)
	for _, body := range bodies {
		want = append(want, string(ask(t, inPython, body).Body))
	}
	broken := specOf(dir, "forest", with(""))
	broken.ModelPath = filepath.Join(dir, "forest.bodies")
	refuses := specOf(dir, "forest", with(""))
	enginetest.Run(t, enginetest.Engine{
		Loader: w,
		Answers: enginetest.Endpoint{
			Spec: spec, Want: func(i int) string { return want[i%len(want)] },
			Request: func(i int) *engine.Request {
				return &engine.Request{Body: []byte(bodies[i%len(bodies)]), ContentType: "application/json"}
			},
		},
		Refuses: &enginetest.Endpoint{Spec: refuses, Request: func(int) *engine.Request {
			return &engine.Request{Body: []byte(`{"x":1}`), ContentType: "application/json"}
		}},
		Tensors: &enginetest.Endpoint{Spec: spec, Request: func(int) *engine.Request {
			return &engine.Request{Tensors: []engine.Tensor{{Name: "x", Datatype: engine.FP64, Shape: []int64{1, 5}, Data: make([]byte, 40)}}}
		}},
		Broken: &enginetest.Endpoint{Spec: broken}, BrokenByUser: true,
	})
}

// TestAFailedExtractionIsNeverTheService: a process that dies or hangs is a load that fails and may succeed
// later (true), or a model that stays in Python (auto).
func TestAFailedExtractionIsNeverTheService(t *testing.T) {
	running(t) // or the test is skipped, without the libraries
	dir := fitted(t, "linear")
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"killed": {func(o *Options) { o.started = signalled(t, syscall.SIGKILL) }, "did not end well"},
		"stopped": {func(o *Options) {
			o.started, o.proofTime = signalled(t, syscall.SIGSTOP), 3*time.Second
		}, "the extraction took longer than 3s"},
		"no room": {func(o *Options) { o.Dir = filepath.Join(dir, "linear.pkl", "x") }, "cannot be kept"},
	} {
		t.Run(name, func(t *testing.T) {
			w := running(t)
			spec := specOf(dir, "linear", with(""))
			usual := w.Engine.o
			c.change(&w.Engine.o)
			_, err := w.Load(t.Context(), spec)
			failed, ok := errors.AsType[*engine.LoadError](err)
			if !ok || failed.Final || !strings.Contains(failed.Text, c.says) {
				t.Errorf("true: %v", err)
			}
			m := load(t, w, specOf(dir, "linear", map[string]any{"accelerate": "auto"}))
			if got := ask(t, m, `[[1,2,3,4,5]]`); got.Status != 200 {
				t.Errorf("auto: %d %s", got.Status, got.Body)
			}
			if n := m.Status().Native; n == nil || n.On || !strings.Contains(n.Reason, c.says) {
				t.Errorf("auto: %+v", n)
			}
			w.Engine.o = usual
			if n := load(t, w, spec).Status().Native; !n.On {
				t.Errorf("the next attempt: %+v", n)
			}
		})
	}
}

// signalled sends a signal to each process of an extraction.
func signalled(t *testing.T, signal syscall.Signal) func(*host.Group) {
	t.Helper()
	return func(g *host.Group) {
		go func() { // it ends with the group, which Load closes
			for g.Status().State != serving.StateClosed && t.Context().Err() == nil {
				for _, one := range g.Status().Workers {
					_ = syscall.Kill(one.PID, signal)
				}
				<-time.After(time.Millisecond)
			}
		}()
	}
}

func TestAnExtractIsKeptAndMadeAgainIfItIsDamaged(t *testing.T) {
	w := running(t)
	dir := fitted(t, "linear", "ridge")
	started := 0
	w.Engine.o.started = func(*host.Group) { started++ }
	spec := specOf(dir, "linear", with(""))
	first := load(t, w, spec).Status().Native
	second := load(t, w, spec).Status().Native
	if started != 1 || !second.Proven.Equal(first.Proven) || len(second.Checks) != len(first.Checks) {
		t.Errorf("%d extractions of the same model; %+v", started, second)
	}
	files, err := filepath.Glob(filepath.Join(w.Engine.o.Dir, "*.model"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q %v", files, err)
	}
	for path, want := range map[string]os.FileMode{w.Engine.o.Dir: 0o700, files[0]: 0o600, strings.TrimSuffix(files[0], "model") + "json": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, mode %v: models are for their owner only", path, err, info.Mode())
		}
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	// A new file, as after a fault of the disk: the mapped one is not changed under its readers.
	if err := errors.Join(os.Remove(files[0]), os.WriteFile(files[0], b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if n := load(t, w, spec).Status().Native; started != 2 || !n.On {
		t.Errorf("%d extractions with a damaged file", started)
	}
	load(t, w, specOf(dir, "linear", with("predict")))
	if started != 3 {
		t.Errorf("%d extractions for another method", started)
	}
	other, err := os.ReadFile(filepath.Join(dir, "ridge.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spec.ModelPath, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := load(t, w, spec).Status().Native; started != 4 || n.Model == first.Model {
		t.Errorf("%d extractions after the model has changed: %+v", started, n)
	}
}

// TestAModelThatChangesDuringItsProofIsNotKept: the extract would be that of the former content.
func TestAModelThatChangesDuringItsProofIsNotKept(t *testing.T) {
	w := running(t)
	dir := fitted(t, "linear", "ridge")
	spec := specOf(dir, "linear", with(""))
	other, err := os.ReadFile(filepath.Join(dir, "ridge.pkl"))
	if err != nil {
		t.Fatal(err)
	}
	w.Engine.o.started = func(*host.Group) {
		if err := os.WriteFile(spec.ModelPath, other, 0o600); err != nil {
			t.Error(err)
		}
	}
	_, err = w.Load(t.Context(), spec)
	if failed, ok := errors.AsType[*engine.LoadError](err); !ok || failed.Final || !strings.Contains(failed.Text, "has changed") {
		t.Fatalf("%v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(w.Engine.o.Dir, "*")); len(files) > 0 {
		t.Errorf("kept %q", files)
	}
	if n := load(t, w, spec).Status().Native; n.Model != "Pipeline" {
		t.Errorf("%+v", n)
	}
}

// TestThePythonOfAnEndpointIsStartedForWhatGoLeaves, and ends when it is idle.
func TestThePythonOfAnEndpointIsStartedForWhatGoLeaves(t *testing.T) {
	w := running(t)
	dir := fitted(t, "forest_named")
	spec := specOf(dir, "forest_named", with("predict_proba"))
	spec.Variables = []string{"b", "zz", "a"}
	spec.Limits = &serving.Limits{IdleTimeout: 1}
	m := load(t, w, spec)
	inPython := load(t, w.python, spec)
	for _, body := range []string{`{"a":1,"b":-2.50,"c":1e3,"d":0,"e":5}`, `[{"a":1,"b":2,"c":3,"d":4,"e":5}]`, `[[1,2,3,4,5]]`} {
		stats := [2]string{}
		for i, one := range []engine.Model{m, inPython} {
			resp, err := one.Infer(t.Context(), &engine.Request{Body: []byte(body), ContentType: "application/json", Sampled: true})
			if err != nil {
				t.Fatal(err)
			}
			stats[i] = string(resp.Stats)
		}
		if stats[0] != stats[1] {
			t.Errorf("%s: variables %s, want %s", body, stats[0], stats[1])
		}
	}
	for contentType, body := range map[string]string{
		"": `[[1,2,3,4,5]]`, "application/vnd.x+json; charset=utf-8": `[[1,2,3,4,5]]`, "application/x-www-form-urlencoded": ` [[1,2,3,4,5]]`,
		"text/plain": `[[1,2,3,4,5]]`, "application/x-www-form-urlencoded; a": `x=1`, "application/octet-stream": `[[1,2,3,4,5]]`, "application/": "[[1,2,3,4,5]]",
	} {
		answers := [2]string{}
		for i, one := range []engine.Model{m, inPython} {
			resp, err := one.Infer(t.Context(), &engine.Request{Body: []byte(body), ContentType: contentType})
			if err != nil {
				t.Fatal(err)
			}
			answers[i] = string(resp.Body)
		}
		if answers[0] != answers[1] {
			t.Errorf("%q: %s, want %s", contentType, answers[0], answers[1])
		}
	}
	if got := m.Status(); got.Native.Fallback != 4 || got.Native.Native != 6 || len(got.Workers) == 0 {
		t.Errorf("%+v", got)
	}
	for deadline := time.Now().Add(2 * time.Minute); len(m.Status().Workers) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the process does not end")
		}
		<-time.After(50 * time.Millisecond)
	}
	if got := m.Status(); got.State != serving.StateReady {
		t.Errorf("asleep: %+v", got)
	}
}
