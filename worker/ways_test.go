package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"clearmlserving/serving"
	"clearmlserving/worker"
)

const trainWays = `
import sys, joblib, numpy as np
from sklearn.linear_model import LogisticRegression
folder, engine = sys.argv[1:]
rng = np.random.default_rng(7)
x = rng.normal(size=(400, 4))
y = (x[:, 0] + x[:, 1] > 0).astype(int)
if engine == "sklearn":
    joblib.dump(LogisticRegression().fit(x, y), folder + "/model")
elif engine == "xgboost":
    import xgboost
    xgboost.train({"max_depth": 4}, xgboost.DMatrix(x, label=y), 20).save_model(folder + "/model.json")
else:
    import lightgbm
    lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, label=y), 20).save_model(folder + "/model")
`

// rows is a question of n rows whose JSON takes at least size bytes.
func rows(seed uint64, n, size int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	all := make([][4]float64, n)
	for i := range all {
		for j := range all[i] {
			all[i][j] = r.NormFloat64()
		}
	}
	b, err := json.Marshal(map[string]any{"rows": all})
	if err != nil {
		panic(err)
	}
	return string(b) + strings.Repeat(" ", max(size-len(b), 0))
}

// askBy asks by one of the ways in which a body comes to a worker.
func askBy(t *testing.T, g *worker.Group, question string, lent bool) string {
	t.Helper()
	lent = lent && runtime.GOOS == "linux" // nothing is shared elsewhere
	req := &worker.Request{Body: []byte(question), ContentType: "application/json"}
	if lent {
		if req.Loan = g.Lend(len(question)); req.Loan == nil {
			t.Fatal("nothing was lent")
		}
		defer req.Loan.Release()
		copy(req.Loan.Bytes(), question)
		req.Body = req.Loan.Bytes()
	}
	r, err := g.Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.Status, string(r.Body))
}

// TestAllWaysGiveTheSameAnswers asks every engine the same questions one by one
// through the socket, through shared memory, and many at a time by both, executed
// one by one and together. A question's answer must not depend on its way.
func TestAllWaysGiveTheSameAnswers(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Preload = nil })
	var questions []string
	for i := range 12 {
		n, size := 1+i%3, 0
		switch i % 4 {
		case 2:
			size = 40 << 10 // sent from where it lies
		case 3:
			n, size = 40, 600<<10
		}
		questions = append(questions, rows(uint64(i), n, size))
	}
	questions = append(questions, `{"rows":"none"}`, `{`, `[]`)
	for _, c := range []struct {
		engine, file string
		needs        []string
		batches      bool
	}{
		{"sklearn", "predicts.py", []string{"sklearn"}, true},
		{"xgboost", "predicts.py", []string{"sklearn", "xgboost"}, true},
		{"lightgbm", "predicts.py", []string{"sklearn", "lightgbm"}, true},
		{"custom", "sums.py", nil, true},
		{"custom_async", "sums_async.py", nil, false},
	} {
		t.Run(c.engine+" "+c.file, func(t *testing.T) {
			installed(t, c.needs...)
			model := ""
			if c.needs != nil {
				model = filepath.Join(t.TempDir(), "model")
				if runPython(t, trainWays, filepath.Dir(model), c.engine); c.engine == "xgboost" {
					model += ".json"
				}
			}
			start := func(name string, b serving.Batching) *worker.Group {
				return w.start(t, c.engine+c.file+name, c.file, func(s *worker.Spec) { s.Engine, s.ModelPath, s.Workers, s.Batch = c.engine, model, 2, b })
			}
			plain := start("-plain", serving.Batching{})
			var want []string
			for _, q := range questions {
				want = append(want, askBy(t, plain, q, false))
			}
			if good := slices.IndexFunc(want[:12], func(s string) bool { return !strings.HasPrefix(s, "200") }); good >= 0 {
				t.Fatalf("question %d: %s", good, want[good])
			}
			groups := map[string]*worker.Group{"one by one": plain}
			if c.batches {
				groups["batched"] = start("-batched", serving.Batching{MaxRows: 64})
			}
			for name, g := range groups {
				for i, q := range questions {
					if got := askBy(t, g, q, true); got != want[i] {
						t.Errorf("%s, question %d from shared memory: %s, not %s", name, i, got, want[i])
					}
				}
				var all sync.WaitGroup
				for caller := range 12 {
					all.Go(func() {
						for k := range questions {
							i := (k + caller) % len(questions)
							if got := askBy(t, g, questions[i], (i+caller)%2 == 0); got != want[i] {
								t.Errorf("%s, question %d beside others: %s, not %s", name, i, got, want[i])
							}
						}
					})
				}
				all.Wait()
			}
		})
	}
}

