package remote_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var errRefused = errors.New("connection refused")

// probes are the answers of the probes of addresses.
type probes struct {
	mu   sync.Mutex
	list map[int]func(context.Context) error
}

func (p *probes) set(index int, probe func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list == nil {
		p.list = map[int]func(context.Context) error{}
	}
	p.list[index] = probe
}

func (p *probes) ask(ctx context.Context, index int) error {
	p.mu.Lock()
	probe := p.list[index]
	p.mu.Unlock()
	if probe == nil {
		return nil
	}
	return probe(ctx)
}

// hang is the probe of a server that has stopped.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// open runs a set with a pool of these addresses.
func open(t *testing.T, p *probes, addresses ...string) *remote.Pool {
	t.Helper()
	set := &remote.Set{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		set.Run(ctx)
		close(done)
	}()
	pool, err := set.Open("k", func() (remote.Options, error) {
		return remote.Options{Name: "Engine", Addresses: addresses, Probe: p.ask}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		cancel()
		<-done
	})
	return pool
}

// ask asks once, and returns the addresses that were tried.
func ask(t *testing.T, pool *remote.Pool, answer func(address string) error) (tried []string, err error) {
	t.Helper()
	err = pool.Do(t.Context(), func(_ context.Context, use *remote.Use) error {
		tried = append(tried, use.Address())
		return answer(use.Address())
	})
	return tried, err
}

func fine(string) error { return nil }

func stateOf(pool *remote.Pool, i int) serving.AddressState { return pool.Report()[i].State }

func TestTheAddressWithTheLeastOutstandingRequestsIsTaken(t *testing.T) {
	pool := open(t, &probes{}, "a", "b", "c")
	release := make(chan struct{})
	var held sync.WaitGroup
	count := map[string]int{}
	var mu sync.Mutex
	for range 9 {
		begun := make(chan struct{})
		held.Go(func() {
			_ = pool.Do(t.Context(), func(_ context.Context, use *remote.Use) error {
				mu.Lock()
				count[use.Address()]++
				mu.Unlock()
				close(begun)
				<-release
				return nil
			})
		})
		<-begun
	}
	if fmt.Sprint(count) != "map[a:3 b:3 c:3]" {
		t.Errorf("%v", count)
	}
	for _, r := range pool.Report() {
		if r.Outstanding != 3 || r.State != serving.AddressHealthy {
			t.Errorf("%+v", r)
		}
	}
	close(release)
	held.Wait()
	if r := pool.Report()[0]; r.Outstanding != 0 || r.Answered != 3 {
		t.Errorf("%+v", r)
	}
}

func TestOnlyWhatHasNotBegunIsTriedAgain(t *testing.T) {
	pool := open(t, &probes{}, "a", "b")
	for name, tc := range map[string]struct {
		err   error
		tries int
	}{
		"not begun":       {remote.NotBegun(errRefused), 2},
		"broken":          {remote.Broken(errors.New("EOF")), 1},
		"a server's word": {errors.New("no such model"), 1},
		"an answer":       {nil, 1},
	} {
		tried, err := ask(t, pool, func(string) error { return tc.err })
		if len(tried) != tc.tries || tc.tries == 2 && tried[0] == tried[1] {
			t.Errorf("%s: tried %v", name, tried)
		}
		if (err == nil) != (tc.err == nil) || err != nil && err.Error() != tc.err.Error() {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := ask(t, pool, fine); again != nil { // the failures are not in a row
			t.Fatal(again)
		}
		_, _ = ask(t, pool, fine)
	}
	if !remote.Begun(remote.Broken(errRefused)) || remote.Begun(remote.NotBegun(errRefused)) || remote.Begun(errRefused) {
		t.Error("Begun")
	}
}

func TestRetriesHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := open(t, &probes{}, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p")
		tries := 0
		for range 40 { // each address fails fewer times in a row than eject it
			_, err := ask(t, pool, func(string) error {
				tries++
				if tries%2 == 0 {
					return nil
				}
				return remote.NotBegun(errRefused)
			})
			_ = err
		}
		if tries < 60 || tries > 40+20+8+1 {
			t.Errorf("%d tries for 40 requests", tries)
		}
	})
}

