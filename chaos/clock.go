package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"clearmlserving/atomicfile"
	"clearmlserving/controlplane"
)

// wrongControl is a control plane whose clock is wrong by the offset in a file. The built program
// has no such option, so the control plane is assembled here and runs in a separate process.
type wrongControl struct{ data, api, files, clock string }

func (c wrongControl) args() []string {
	return []string{"-wrong-control", c.data, "-api", c.api, "-files", c.files, "-clock", c.clock}
}

// run serves until ctx ends.
func (c wrongControl) run(ctx context.Context) error {
	var sockets [2]net.Listener
	for i, address := range []string{c.api, c.files} {
		var err error
		if sockets[i], err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			return err
		}
	}
	now := func() time.Time {
		text, err := os.ReadFile(c.clock)
		ahead, err2 := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err = errors.Join(err, err2); err != nil {
			say("the clock has no offset, because its file cannot be read: %v", err)
			return time.Now()
		}
		return time.Now().Round(0).Add(time.Duration(ahead) * time.Second)
	}
	server, err := controlplane.New(controlplane.Options{
		DataDir: c.data, API: sockets[0], Files: sockets[1], Now: now, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// setClock sets the offset of a wrongControl's clock.
func setClock(file string, ahead time.Duration) error {
	return atomicfile.Write(file, strconv.AppendInt(nil, int64(ahead/time.Second), 10), 0o600)
}

// afterPing is the time after which a living instance has pinged with the new time: it pings every
// five seconds.
const afterPing = 7 * time.Second

// skewed makes the control plane's clock wrong by hours, in both directions, and changes it in
// steps. Each time a change must arrive, and the living instance must be distinguished from a
// killed one by the server's timestamps.
func skewed(ctx context.Context, w *world) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	honest := w.control
	wrong := wrongControl{
		data: filepath.Join(w.dir, "control"), clock: filepath.Join(w.dir, "clock"),
		api: host(honest.urls["api"]), files: host(honest.urls["files"]),
	}
	if err := errors.Join(setClock(wrong.clock, 6*time.Hour), honest.stop()); err != nil {
		return err
	}
	if w.control, err = w.launchProgram(self, "wrong-control", nil, wrong.args()...); err != nil {
		return err
	}
	w.control.urls = honest.urls
	defer func() {
		err = errors.Join(err, w.control.stop(), w.startControl(ctx, wrong.api, wrong.files))
	}()
	if err := w.control.wait(ctx, func() error { return get(ctx, honest.urls["api"]+"/livez") }); err != nil {
		return err
	}
	killed, err := w.startInference(ctx, "second")
	if err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil { // until its status is stored
		return errors.Join(err, killed.stop())
	}
	killed.kill()
	for i, ahead := range []time.Duration{-6 * time.Hour, 6 * time.Hour, 0} {
		if err := setClock(wrong.clock, ahead); err != nil {
			return err
		}
		if err := pause(ctx, afterPing); err != nil {
			return err
		}
		if err := w.changeArrives(ctx, i); err != nil {
			return fmt.Errorf("with a clock that is %v ahead: %w", ahead, err)
		}
	}
	return nil
}

// changeArrives deploys a change of the victim's code, and waits for all living instances: there
// must be one.
func (w *world) changeArrives(ctx context.Context, n int) error {
	code, err := os.ReadFile("chaos/code/victim.py")
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "victim.py")
	if err := os.WriteFile(file, fmt.Appendf(code, "\n# under a wrong clock %d\n", n), 0o600); err != nil {
		return err
	}
	out, err := w.output(ctx, w.env, "--id", w.service, "model", "add", "--endpoint", victim, "--engine", "custom", "--preprocess", file, "--wait", "--wait-timeout", "30s", "--json")
	if err != nil {
		return err
	}
	var told struct {
		Live      bool
		Instances int
	}
	if err := json.Unmarshal(out, &told); err != nil {
		return fmt.Errorf("read %q: %w", out, err)
	}
	if !told.Live || told.Instances != 1 {
		return fmt.Errorf("expected one living instance and a killed one: %s", out)
	}
	return nil
}
