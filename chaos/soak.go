package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// soakTick is the time between two samples, soakChange the time between two changes of
// the configuration.
const (
	soakTick   = 5 * time.Second
	soakChange = time.Second
)

// soak loads an installation for a long time while its configuration changes, and checks that its
// resources do not grow.
func soak(ctx context.Context, s settings, dir string) (err error) {
	world, err := start(ctx, s, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.stop()) }()
	t := newTraffic(world)
	defer t.end()
	say("load and changing configuration for %v", s.soak)
	samples, err := soakLoop(ctx, s.soak, world, t)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, world.lastLines())
	}
	w := t.take("")
	growths := growthsOf(samples)
	if err := writeSoak(s.results, s.table, samples, growths); err != nil {
		return err
	}
	fmt.Printf("%d right answers, %d failed, %d wrong\n", t.total(), w.elsewhere.failures(), w.elsewhere.wrong)
	for _, g := range growths {
		fmt.Println(g)
		if g.grows() {
			err = errors.Join(err, fmt.Errorf("%s grows", g.What))
		}
	}
	if n := w.elsewhere.failures() + w.elsewhere.wrong; n > 0 {
		err = errors.Join(err, fmt.Errorf("%d answers failed or were wrong (%s)", n, w.elsewhere.example))
	}
	return err
}

func soakLoop(ctx context.Context, long time.Duration, w *world, t *traffic) ([]sample, error) {
	begun := time.Now()
	sampling := time.NewTicker(soakTick)
	defer sampling.Stop()
	changing := time.NewTicker(soakChange)
	defer changing.Stop()
	change, err := newChanges(w)
	if err != nil {
		return nil, err
	}
	var samples []sample
	for n := 0; time.Since(begun) < long; {
		select {
		case <-sampling.C:
			samples = append(samples, takeSample(ctx, w, time.Since(begun), t.total()))
			if len(samples)%12 == 0 {
				say("%s", samples[len(samples)-1])
			}
		case <-changing.C:
			if err := change.next(ctx, n); err != nil {
				return samples, err
			}
			n++
		case <-ctx.Done():
			return samples, ctx.Err()
		}
	}
	return samples, nil
}

// changes are the repeated changes of the configuration: new code, a new endpoint, a canary over
// it, and the removal of both.
type changes struct {
	w    *world
	code string
	text []byte
}

func newChanges(w *world) (*changes, error) {
	text, err := os.ReadFile("chaos/code/steady.py")
	return &changes{w: w, code: filepath.Join(w.dir, "steady.py"), text: text}, err
}

func (c *changes) next(ctx context.Context, n int) error {
	if err := os.WriteFile(c.code, fmt.Appendf(slices.Clip(c.text), "\n# %d\n", n), 0o600); err != nil {
		return err
	}
	guest := []string{"model", "add", "--endpoint", "guest", "--version", "1", "--engine", "custom", "--preprocess", c.code}
	var args []string
	switch n % 6 {
	case 0, 3:
		args = []string{"model", "add", "--endpoint", bystanders[n/6%4], "--engine", "custom", "--preprocess", c.code}
	case 1:
		args = guest
	case 2:
		args = []string{"model", "canary", "--endpoint", "taste", "--weights", "0.5", "0.5", "--input-endpoints", "guest/1", bystanders[0]}
	case 4:
		args = []string{"model", "remove", "--endpoint", "taste"}
	case 5:
		args = []string{"model", "remove", "--endpoint", "guest/1"}
	}
	err := c.w.cli(ctx, args...)
	return err
}
