package worker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/worker"
)

// The tests of this file that take minutes, gigabytes and a quiet machine run only
// when CLEARML_SERVING_ENDURANCE is set. They print the figures of docs/workers.md.

func endurance(t *testing.T) {
	t.Helper()
	if os.Getenv("CLEARML_SERVING_ENDURANCE") == "" {
		t.Skip("it takes minutes: set CLEARML_SERVING_ENDURANCE=1 and CLEARML_SERVING_TEST_PYTHON")
	}
}

func runPython(t *testing.T, script string, args ...string) {
	t.Helper()
	env := installed(t, "sklearn", "numpy", "joblib")
	child, err := process.Start(t.Context(), process.Spec{Path: env.Executable, Args: append([]string{"-c", script}, args...), Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatal(d.Detail())
	}
}

// percentile is the value below which the share p of all lies.
func percentile(all []time.Duration, p float64) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[min(int(p*float64(len(all))), len(all)-1)]
}

// memoryOf is the memory of a process and all below it, in bytes, what they share
// counted once.
func memoryOf(t *testing.T, root int) int64 {
	t.Helper()
	return sharesOf(t, root, "Pss")
}

// ownMemoryOf leaves out files that are mapped into memory: their pages are shared
// with every process of the machine that maps them, so that another program's end
// makes our share of Python's library larger.
func ownMemoryOf(t *testing.T, root int) int64 {
	t.Helper()
	return sharesOf(t, root, "Pss_Anon") + sharesOf(t, root, "Pss_Shmem")
}

// sharesOf adds up a line of smaps_rollup, in bytes, over a process and all below it.
func sharesOf(t *testing.T, root int, field string) (total int64) {
	t.Helper()
	for _, pid := range append(descendants(t, root), root) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, field+":"); ok {
				kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB\n")), 10, 64)
				if err != nil {
					t.Fatalf("smaps_rollup: %q: %s", line, err)
				}
				total += kilobytes << 10
			}
		}
	}
	return total
}

func descendants(t *testing.T, root int) (found []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && alive(e.Name()) {
			for at := pid; at > 1 && at != root; {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", at))
				_, rest, ok := strings.Cut(string(b), ") ")
				if err != nil || !ok {
					break
				}
				if at, err = strconv.Atoi(strings.Fields(rest)[1]); err != nil {
					break
				}
				if at == root {
					found = append(found, pid)
				}
			}
		}
	}
	return found
}

