package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"
)

// The documented statuses of an endpoint whose engine fails: 503 as soon as that is known, 500 for what the engine worked on,
// 504 for what it did not answer in time.
var (
	engineLost    = []int{http.StatusInternalServerError, http.StatusServiceUnavailable}
	engineStopped = []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
)

// engineFaults are faults of the servers that compute the models of endpoints: these have the documented statuses, and are back
// within 5 s of their engine; no other endpoint notices.
func engineFaults() []fault {
	var all []fault
	for _, e := range engines() {
		kinds := []fault{
			{name: "killed", about: "SIGKILL to " + e.what + again(e), statuses: engineLost, inject: e.with(engineKilled)},
			{name: "stopped", about: "SIGSTOP to " + e.what + continued(e), statuses: engineStopped, inject: e.with(engineIsStopped)},
			{name: "slow", about: e.what + " sends each piece of an answer 100 ms late, which nobody notices, then answers after the deadline", statuses: []int{http.StatusGatewayTimeout}, inject: e.with(engineSlow)},
			{name: "garbage", about: e.what + " sends what is not of its protocol" + lying(e), statuses: engineStopped, inject: e.with(engineGarbage)},
			{name: "restarted", about: e.what + " is killed and started again under load, several times", statuses: engineStopped, inject: e.with(engineRestarted)},
		}
		if e.role {
			kinds = append(kinds, fault{name: "orphaned", about: "SIGKILL to the role that runs " + e.what + ": that ends too; then a start of the role", statuses: engineStopped, inject: e.with(engineOrphaned)})
		}
		for _, f := range kinds {
			if e.real && slices.Contains([]string{"slow", "garbage"}, f.name) {
				continue // a real server cannot be made to
			}
			f.slow = !slices.Contains([]string{"v2-killed", "v2-garbage", "openai-garbage"}, e.name+"-"+f.name)
			f.name, f.hit = "engine-"+e.name+"-"+f.name, beside
			all = append(all, f)
		}
	}
	return all
}

func again(e engine) string {
	if e.supervised {
		return ", which is started again"
	}
	return ", and a start at the same address"
}

func continued(e engine) string {
	if e.supervised {
		return ", which goes on, and the next time is replaced"
	}
	return ", which goes on"
}

func lying(e engine) string {
	if e.lies {
		return ", then broken JSON"
	}
	return ""
}

// with is a fault of an engine whose endpoints are asked all the time. They are removed afterwards.
func (e engine) with(inject func(context.Context, *engineRun) error) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) (err error) {
		if why := e.missing(); why != "" {
			return fmt.Errorf("%w: %s", errSkipped, why)
		}
		dir, err := os.MkdirTemp(w.dir, "engine-")
		if err != nil {
			return err
		}
		r := &engineRun{w: w, dir: dir, supervised: e.supervised, lies: e.lies}
		defer func() {
			for _, end := range slices.Backward(r.ends) {
				err = errors.Join(err, end())
			}
		}()
		if err := e.start(ctx, r); err != nil {
			return err
		}
		r.load = newEngineLoad(w, r.asked)
		defer r.load.end()
		if err := r.load.answers(ctx); err != nil {
			return err
		}
		w.back = 0 // nothing has failed yet
		return inject(ctx, r)
	}
}

// signal sends a signal to the server.
func (r *engineRun) signal(ctx context.Context, which syscall.Signal) (pid int, err error) {
	if pid, err = r.pid(ctx); err != nil {
		return 0, err
	}
	return pid, syscall.Kill(pid, which)
}

// returns waits for the server after a fault of the process, and then for answers. A server that nobody supervises is started
// again.
func (r *engineRun) returns(ctx context.Context, before int) error {
	if !r.supervised {
		if err := r.again(ctx); err != nil {
			return err
		}
	}
	if err := r.upAgain(ctx, before); err != nil {
		return err
	}
	return r.load.answers(ctx)
}

// upAgain waits until a new process of the server answers itself.
func (r *engineRun) upAgain(ctx context.Context, before int) error {
	return r.w.serving().wait(ctx, func() error {
		pid, err := r.pid(ctx)
		if err == nil && pid == before {
			err = fmt.Errorf("process %d has not been replaced", pid)
		}
		if err != nil {
			return err
		}
		return r.up(ctx)
	})
}

