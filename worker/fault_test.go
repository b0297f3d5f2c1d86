package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/serving"
	"clearmlserving/worker"
)

func askErr(ctx context.Context, g *worker.Group, question string) error {
	_, err := g.Do(ctx, &worker.Request{Body: []byte(question)})
	return err
}

// replacedAfter asks what never ends, gives it up at its deadline, and waits for the
// worker that comes in place of the one that hangs. On a busy machine the deadline may
// be over before the worker begins: it goes on then, and is asked again with more time.
func replacedAfter(t *testing.T, g *worker.Group, question string) {
	t.Helper()
	before := ask(t, g, `{"do":"pid"}`)
	for limit := 50 * time.Millisecond; limit < patience; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := askErr(ctx, g, question)
		cancel()
		if !errors.Is(err, worker.ErrDeadline) {
			t.Fatalf("err = %v, want ErrDeadline", err)
		}
		if ask(t, g, `{"do":"pid"}`) != before {
			return
		}
	}
	t.Error("the worker that hung answers")
}

// due is a context whose deadline comes when the test says so.
type due struct {
	context.Context               //nolint:containedctx // it is one
	over            chan struct{} // closed by the test
}

func (d due) Deadline() (time.Time, bool) { return time.Now().Add(time.Hour), true }
func (d due) Done() <-chan struct{}       { return d.over }

