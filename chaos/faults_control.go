package main

import (
	"context"
	"errors"
	"net/url"
	"syscall"
	"time"
)

// controlFaults are faults of the control plane. No request may be affected.
func controlFaults() []fault {
	broken := func(m mood, howLong time.Duration) func(context.Context, *world) error {
		return func(ctx context.Context, w *world) error {
			w.api.be(m)
			w.files.be(m)
			err := pause(ctx, howLong)
			w.api.be(honest)
			w.files.be(honest)
			return err
		}
	}
	return []fault{
		{name: "control-refuses", about: "nothing listens at the control plane's address", inject: broken(refuse, 2*time.Second)},
		{name: "control-silent", about: "the control plane accepts connections and never answers", slow: true, inject: broken(silent, 3*time.Second)},
		{name: "control-garbage", about: "the control plane answers with something other than HTTP", inject: broken(garbage, 2*time.Second)},
		{name: "control-lies", about: "the control plane answers 200 with broken JSON", slow: true, inject: broken(lies, 2*time.Second)},
		{name: "control-denies", about: "the control plane refuses the credentials", slow: true, inject: broken(denies, 2*time.Second)},
		{name: "control-cuts", about: "answers of the control plane are truncated", slow: true, inject: broken(cuts, 2*time.Second)},
		{name: "control-slow", about: "the control plane answers 2 KB a second", inject: broken(slow, 3*time.Second), slow: true},
		{
			name: "control-killed", about: "SIGKILL to the control plane, and a restart on the same data",
			inject: func(ctx context.Context, w *world) error {
				w.control.kill()
				if err := pause(ctx, time.Second); err != nil {
					return err
				}
				return w.startControl(ctx, "127.0.0.1:0", "127.0.0.1:0") // another process may have taken its ports
			},
		},
		{
			name: "control-stopped", about: "SIGSTOP to the control plane", slow: true,
			inject: func(ctx context.Context, w *world) error {
				if err := w.control.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					return err
				}
				err := pause(ctx, 3*time.Second)
				return errors.Join(err, w.control.cmd.Process.Signal(syscall.SIGCONT))
			},
		},
		{
			name: "control-away-at-start", about: "another instance starts while the control plane is unreachable, from its cache", slow: true,
			inject: func(ctx context.Context, w *world) error {
				first, err := w.startInference(ctx, "second")
				if err != nil {
					return err
				}
				if err := first.stop(); err != nil {
					return err
				}
				w.api.be(refuse)
				w.files.be(refuse)
				again, err := w.startInference(ctx, "second")
				if err == nil {
					err = w.askAt(ctx, again, victim)
				}
				w.api.be(honest)
				w.files.be(honest)
				if again != nil {
					err = errors.Join(err, again.stop())
				}
				return err
			},
		},
		{name: "control-clock", about: "the control plane's clock is hours ahead, hours behind, and jumps: changes arrive, a killed instance counts as dead and the living one as alive", inject: skewed, slow: true},
	}
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}
