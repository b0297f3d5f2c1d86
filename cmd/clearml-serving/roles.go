package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/dustin/go-humanize"

	"clearmlserving/process"
)

// part is one piece of a role that runs beside others in this process.
type part struct {
	name string
	// run serves until ctx ends and returns when all of it is over. It calls
	// ready once it can be used by the parts that come after it.
	run func(ctx context.Context, ready func()) error
}

// runRole opens the data folder and runs the parts that make returns, until ctx ends.
func (a *app) runRole(ctx context.Context, level slog.Level, make func(*sockets) ([]part, error)) error {
	defer a.outlive()()
	reaping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var reaper sync.WaitGroup
	defer reaper.Wait()
	defer stop()
	reaper.Go(func() { process.ReapOrphans(reaping) })
	if err := enoughMemory(process.MemoryLimit()); err != nil {
		return err
	}
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	sockets := a.newSockets(dir, a.logger(level))
	defer sockets.close()
	defer context.AfterFunc(ctx, sockets.hide)()
	parts, err := make(sockets)
	if err != nil {
		return err
	}
	return runParts(ctx, sockets.log, parts...)
}

// leastMemory is what a service takes with nothing to do. With less it would be killed at once, again and again, without a word.
const leastMemory = 32 << 20

func enoughMemory(limit int64, known bool) error {
	if !known || limit >= leastMemory {
		return nil
	}
	return hint(fmt.Errorf("this container may take %s of memory, and the service alone needs %s", humanize.IBytes(uint64(max(0, limit))), humanize.IBytes(leastMemory)),
		"Raise its limit of memory: 512 MiB suit a small model in Python")
}

// runParts starts the parts in order, each once the one before is ready, until
// ctx ends or a part does. It stops them in reverse order, each after the ones that
// need it: inference drains while the control plane still takes its last report. The
// error names the part that failed.
func runParts(ctx context.Context, log *slog.Logger, parts ...part) error {
	var all error
	var failure sync.Mutex // guards all
	ended := make(chan struct{}, len(parts))
	var stops []func()
	stopAll := func() error {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
		failure.Lock()
		defer failure.Unlock()
		return all
	}
	for _, p := range parts {
		partCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		ready := make(chan struct{})
		done := make(chan struct{})
		go func() { // ended by cancel, waited for by the stop below
			defer close(done)
			err := p.run(partCtx, sync.OnceFunc(func() { close(ready) }))
			if err != nil {
				failure.Lock()
				all = errors.Join(all, fmt.Errorf("%s: %w", p.name, err))
				failure.Unlock()
			}
			ended <- struct{}{}
		}()
		stops = append(stops, func() {
			log.Debug("stopping", "part", p.name)
			cancel()
			<-done
		})
		select {
		case <-ready:
		case <-ended:
			return stopAll()
		case <-ctx.Done():
			return stopAll()
		}
	}
	select {
	case <-ended:
	case <-ctx.Done():
		log.Info("stopping", "hint", "a second signal ends at once")
	}
	return stopAll()
}