func (d due) Err() error {
	select {
	case <-d.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestADeathHasACauseAndTheNextRequestAWorker(t *testing.T) {
	w := newWorld(t, nil)
	for name, tc := range map[string]struct {
		question string
		want     []string
		signal   syscall.Signal
	}{
		"exit": {`{"do":"exit","code":7}`, []string{"exited with code 7"}, 0},
		"kill": {`{"do":"kill"}`, []string{"SIGKILL"}, syscall.SIGKILL},
		"segv": {`{"do":"segv"}`, []string{"SIGSEGV"}, syscall.SIGSEGV},
	} {
		t.Run(name, func(t *testing.T) {
			g := w.start(t, name, "echo.py", nil)
			before := ask(t, g, `{"do":"pid"}`)
			err := askErr(t.Context(), g, tc.question)
			var died *worker.DiedError
			if !errors.As(err, &died) {
				t.Fatalf("err = %v, want a *DiedError", err)
			}
			for _, text := range append(tc.want, name) {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("err = %v lacks %q", err, text)
				}
			}
			if died.Death.Signal != tc.signal || died.Death.Asked || died.Death.OOM {
				t.Errorf("death = %+v", died.Death)
			}
			if name == "segv" && !strings.Contains(died.Death.Detail(), "echo.py") {
				t.Errorf("the last lines do not say where it crashed: %q", died.Death.LastLines)
			}
			if after := ask(t, g, `{"do":"pid"}`); after == before {
				t.Error("the dead worker answers")
			}
			if s := g.Status(); s.Restarts != 1 || s.LastDeath == "" {
				t.Errorf("status = %+v", s)
			}
		})
	}
}

func TestOnlyBegunRequestsAreLostWithAWorker(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	died, answered := 0, 0
	for i := range 40 {
		all.Go(func() {
			q := strconv.Itoa(i)
			if i == 0 {
				q = `{"do":"exit","code":1}`
			}
			r, err := g.Do(t.Context(), &worker.Request{Body: []byte(q)})
			mu.Lock()
			defer mu.Unlock()
			var de *worker.DiedError
			switch {
			case errors.As(err, &de) && i == 0:
				died++
			case err == nil && string(r.Body) == q:
				answered++
			default:
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if died != 1 || answered != 39 {
		t.Errorf("%d died, %d answered", died, answered)
	}
}

func TestADeadlineIsKeptAndWhoHangsIsReplaced(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	replacedAfter(t, g, `{"do":"spin"}`)
	w.log.waitFor(t, "past its deadline")
	w.log.waitFor(t, "in process") // where it hung
}

func TestAStepOfTheWallClockEndsNoRequest(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	for _, step := range []string{"31536000", "-63072000"} {
		ask(t, g, `{"do":"step","seconds":`+step+`}`)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := askErr(ctx, g, `1`); err != nil {
				t.Errorf("after a step of %s s: %v", step, err)
			}
			cancel()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := askErr(ctx, g, `{"do":"spin"}`); !errors.Is(err, worker.ErrDeadline) {
		t.Errorf("err = %v, want ErrDeadline", err)
	}
}

func TestAFastRequestIsNotHeldUpBehindOneThatHangs(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var hung, fast sync.WaitGroup
	question, open := gate(t)
	hung.Go(func() { _ = askErr(ctx, g, question) })
	eventually(t, "it is busy", func() bool { return g.Status().Workers[0].InFlight == 1 })
	g.SendAhead(5)
	// These come in one lot while the worker is busy, and the last of them hangs.
	for range 3 {
		fast.Go(func() { ask(t, g, `2`) })
	}
	eventually(t, "they wait", func() bool { return g.Status().Workers[0].InFlight == 4 })
	hung.Go(func() { _ = askErr(ctx, g, `{"do":"sleep","seconds":1000}`) })
	eventually(t, "all are at the worker", func() bool { return g.Status().Workers[0].InFlight == 5 })
	open()
	fast.Wait()
	if n := g.Status().Workers[0].InFlight; n != 1 {
		t.Errorf("%d requests in flight", n)
	}
	if err := func() error { // the worker is alive, and knows what was taken from it
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		return askErr(ctx, g, `3`)
	}(); !errors.Is(err, worker.ErrDeadline) {
		t.Errorf("err = %v", err)
	}
	if err := syscall.Kill(g.Status().Workers[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	hung.Wait()
}

func TestAnswersThatWereTakenAreNotTakenTwice(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			q := strconv.Itoa(i)
			if i%10 == 0 {
				q = `{"do":"sleep","seconds":0.008}`
			}
			if got := ask(t, g, q); got != q {
				t.Errorf("asked %s, got %s", q, got)
			}
		})
	}
	all.Wait()
	if s := g.Status(); s.Restarts != 0 || s.Answered != 300 {
		t.Errorf("status = %+v", s)
	}
}

func TestARequestThatEndsInTheGraceCostsNoWorker(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{KillGrace: patience}) })
	g := w.start(t, "echo", "echo.py", nil)
	before := ask(t, g, `{"do":"pid"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := askErr(ctx, g, `{"do":"sleep","seconds":0.2}`); !errors.Is(err, worker.ErrDeadline) {
		t.Fatalf("err = %v", err)
	}
	if after := ask(t, g, `{"do":"pid"}`); after != before {
		t.Error("the worker was replaced")
	}
}

func TestWaitingRequestsGiveUpAtTheirDeadline(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{KillGrace: time.Minute}) })
	g := w.start(t, "echo", "echo.py", func(s *worker.Spec) { s.Limits.MaxQueue = 5 })
	var busy sync.WaitGroup
	question, open := gate(t)
	busy.Go(func() { ask(t, g, question) })
	eventually(t, "the worker is busy", g.Busy) // it has read nothing of what follows
	var all sync.WaitGroup
	limit := due{t.Context(), make(chan struct{})}
	for range 6 {
		all.Go(func() {
			if err := askErr(limit, g, `{"do":"count"}`); !errors.Is(err, worker.ErrDeadline) {
				t.Errorf("err = %v, want ErrDeadline", err)
			}
		})
	}
	eventually(t, "five wait", func() bool { return g.Status().Queued == 5 })
	if err := askErr(t.Context(), g, `1`); !errors.Is(err, worker.ErrOverloaded) {
		t.Errorf("the seventh: err = %v, want ErrOverloaded", err)
	}
	close(limit.over)
	all.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if err := askErr(ctx, g, `{"do":"count"}`); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that leaves: err = %v", err)
	}
	open()
	busy.Wait()
	if got := ask(t, g, `{"do":"count"}`); got != "2" {
		t.Errorf("user code was called %s times: what nobody waited for was executed", got)
	}
}

func TestWhatDiesAgainAndAgainIsPaused(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{MaxBackoff: 20 * time.Second}) })
	g := w.start(t, "echo", "echo.py", nil)
	var unavailable *worker.UnavailableError
	var s serving.ModelReport
	for i := range 20 {
		asked := time.Now()
		err := askErr(t.Context(), g, `{"do":"exit","code":4}`)
		if errors.As(err, &unavailable) {
			// When this machine has slept over the pause, the next one is longer.
			if s = g.Status(); time.Since(asked) < unavailable.RetryAfter-500*time.Millisecond {
				break
			}
			continue
		}
		if _, ok := errors.AsType[*worker.DiedError](err); !ok {
			t.Fatalf("%d: err = %v", i, err)
		}
	}
	if unavailable == nil {
		t.Fatal("it was restarted for ever")
	}
	if unavailable.RetryAfter <= 0 || !strings.Contains(unavailable.Reason, "code 4") {
		t.Errorf("err = %+v", unavailable)
	}
	if s.State != serving.StateFailed || !strings.Contains(s.Reason, "code 4") {
		t.Errorf("status = %+v", s)
	}
	eventually(t, "it comes back by itself", func() bool { return askErr(t.Context(), g, `1`) == nil })
}

func TestAFloodOfOutputNeitherBlocksNorFillsTheLog(t *testing.T) {
	w := newWorld(t, func(o *worker.Options) { o.Bound(worker.Bounds{OutputRate: 20_000}) })
	g := w.start(t, "echo", "echo.py", nil)
	ask(t, g, `{"do":"print","lines":20000,"width":200}`)
	ask(t, g, `{"do":"print","lines":3,"width":100000}`)
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	w.log.waitFor(t, "output dropped")
	if n := len(w.log.String()); n > 1<<20 {
		t.Errorf("the log has %d bytes", n)
	}
}

func TestAWorkerThatSaysItIsBeyondHelpIsReplaced(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	before := ask(t, g, `{"do":"pid"}`)
	if r := do(t, g, `{"do":"fatal"}`); r.Status != 500 || r.ErrorKind != "fatal" {
		t.Errorf("answered %d %q", r.Status, r.ErrorKind)
	}
	if after := ask(t, g, `{"do":"pid"}`); after == before {
		t.Error("it was not replaced")
	}
	w.log.waitFor(t, "only a new process can heal")
}

func TestTheZygotesDeathIsHealed(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	pid := ask(t, g, `{"do":"pid"}`)
	zygote := parentOf(t, pid)
	if err := syscall.Kill(zygote, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another worker answers", func() bool {
		r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"do":"pid"}`)})
		return err == nil && string(r.Body) != pid
	})
	w.log.waitFor(t, "forked from died")
	eventually(t, "the old worker is dead", func() bool { return !alive(pid) })
}