func engineKilled(ctx context.Context, r *engineRun) error {
	pid, err := r.signal(ctx, syscall.SIGKILL)
	if err != nil {
		return err
	}
	failing := r.load.refused
	if r.supervised { // it is back at once
		failing = r.load.failing
	}
	if err := failing(ctx); err != nil {
		return err
	}
	if !r.supervised {
		if err := pause(ctx, awayTime); err != nil {
			return err
		}
	}
	return r.returns(ctx, pid)
}

// awayTime is how long a server is away that nobody supervises: longer than a client may wait between two attempts that doubles its
// pauses.
const awayTime = 10 * time.Second

func engineIsStopped(ctx context.Context, r *engineRun) error {
	if _, err := r.signal(ctx, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := r.load.refused(ctx); err != nil {
		return err
	}
	if _, err := r.signal(ctx, syscall.SIGCONT); err != nil {
		return err
	}
	if err := r.load.answers(ctx); err != nil || !r.supervised {
		return err
	}
	pid, err := r.signal(ctx, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	if err := r.load.refused(ctx); err != nil {
		return err
	}
	return r.returns(ctx, pid)
}

// slowTime is how long a server is slow without harm.
const slowTime = 3 * time.Second

func engineSlow(ctx context.Context, r *engineRun) error {
	if err := r.be(standSlow); err != nil {
		return err
	}
	before := map[string]map[int]int{}
	for _, q := range r.asked {
		before[q.name] = r.load.counts(q.name)
	}
	if err := pause(ctx, slowTime); err != nil {
		return err
	}
	for _, q := range r.asked {
		now := r.load.counts(q.name)
		if failed := fails(now) - fails(before[q.name]); failed > 0 {
			return fmt.Errorf("endpoint %s: %d requests failed while the engine was slow: %v, before %v", q.name, failed, now, before[q.name])
		}
		if now[http.StatusOK]-before[q.name][http.StatusOK] < besideClients {
			return fmt.Errorf("endpoint %s: no answers while the engine was slow: %v, before %v", q.name, now, before[q.name])
		}
	}
	if err := r.be(standLate); err != nil {
		return err
	}
	if err := r.load.until(ctx, 2*back, "answered 504", func(counts map[int]int) bool { return counts[http.StatusGatewayTimeout] >= 2*besideClients }); err != nil {
		return err
	}
	if err := r.be(standHonest); err != nil {
		return err
	}
	return r.load.answers(ctx)
}

func engineGarbage(ctx context.Context, r *engineRun) error {
	moods := []string{standGarbage}
	if r.lies {
		moods = append(moods, standLies)
	}
	for _, mood := range moods {
		if err := r.be(mood); err != nil {
			return err
		}
		asked := r.asked
		if mood == standLies {
			asked = slices.DeleteFunc(slices.Clone(asked), func(q question) bool { return q.binary })
		}
		if err := r.load.ofRefused(ctx, asked); err != nil {
			return fmt.Errorf("%s: %w", mood, err)
		}
		if err := r.be(standHonest); err != nil {
			return err
		}
		if err := r.upAgain(ctx, 0); err != nil {
			return err
		}
		if err := r.load.answers(ctx); err != nil {
			return fmt.Errorf("after %s: %w", mood, err)
		}
	}
	return nil
}

func engineRestarted(ctx context.Context, r *engineRun) error {
	times := 5
	if r.supervised { // the pauses between two starts grow
		times = 3
	}
	for range times {
		pid, err := r.signal(ctx, syscall.SIGKILL)
		if err != nil {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if err := r.returns(ctx, pid); err != nil {
			return err
		}
	}
	return nil
}

func engineOrphaned(ctx context.Context, r *engineRun) error {
	pid, err := r.pid(ctx)
	if err != nil {
		return err
	}
	r.role.kill()
	for end := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; {
		if time.Now().After(end) {
			return fmt.Errorf("server %d outlives its role", pid)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	if err := errors.Join(r.load.refused(ctx), pause(ctx, awayTime)); err != nil {
		return err
	}
	if err := r.again(ctx); err != nil {
		return err
	}
	if err := r.upAgain(ctx, pid); err != nil {
		return err
	}
	return r.load.answers(ctx)
}
