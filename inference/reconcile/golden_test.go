package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/reconcile"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// judged is a world whose models answer as their code is named, and whose
// golden samples are real files.
type judged struct {
	*world
	dir string
}

func (j judged) Fetch(ctx context.Context, f reconcile.File) (reconcile.Local, error) {
	local, err := j.world.Fetch(ctx, f)
	if name, golden := strings.CutPrefix(f.URL, "golden://"); golden {
		local.Path = filepath.Join(j.dir, name)
	}
	return local, err
}

type judgedLoader struct{ w *world }

func (l judgedLoader) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	return &judgedModel{model: model{w: l.w, name: spec.CodePath}, code: filepath.Base(spec.CodePath)}, nil
}

type judgedModel struct {
	model
	code string
}

func (m *judgedModel) Infer(ctx context.Context, r *engine.Request) (*engine.Response, error) {
	answer := &engine.Response{Status: 200, ContentType: "application/json", Body: []byte(`{"y":[2.0000000001],"from":"` + string(r.Body) + `"}`)}
	switch m.code {
	case "wrong":
		answer.Body = []byte(`{"y":[3],"from":"` + string(r.Body) + `"}`)
	case "broken":
		answer.Status, answer.Body = 422, []byte(`{"detail":"no such column"}`)
	case "dead":
		return nil, &engine.Error{Kind: engine.KindDied, Text: "worker was killed by signal 9"}
	case "slow":
		<-ctx.Done()
		return nil, &engine.Error{Kind: engine.KindDeadline, Text: "too late", Err: ctx.Err()}
	case "streamed":
		answer.Stream, answer.Body = &oneStream{left: answer.Body}, nil
	}
	return answer, nil
}

// oneStream gives a body in two pieces.
type oneStream struct{ left []byte }

func (s *oneStream) Next(context.Context) ([]byte, error) {
	if len(s.left) == 0 {
		return nil, io.EOF
	}
	half := (len(s.left) + 1) / 2
	piece := s.left[:half]
	s.left = s.left[half:]
	return piece, nil
}
func (s *oneStream) Close() error { return nil }

// golden attaches samples to a url.
func golden(url, file string, timeout float64) func(*reconcile.State) {
	return func(s *reconcile.State) {
		text, _ := json.Marshal(map[string]any{url: map[string]any{"golden": map[string]any{"artifact": "golden", "tolerance": 1e-6, "timeout": timeout}}})
		s.Sections[serving.SectionOptions] = text
		delete(s.Artifacts, "golden")
		if file != "" {
			s.Artifacts["golden"] = reconcile.Artifact{URI: "golden://" + file, SHA256: file}
		}
	}
}

const samples = `{"body":"a","answer":{"from":"a","y":[2]}}
{"body":"b","answer":{"from":"b","y":[2]}}
`

