package triton

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"clearmlserving/process"
	"clearmlserving/serving"
)

// Triton runs each instance of a Python model in a process of its own, a stub. When one has died, Triton goes on to
// say that the model is ready, answers its requests with errors, and does not start the stub again.

// stubName is the name of the program.
const stubName = "triton_python_backend_stub"

// stubsOf lists the stubs of a model that run, also those of the model of that name before.
func (r *Repository) stubsOf(name string) map[int]bool {
	found := map[int]bool{}
	top := r.o.Server.Status().Group
	if top == 0 {
		return found
	}
	all, place := process.All(), filepath.Join(r.repository(), name)+string(filepath.Separator)
	for _, pid := range all.Below(func(pid int) bool { return pid == top }) {
		if line := process.CommandLine(pid); !all[pid].Dead && strings.Contains(line, stubName) && strings.Contains(line, place) {
			found[pid] = true
		}
	}
	return found
}

// revive loads a model again if one of its stubs has died, or if Triton may have loaded another version in its place.
// Triton loads a model again, while its other stubs serve, only if its files are newer.
func (r *Repository) revive(ctx context.Context, m *model) {
	running := map[int]bool{}
	if len(m.stubs) > 0 {
		running = r.stubsOf(m.name)
	}
	dead := 0
	for pid := range m.stubs {
		if !running[pid] {
			dead = pid
		}
	}
	if dead == 0 && !m.stale {
		m.set(serving.StateReady, "")
		return
	}
	server := r.o.Server.Status()
	if !server.Ready() {
		return // it has ended with all of them
	}
	if dead != 0 {
		r.o.Logger.Error("process of a Python model has died", "model", m.name, "endpoint", m.spec.URL, "pid", dead)
		m.set(serving.StateFailed, "a process of the model has died; it is loaded again")
	} else {
		r.o.Logger.Warn("load of another version of a model was given up", "model", m.name, "endpoint", m.spec.URL)
	}
	now := time.Now()
	err := os.Chtimes(filepath.Join(r.repository(), m.name, versionFolder), now, now)
	if err == nil {
		err = r.loadHere(ctx, m, server)
	}
	if err != nil {
		m.set(serving.StateFailed, err.Error())
		r.o.Logger.Error("model not loaded again", "model", m.name, "endpoint", m.spec.URL, "reason", err)
		return
	}
	m.set(serving.StateReady, "")
	r.o.Logger.Info("model loaded again", "model", m.name, "endpoint", m.spec.URL)
}