// shares skips where no memory is shared.
func shares(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("bodies go through the socket here")
	}
}

// lend puts a question into shared memory; its answer is the question itself.
func lend(t *testing.T, g *worker.Group, letter string) (*worker.Loan, string) {
	t.Helper()
	question := `"` + strings.Repeat(letter, 300<<10) + `"`
	l := g.Lend(len(question))
	if l == nil {
		t.Fatal("nothing was lent")
	}
	copy(l.Bytes(), question)
	return l, question
}

// TestASharedBodyStaysUntilItsWorkerIsDone gives up a request that its worker has not
// read: what comes next must not be written over its body.
func TestASharedBodyStaysUntilItsWorkerIsDone(t *testing.T) {
	shares(t)
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	question, open := gate(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = g.Do(t.Context(), &worker.Request{Body: []byte(question)}) })
	eventually(t, "the worker is busy", g.Busy)

	first, _ := lend(t, g, "a")
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	all.Go(func() {
		defer close(gone)
		defer first.Release()
		if _, err := g.Do(ctx, &worker.Request{Body: first.Bytes(), Loan: first}); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v", err)
		}
	})
	eventually(t, "the body is on its way", func() bool { return inFlight(g) == 2 })
	cancel()
	<-gone
	second, want := lend(t, g, "b")
	if second == first {
		t.Fatal("the memory was lent again before its worker was done with it")
	}
	all.Go(func() {
		defer second.Release()
		r, err := g.Do(t.Context(), &worker.Request{Body: second.Bytes(), Loan: second})
		if err != nil || string(r.Body) != want {
			t.Errorf("the one behind it: %v", err)
		}
	})
	open()
	all.Wait()
	eventually(t, "the memory is lent again", func() bool {
		var held []*worker.Loan
		for range 3 {
			l, _ := lend(t, g, "c")
			held = append(held, l)
		}
		for _, l := range held {
			l.Release()
		}
		return slices.Contains(held, first)
	})
}

func TestASharedBodyIsLetGoWhenItsAnswerBeginsToStream(t *testing.T) {
	shares(t)
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	l, _ := lend(t, g, "a")
	question := `{"do":"stream","pieces":1000000000,"width":60000}`
	copy(l.Bytes(), question+strings.Repeat(" ", len(l.Bytes())-len(question)))
	r, err := g.Do(t.Context(), &worker.Request{Body: l.Bytes(), Loan: l, ContentType: "application/json"})
	if err != nil || r.Stream == nil {
		t.Fatalf("answered %v, %v", r, err)
	}
	l.Release()
	if next, _ := lend(t, g, "b"); next != l {
		t.Error("the memory is held as long as the stream")
	} else {
		next.Release()
	}
	_ = r.Stream.Close()
}

func TestASharedBodyThatItsWorkerHasNotBegunGoesToTheNext(t *testing.T) {
	shares(t)
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	question, _ := gate(t)
	var all sync.WaitGroup
	all.Go(func() {
		var died *worker.DiedError
		if err := askErr(t.Context(), g, question); !errors.As(err, &died) {
			t.Errorf("the one that was begun: %v", err)
		}
	})
	eventually(t, "the worker is busy", g.Busy)
	l, want := lend(t, g, "a")
	all.Go(func() {
		defer l.Release()
		r, err := g.Do(t.Context(), &worker.Request{Body: l.Bytes(), Loan: l})
		if err != nil || string(r.Body) != want {
			t.Errorf("the one that was not: %v", err)
		}
	})
	eventually(t, "the body is on its way", func() bool { return inFlight(g) == 2 })
	if err := syscall.Kill(g.Status().Workers[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

func TestMemoryOfAnotherEndpointIsNotShared(t *testing.T) {
	shares(t)
	w := newWorld(t, nil)
	one, other := w.start(t, "one", "echo.py", nil), w.start(t, "other", "echo.py", nil)
	l, want := lend(t, one, "a")
	defer l.Release()
	r, err := other.Do(t.Context(), &worker.Request{Body: l.Bytes(), Loan: l}) // by the socket
	if err != nil || string(r.Body) != want {
		t.Error(err)
	}
	if err := one.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if string(l.Bytes()) != want {
		t.Error("the memory went with its endpoint")
	}
}