// runJudged is run for a world with samples in file "samples".
func runJudged(t *testing.T, w *world, test func(r *reconcile.Reconciler, rt *router.Router)) {
	t.Helper()
	j := judged{w, t.TempDir()}
	for name, text := range map[string]string{"samples": samples, "damaged": "{"} {
		if err := os.WriteFile(filepath.Join(j.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w.bell = make(chan struct{}, 1)
		var rt router.Router
		r := reconcile.New(reconcile.Options{Router: &rt, Source: j, Files: j, Loader: judgedLoader{w}, Changes: j, Poll: time.Minute, RequestTimeout: 30 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		settle()
		test(r, &rt)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// serves tells which code answers for m/1.
func serves(t *testing.T, rt *router.Router) string {
	t.Helper()
	live, err := rt.Acquire("m/1")
	if err != nil {
		return err.Error()
	}
	defer live.Release()
	return live.Model.(*judgedModel).code
}

func TestOnlyAVersionThatReproducesTheSamplesGoesLive(t *testing.T) {
	for _, tc := range []struct {
		code, reason string // of the refusal, "" for none
		timeout      float64
		after        time.Duration
	}{
		{"good2", "", 0, time.Second},
		{"streamed", "", 0, time.Second},
		{"wrong", "it does not reproduce the golden samples: sample 1 of 2: y[0] is 3, expected 2; sample 2 of 2: y[0] is 3, expected 2", 0, time.Second},
		{"broken", `sample 1 of 2: status is 422, expected 200 ({"detail":"no such column"})`, 0, time.Second},
		{"dead", "sample 1 of 2: no answer: worker was killed by signal 9", 0, time.Second},
		{"slow", "sample 1 of 2: no answer within 30s", 0, 31 * time.Second},
		{"slow", "sample 1 of 2: no answer within 500ms", 0.5, time.Second},
	} {
		t.Run(tc.code, func(t *testing.T) {
			w := newWorld()
			w.set(endpoints(map[string]string{"m/1": "good"}))
			w.set(golden("m/1", "samples", tc.timeout))
			runJudged(t, w, func(r *reconcile.Reconciler, rt *router.Router) {
				if got := serves(t, rt); got != "good" {
					t.Fatalf("at start: %s", got)
				}
				w.set(endpoints(map[string]string{"m/1": tc.code}))
				time.Sleep(tc.after)
				synctest.Wait()
				e := r.Status().Endpoints[0]
				if tc.reason == "" {
					if serves(t, rt) != tc.code || e.State != "ready" || e.Failure != nil {
						t.Errorf("refused: %+v", e)
					}
					return
				}
				if serves(t, rt) != "good" || e.State != "refused" || e.Failure == nil || e.Failure.Step != "golden" || !strings.Contains(e.Failure.Reason, tc.reason) {
					t.Errorf("serves %s, %s, %+v", serves(t, rt), e.State, e.Failure)
				}
				w.mu.Lock()
				if len(w.closed) == 0 || !strings.HasSuffix(w.closed[0], tc.code) {
					t.Errorf("the refused model is still open: closed %v", w.closed)
				}
				w.mu.Unlock()
				w.set(func(s *reconcile.State) { delete(s.Sections, serving.SectionOptions) })
				settle()
				if serves(t, rt) != tc.code {
					t.Errorf("without samples: %s serves", serves(t, rt))
				}
			})
		})
	}
}

func TestSamplesThatCannotBeReadRefuseNewCodeOnly(t *testing.T) {
	for file, reason := range map[string]string{"": "artifact 'golden' of the serving service, are missing", "damaged": "line 1", "gone": "404"} {
		w := newWorld()
		w.set(endpoints(map[string]string{"m/1": "good"}))
		runJudged(t, w, func(r *reconcile.Reconciler, rt *router.Router) {
			w.set(golden("m/1", file, 0)) // what serves already is not asked
			settle()
			if e := r.Status().Endpoints[0]; serves(t, rt) != "good" || e.Failure != nil {
				t.Errorf("%s: attaching samples: %s, %+v", file, serves(t, rt), e.Failure)
			}
			w.set(endpoints(map[string]string{"m/1": "good2"}))
			settle()
			e := r.Status().Endpoints[0]
			if serves(t, rt) != "good" || e.Failure == nil || e.Failure.Step != "golden" || !strings.Contains(e.Failure.Reason, reason) {
				t.Errorf("%s: %s serves, %+v", file, serves(t, rt), e.Failure)
			}
			w.set(golden("m/1", "samples", 0)) // better samples are tried at once, not after the backoff
			settle()
			if serves(t, rt) != "good2" {
				t.Errorf("%s: with good samples %s serves", file, serves(t, rt))
			}
		})
	}
}

func TestARefusedFirstVersionAnswersWithTheReason(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "wrong"}))
	w.set(golden("m/1", "samples", 0))
	runJudged(t, w, func(_ *reconcile.Reconciler, rt *router.Router) {
		_, err := rt.Acquire("m/1")
		if notReady, ok := errors.AsType[*router.NotReadyError](err); !ok || notReady.Loading || !strings.Contains(notReady.Reason, "golden samples") {
			t.Errorf("got %v", err)
		}
	})
}

func TestAChangeEndsTheQuestionsOfTheOneBefore(t *testing.T) {
	w := newWorld()
	w.set(endpoints(map[string]string{"m/1": "slow"}))
	w.set(golden("m/1", "samples", 0))
	runJudged(t, w, func(r *reconcile.Reconciler, rt *router.Router) {
		w.set(endpoints(map[string]string{"m/1": "good"})) // while "slow" still thinks
		settle()
		if e := r.Status().Endpoints[0]; serves(t, rt) != "good" || e.Failure != nil {
			t.Errorf("%s serves, %+v", serves(t, rt), e.Failure)
		}
	})
}
