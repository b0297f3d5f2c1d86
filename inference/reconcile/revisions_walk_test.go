package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// TestInstancesAgreeOnRevisionsWhateverHappens takes random steps with two instances: deployments that
// load and that do not, by commands of ours and by other programs, rollbacks, restarts with and without
// a folder, and a control plane that is away or cannot be written to. When all is settled, both answer
// with the newest content that was not refused.
func TestInstancesAgreeOnRevisionsWhateverHappens(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { walk(t, rand.New(rand.NewPCG(seed, 1))) }) //nolint:gosec // repeatable, not secret
	}
}

// walker is one instance of the walk.
type walker struct {
	rt     *router.Router
	r      *reconcile.Reconciler
	cancel context.CancelFunc
	done   chan error
	cache  string
}

func walk(t *testing.T, random *rand.Rand) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newShelf("g0", deployed())
		start := func(w *walker) {
			w.rt = &router.Router{}
			w.r = reconcile.New(reconcile.Options{Router: w.rt, Source: s.world, Files: s.world, Loader: judgingLoader{s.world}, Poll: 20 * time.Second, CacheFile: w.cache, Journal: s, Instance: w.cache})
			var ctx context.Context
			ctx, w.cancel = context.WithCancel(t.Context())
			w.done = make(chan error, 1)
			go func() { w.done <- w.r.Run(ctx) }()
		}
		walkers := []*walker{{cache: filepath.Join(dir, "a")}, {cache: filepath.Join(dir, "b")}}
		for _, w := range walkers {
			start(w)
		}
		code, steps := "g0", []string{"g0"}
		history := []string{"g0"} // what was deployed, in order
		deploy := func(next string, ours bool) {
			code = next
			history = append(history, code)
			s.set(endpoints(map[string]string{"m/1": code}))
			if ours {
				s.store(func(h serving.History) serving.History {
					content := deployed(code + ":").Newest().Content
					if h.Current(content) && h.Newest().State != serving.RevisionRefused {
						return h
					}
					return h.Add(serving.Revision{Content: content, Time: time.Now(), By: "ada"})
				})
			}
		}
		settled := func() { time.Sleep(2 * time.Minute); synctest.Wait() }
		settled()
		for step := range 120 {
			what := random.IntN(10)
			switch {
			case what < 2:
				deploy(fmt.Sprintf("g%d", step), what == 0)
			case what < 5:
				deploy(fmt.Sprintf("b%d", step), what != 4)
			case what == 5: // an earlier one again, by a command of ours
				deploy(history[random.IntN(len(history))], true)
			case what < 8:
				w := walkers[random.IntN(2)]
				w.cancel()
				if err := <-w.done; err != nil {
					t.Error(err)
				}
				if what == 7 {
					w.cache = filepath.Join(dir, fmt.Sprint(step)) // a new machine
				}
				start(w)
			case what == 8:
				s.world.mu.Lock()
				s.world.err = errors.New("away")
				s.world.mu.Unlock()
				time.Sleep(time.Duration(random.IntN(60)) * time.Second)
				s.world.mu.Lock()
				s.world.err = nil
				s.world.mu.Unlock()
			default:
				s.mu.Lock()
				s.err = errors.New("forbidden")
				s.mu.Unlock()
				time.Sleep(time.Duration(random.IntN(60)) * time.Second)
				s.mu.Lock()
				s.err = nil
				s.mu.Unlock()
			}
			steps = append(steps, fmt.Sprintf("%d:%s", what, code))
			if random.IntN(3) == 0 {
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond) // the next one overtakes it
				continue
			}
			settled()
			want := code
			if strings.HasPrefix(code, "b") {
				s.mu.Lock()
				good, ok := s.stored["m/1"].LastGood()
				s.mu.Unlock()
				if !ok {
					continue // nothing was good yet: 503
				}
				want = good.Code.SHA256
			}
			for i, w := range walkers {
				if got := answer(t, w.rt, "m/1"); got != want {
					t.Fatalf("step %d: instance %d answers %s, want %s; stored %s; %+v\n%s", step, i, got, want, s.states(), w.r.Status().Endpoints, strings.Join(steps, " "))
				}
				state := w.r.Status().Endpoints[0].State
				if (state == serving.StateRefused) != (want != code) {
					t.Fatalf("step %d: instance %d is %s; stored %s", step, i, state, s.states())
				}
			}
			s.mu.Lock()
			newest := s.stored["m/1"].Newest()
			s.mu.Unlock()
			if newest.Code.SHA256 != code || (newest.State == serving.RevisionGood) != (want == code) {
				t.Fatalf("step %d: the newest revision is %s %s, deployed is %s; stored %s", step, newest.Code.SHA256, newest.State, code, s.states())
			}
		}
		for _, w := range walkers {
			w.cancel()
			if err := <-w.done; err != nil {
				t.Error(err)
			}
		}
	})
}

// judgingLoader loads code whose name begins with g.
type judgingLoader struct{ w *world }

// Load implements engine.Loader.
func (l judgingLoader) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	code := filepath.Base(spec.CodePath)
	if !strings.HasPrefix(code, "g") {
		return nil, errUser
	}
	return &model{w: l.w, name: code}, nil
}
