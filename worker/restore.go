package worker

import (
	"context"
	"fmt"
)

// restore brings back what a new process of the group needs: files may have been
// removed or damaged since the endpoint was loaded. The first load needs none of it,
// since its files have just been brought.
func (g *Group) restore(ctx context.Context) error {
	g.mu.Lock()
	started, distrust := g.started, g.distrust
	g.distrust = false
	g.mu.Unlock()
	if !started {
		return nil
	}
	var err error
	if g.spec.Restore != nil {
		if err = g.spec.Restore(ctx, distrust); err == nil {
			err = g.pool.admit(g.spec)
		}
	}
	if err == nil {
		err = g.pool.zygote.restore(ctx)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("start a worker of %q: %w", g.spec.Endpoint, context.Cause(ctx))
	}
	g.mu.Lock()
	g.distrust = g.distrust || distrust
	g.mu.Unlock()
	return &LoadError{Endpoint: g.spec.Endpoint, Text: "what it is loaded from is gone and cannot be brought back: " + err.Error()}
}

// restore makes the folders that the zygote and its workers read from, if they are gone.
func (z *zygote) restore(ctx context.Context) error {
	if z.o.Restore != nil {
		if err := z.o.Restore(ctx); err != nil {
			return err
		}
	}
	if present(z.o.RuntimeDir) {
		return nil
	}
	_, err := extractRuntime(z.o.RuntimeDir)
	return err
}