// TestCyclesOfLoadingLeaveNothing loads and closes an endpoint again and again:
// CLEARML_SERVING_CYCLES times when it is set.
func TestCyclesOfLoadingLeaveNothing(t *testing.T) {
	cycles := 100
	if n, err := strconv.Atoi(os.Getenv("CLEARML_SERVING_CYCLES")); err == nil {
		cycles = n
	}
	w := newWorld(t, nil)
	first := w.start(t, "stays", "echo.py", nil)
	zygote := parentOf(t, ask(t, first, `{"do":"pid"}`))
	cycle := func() {
		g := w.start(t, "comes and goes", "echo.py", func(s *worker.Spec) { s.Workers = 1 })
		ask(t, g, `1`)
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	state := func() (files, zygoteFiles int, memory, heap int64) {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", zygote))
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return openFiles(t), len(entries), ownMemoryOf(t, zygote), int64(m.HeapAlloc) - int64(len(w.log.String()))
	}
	for range 20 {
		cycle()
	}
	eventually(t, "the zygote has its standby", func() bool { return len(descendants(t, zygote)) == 2 })
	files, zygoteFiles, memory, heap := state()
	begun := time.Now()
	for range cycles {
		cycle()
	}
	t.Logf("%d cycles, %s each", cycles, time.Since(begun)/time.Duration(cycles))
	// The worker that stays and the zygote's standby.
	eventually(t, "as few processes are there as before", func() bool { return len(descendants(t, zygote)) <= 2 })
	filesAfter, zygoteFilesAfter, memoryAfter, heapAfter := state()
	t.Logf("files %d -> %d, of the zygote %d -> %d; memory of the processes %d -> %d KiB, our heap %d -> %d KiB",
		files, filesAfter, zygoteFiles, zygoteFilesAfter, memory>>10, memoryAfter>>10, heap>>10, heapAfter>>10)
	if filesAfter > files || zygoteFilesAfter > zygoteFiles {
		t.Error("files stay open")
	}
	if memoryAfter > memory+2<<20 || heapAfter > heap+4<<20 {
		t.Error("memory is not given back")
	}
}

func TestFiguresOfReplacement(t *testing.T) {
	endurance(t)
	dir := t.TempDir()
	small, large := filepath.Join(dir, "model.pkl"), filepath.Join(dir, "model.npy")
	runPython(t, trainScript, small)
	runPython(t, "import numpy, sys; numpy.save(sys.argv[1], numpy.ones(1 << 27))", large)
	w := newWorld(t, func(o *worker.Options) { o.Preload = nil; o.Bound(worker.Bounds{MaxBackoff: time.Millisecond}) })
	for _, tc := range []struct {
		name, file, engine, model string
		rounds                    int
		bound                     time.Duration
	}{
		{"scikit-learn", "rows.py", "sklearn", small, 50, 50 * time.Millisecond},
		{"an array of 1 GiB", "big.py", "custom", large, 10, time.Second},
	} {
		started := time.Now()
		g := w.start(t, tc.name, tc.file, func(s *worker.Spec) { s.Engine, s.ModelPath = tc.engine, tc.model })
		t.Logf("%s: loaded in %s", tc.name, time.Since(started))
		question := `{"x":[5.1,3.5,1.4,0.2]}`
		ask(t, g, question)
		var took []time.Duration
		for range tc.rounds {
			eventually(t, "it is ready", func() bool { s := g.Status(); return len(s.Workers) == 1 && s.Workers[0].State == "idle" })
			pid := g.Status().Workers[0].PID
			begun := time.Now()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for askErr(t.Context(), g, question) != nil || g.Status().Workers[0].PID == pid {
				runtime.Gosched()
			}
			took = append(took, time.Since(begun))
		}
		p50, p99 := percentile(took, 0.5), percentile(took, 0.99)
		t.Logf("%s: killed to next answer: median %s, p99 %s", tc.name, p50, p99)
		if p50 > tc.bound {
			t.Errorf("%s: replaced in %s, want %s", tc.name, p50, tc.bound)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestFiguresOfAThousandEndpoints(t *testing.T) {
	endurance(t)
	model := filepath.Join(t.TempDir(), "model.pkl")
	runPython(t, trainScript, model)
	const most = 2 << 30
	w, budget := withBudget(t, most, func(o *worker.Options) { o.Preload = nil })
	const count = 1000
	groups := make([]*worker.Group, count)
	begun := time.Now()
	next := make(chan int)
	var loads sync.WaitGroup
	for range 2 {
		loads.Go(func() {
			for i := range next {
				groups[i] = w.start(t, fmt.Sprint("e", i), "rows.py", func(s *worker.Spec) {
					s.Engine, s.ModelPath, s.Elastic, s.Limits.IdleTimeout = "sklearn", model, 1, 10
				})
			}
		})
	}
	seen := int64(0)
	for i := range count {
		next <- i
		if i%50 == 0 {
			seen = max(seen, memoryOf(t, os.Getpid()))
		}
	}
	close(next)
	loads.Wait()
	t.Logf("%d endpoints loaded in %s; most memory while they loaded %d MiB", count, time.Since(begun).Round(time.Millisecond), seen>>20)
	eventually(t, "all sleep", func() bool {
		return !slices.ContainsFunc(groups, func(g *worker.Group) bool { return !g.Status().Asleep })
	})
	t.Logf("asleep: %d MiB", memoryOf(t, os.Getpid())>>20)
	var cold []time.Duration
	for i := range groups {
		started := time.Now()
		if got := ask(t, groups[i], `{"x":[5.1,3.5,1.4,0.2]}`); got != `{"y":[0]}` {
			t.Fatal(got)
		}
		cold = append(cold, time.Since(started))
		if i%100 == 99 {
			taken, awake := memoryOf(t, os.Getpid()), 0
			for _, g := range groups {
				if !g.Status().Asleep {
					awake++
				}
			}
			t.Logf("after %d: %d MiB, %d awake; the budget has %d MiB, and ended %d early", i+1, taken>>20, awake, budget.Status().Taken>>20, budget.Status().EndedEarly)
			seen = max(seen, taken)
		}
	}
	t.Logf("cold first answers: median %s, p99 %s, slowest %s; most memory %d MiB",
		percentile(cold, 0.5), percentile(cold, 0.99), percentile(cold, 1), seen>>20)
	if p99 := percentile(cold, 0.99); p99 > 300*time.Millisecond {
		t.Errorf("p99 of a cold first answer is %s", p99)
	}
	if seen > most {
		t.Errorf("they took %d MiB", seen>>20)
	}
}

func TestFiguresOfALoadBesideOthers(t *testing.T) {
	endurance(t)
	large := filepath.Join(t.TempDir(), "model.npy")
	runPython(t, "import numpy, sys; numpy.save(sys.argv[1], numpy.ones(1 << 28))", large)
	w := newWorld(t, func(o *worker.Options) { o.Preload = nil })
	g := w.start(t, "neighbour", "echo.py", nil)
	measure := func(ctx context.Context) (took []time.Duration) {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			<-ticker.C
			begun := time.Now()
			ask(t, g, `{"x":[5.1,3.5,1.4,0.2]}`)
			took = append(took, time.Since(begun))
		}
		return took
	}
	var quiet, beside []time.Duration
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		quiet = append(quiet, measure(ctx)...)
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		var load sync.WaitGroup
		load.Go(func() {
			defer cancel()
			big := w.start(t, "big", "big.py", func(s *worker.Spec) { s.ModelPath = large })
			if err := big.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		beside = append(beside, measure(ctx)...)
		load.Wait()
	}
	before, during := percentile(quiet, 0.99), percentile(beside, 0.99)
	t.Logf("p99 of a neighbour: %s alone (%d requests), %s while 2 GiB load (%d), ratio %.2f", before, len(quiet), during, len(beside), float64(during)/float64(before))
}