func TestARetryEndsWithItsRequest(t *testing.T) {
	pool := open(t, &probes{}, "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	err := pool.Do(ctx, func(context.Context, *remote.Use) error {
		tries++
		cancel()
		return remote.NotBegun(errRefused)
	})
	if tries != 1 || err == nil {
		t.Errorf("%d tries, %v", tries, err)
	}
	if r := pool.Report(); r[0].Failed+r[1].Failed != 0 {
		t.Errorf("the end of a request counts against its server: %+v", r)
	}
}

func TestAnAddressWhoseRequestsFailIsEjectedAndTriedWithOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := open(t, &probes{}, "a")
		broken := func(string) error { return remote.Broken(errors.New("garbage")) }
		for range 3 {
			if _, err := ask(t, pool, broken); err == nil {
				t.Fatal("no error")
			}
		}
		if s := stateOf(pool, 0); s != serving.AddressEjected {
			t.Fatalf("after three failures: %s", s)
		}
		_, err := ask(t, pool, fine)
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != engine.KindUnavailable || failed.RetryAfter == 0 || !strings.Contains(failed.Text, "garbage") {
			t.Fatalf("%v", err)
		}
		time.Sleep(1600 * time.Millisecond)
		if s := stateOf(pool, 0); s != serving.AddressTrial {
			t.Fatalf("after the pause: %s", s)
		}
		err = pool.Do(t.Context(), func(context.Context, *remote.Use) error {
			if tried, err := ask(t, pool, fine); len(tried) > 0 || err == nil {
				t.Error("two requests at once are tried")
			}
			return remote.Broken(errors.New("garbage again"))
		})
		if err == nil || stateOf(pool, 0) != serving.AddressEjected {
			t.Fatalf("after a failed trial: %v, %+v", err, pool.Report())
		}
		time.Sleep(1600 * time.Millisecond)
		if s := stateOf(pool, 0); s != serving.AddressEjected { // twice as long
			t.Fatalf("after half of the second pause: %s", s)
		}
		time.Sleep(time.Second)
		if _, err := ask(t, pool, fine); err != nil || stateOf(pool, 0) != serving.AddressHealthy {
			t.Errorf("after a good trial: %v, %+v", err, pool.Report())
		}
		r := pool.Report()[0]
		if r.Reason != "" || r.Failed != 4 || r.LastError != "garbage again" || r.LastErrorAt.IsZero() {
			t.Errorf("%+v", r)
		}
	})
}

func TestATrialOfACancelledRequestIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := open(t, &probes{}, "a")
		for range 3 {
			_, _ = ask(t, pool, func(string) error { return remote.Broken(errRefused) })
		}
		time.Sleep(1600 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		_ = pool.Do(ctx, func(context.Context, *remote.Use) error {
			cancel()
			return ctx.Err()
		})
		if _, err := ask(t, pool, fine); err != nil || stateOf(pool, 0) != serving.AddressHealthy {
			t.Errorf("%v, %+v", err, pool.Report())
		}
	})
}

func TestAServerWithoutProgressIsSeenWithinThreeSeconds(t *testing.T) {
	for name, probe := range map[string]func(context.Context) error{
		"stopped": hang,
		"garbage": func(context.Context) error { return errors.New("its answer is garbage") },
		"panics":  func(context.Context) error { panic("probe") },
		"slow to fail": func(context.Context) error {
			time.Sleep(900 * time.Millisecond)
			return errRefused
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &probes{}
				pool := open(t, p, "a", "b")
				time.Sleep(10 * time.Second)
				p.set(1, probe)
				begun := time.Now()
				hanging, end := context.WithCancel(t.Context())
				var requests sync.WaitGroup
				for range 8 { // requests hang meanwhile
					requests.Go(func() {
						_ = pool.Do(hanging, func(ctx context.Context, _ *remote.Use) error { return hang(ctx) })
					})
				}
				for stateOf(pool, 1) != serving.AddressEjected {
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(begun); took > 3*time.Second {
					t.Errorf("after %s", took)
				}
				if tried, err := ask(t, pool, fine); err != nil || tried[0] != "a" {
					t.Errorf("%v, %v", tried, err)
				}
				if r := pool.Report()[1]; r.Reason == "" || r.LastError == "" || !r.Since.After(begun) {
					t.Errorf("%+v", r)
				}
				if why := pool.Unavailable(); why != "" {
					t.Errorf("the other is there: %s", why)
				}
				p.set(1, nil)
				back := time.Now()
				for stateOf(pool, 1) != serving.AddressHealthy {
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(back); took > 3*time.Second {
					t.Errorf("back after %s", took)
				}
				end()
				requests.Wait()
			})
		})
	}
}

func TestASlowProbeOfAServerThatAnswersIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probes{}
		p.set(0, hang)
		pool := open(t, p, "a")
		for range 100 {
			if _, err := ask(t, pool, fine); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if s := stateOf(pool, 0); s != serving.AddressHealthy {
			t.Errorf("%+v", pool.Report())
		}
	})
}

func TestAServerThatIsReplacedIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &probes{}
		pool := open(t, p, "a")
		p.set(0, func(context.Context) error { return errRefused })
		for range 3 {
			_, _ = ask(t, pool, func(string) error { return remote.NotBegun(errRefused) })
		}
		time.Sleep(20 * time.Second)
		if why := pool.Unavailable(); !strings.Contains(why, "connection refused") {
			t.Fatalf("%q", why)
		}
		p.set(0, nil)
		time.Sleep(600 * time.Millisecond)
		if _, err := ask(t, pool, fine); err != nil {
			t.Error(err)
		}
	})
}

func TestACheckHasTheWordsOfAllServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := atomic.Int64{}
		p := &probes{}
		p.set(0, func(context.Context) error {
			asked.Add(1)
			return errRefused
		})
		p.set(1, func(context.Context) error { return errors.New("model is loading") })
		set := &remote.Set{} // not running: it probes nothing by itself
		pool, err := set.Open("k", func() (remote.Options, error) {
			return remote.Options{Name: "Engine", Addresses: []string{"a", "b"}, Probe: p.ask}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		const want = "Engine does not answer: a: connection refused; b: model is loading"
		for range 10 { // loads of many endpoints
			if err := pool.Check(t.Context()); err == nil || err.Error() != want {
				t.Errorf("%v", err)
			}
		}
		if asked.Load() != 1 {
			t.Errorf("the servers are asked %d times", asked.Load())
		}
		time.Sleep(time.Second)
		p.set(1, hang)
		if err := pool.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "b: it has not answered a probe within 1s") {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Second)
		p.set(1, nil)
		if err := pool.Check(t.Context()); err != nil {
			t.Error(err)
		}
		pool.Close()
	})
}

func TestThoseWhoOpenAKeyShareOnePool(t *testing.T) {
	set := &remote.Set{}
	closed := 0
	options := func() (remote.Options, error) {
		return remote.Options{Addresses: []string{"a"}, Probe: (&probes{}).ask, Value: new(int), Close: func() { closed++ }}, nil
	}
	first, err := set.Open("k", options)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := set.Open("k", options)
	other, _ := set.Open("another", options)
	if first != second || first == other || first.Value() == nil {
		t.Error("not shared")
	}
	first.Close()
	if closed != 0 {
		t.Error("closed with a user")
	}
	second.Close()
	if third, _ := set.Open("k", options); closed != 1 || third == second {
		t.Error("a closed pool is used again")
	} else {
		third.Close()
	}
	other.Close()
	if _, err := set.Open("k", func() (remote.Options, error) { return remote.Options{}, nil }); err == nil {
		t.Error("a pool without an address")
	}
}

func TestAHeldUseCountsUntilItsEnd(t *testing.T) {
	pool := open(t, &probes{}, "a")
	var held remote.Use
	err := pool.Do(t.Context(), func(_ context.Context, use *remote.Use) error {
		use.Hold()
		held = *use
		return nil
	})
	if r := pool.Report()[0]; err != nil || r.Outstanding != 1 || r.Answered != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	held.Progress()
	held.End(remote.Broken(errors.New("cut")))
	if r := pool.Report()[0]; r.Outstanding != 0 || r.Failed != 1 || r.LastError != "cut" {
		t.Errorf("%+v", r)
	}
}

func BenchmarkDo(b *testing.B) {
	set := &remote.Set{}
	pool, err := set.Open("k", func() (remote.Options, error) {
		return remote.Options{Addresses: []string{"a", "b", "c"}, Probe: (&probes{}).ask}, nil
	})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(each *testing.PB) {
		for each.Next() {
			_ = pool.Do(b.Context(), func(context.Context, *remote.Use) error {
				n.Add(1)
				return nil
			})
		}
	})
}