func TestTheZygotesStandbysTakeOverWithoutImports(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	for range 3 { // the zygote, its standby, and that one's
		g.LoadedAtOnce()
		pid := ask(t, g, `{"do":"pid"}`)
		zygote := parentOf(t, pid)
		// One that has not left the zygote's group yet dies with it.
		eventually(t, "there is a standby", func() bool { return slices.ContainsFunc(childrenOf(t, zygote), leadsSession) })
		if err := syscall.Kill(zygote, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another worker answers", func() bool {
			r, err := g.Do(t.Context(), &worker.Request{Body: []byte(`{"do":"pid"}`)})
			return err == nil && string(r.Body) != pid
		})
	}
	if n := strings.Count(w.log.String(), "its standby has taken over"); n != 3 {
		t.Errorf("%d successions", n)
	}
	if n := strings.Count(w.log.String(), "zygote ready"); n != 1 {
		t.Errorf("%d zygotes were started", n)
	}
}

// leadsSession says whether a process has a session of its own.
func leadsSession(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false // it has ended
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	return len(fields) > 3 && fields[3] == pid
}

// childrenOf are the processes that one has forked and that live.
func childrenOf(t *testing.T, parent int) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

func TestCloseLeavesNothing(t *testing.T) {
	files := openFiles(t)
	env := installed(t)
	pool := worker.New(worker.Options{Environment: env, RuntimeDir: t.TempDir(), Preload: []string{}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(ctx) }()
	var pids []string
	for i := range 3 {
		g, err := pool.Start(t.Context(), worker.Spec{Endpoint: fmt.Sprint("e", i), Engine: "custom", CodePath: code("echo.py"), Workers: i + 1})
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, ask(t, g, `{"do":"pid"}`))
		if i == 0 {
			if err := g.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if err := askErr(t.Context(), g, `1`); !errors.Is(err, worker.ErrClosed) {
				t.Errorf("after Close: err = %v", err)
			}
		}
	}
	pids = append(pids, strconv.Itoa(parentOf(t, pids[1])))
	cancel() // two groups are still open
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %s lives on", pid)
		}
	}
	if _, err := pool.Start(t.Context(), worker.Spec{Endpoint: "late"}); !errors.Is(err, worker.ErrClosed) {
		t.Errorf("Start after the end: err = %v", err)
	}
	eventually(t, "as few files are open as before", func() bool { return openFiles(t) <= files })
}

func TestCloseFinishesWhatIsUnderWay(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	var all sync.WaitGroup
	question, open := gate(t)
	for range 5 {
		all.Go(func() { ask(t, g, question) })
	}
	eventually(t, "all are there", func() bool { s := g.Status(); return s.Queued+s.Workers[0].InFlight == 5 })
	all.Go(open)
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	all.Wait()
	w.log.waitFor(t, "unloaded")
}

func TestCloseCutsOffWhatTakesTooLong(t *testing.T) {
	w := newWorld(t, nil)
	g := w.start(t, "echo", "echo.py", nil)
	failed := make(chan error, 1)
	go func() { failed <- askErr(context.Background(), g, `{"do":"spin"}`) }()
	eventually(t, "it spins", g.Busy)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close = %v", err)
	}
	var died *worker.DiedError
	if err := <-failed; !errors.As(err, &died) || !died.Death.Asked {
		t.Errorf("the request: err = %v", err)
	}
}

// gate is a question that is not answered before the gate is opened.
func gate(t *testing.T) (question string, open func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "open")
	return fmt.Sprintf(`{"do":"wait","for":%q}`, path), func() {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func parentOf(t *testing.T, pid string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	n, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
