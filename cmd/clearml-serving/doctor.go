package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"clearmlserving/listen"
	"clearmlserving/serving"
)

func doctorCommand(a *app) *cobra.Command {
	var install string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and say what to do",
		Long: `Check what ClearML Serving needs on this machine: the data folder, ports, the
ClearML server and its credentials, Python and its packages. Each line says ok,
warn or fail, and what to do. Nothing is changed.

With --install onnx it fetches ONNX Runtime, which the engine onnx computes with: the
package onnxruntime, by the pip or uv of the interpreter and from the package index that
these use, compared with a known hash, into the data folder.`,
		Example: `  clearml-serving doctor
  clearml-serving doctor --python .venv/bin/python --json
  clearml-serving doctor --install onnx`,
		Annotations: map[string]string{markTolerant: ""},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if install != "" {
				return a.doctorInstalls(cmd.Context())
			}
			return a.doctor(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&install, "install", "", "fetch what an engine needs: onnx")
	oneOf(cmd, "install", installONNX)
	mark(cmd.Flags(), "install", markOurs)
	a.declare(cmd.Flags(), "onnxruntime-library", "python", "serve-addr", "grpc-addr", "api-addr", "files-addr", "admin-addr", "serve-url")
	return cmd
}

// markTolerant marks a command that runs although the configuration file cannot be used.
const markTolerant = "tolerant"

// finding is the result of one check.
type finding struct {
	name  string
	state string // stateOK, stateWarn or stateFail
	text  string
	fix   string // what to do, "" when nothing
}

const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

func (a *app) doctor(ctx context.Context) error {
	var all []finding
	for _, check := range []func(context.Context) []finding{
		a.checkProgram, a.checkFolder, a.checkSpace, a.checkPorts, a.checkServer, a.checkSeries, a.checkService, a.checkPython, a.checkONNX,
	} {
		found := check(ctx)
		for _, f := range found {
			a.printFinding(f)
		}
		all = append(all, found...)
	}
	return a.concludeFindings(all, "check", "failed")
}

// concludeFindings ends a command that has printed findings; it is an error if one of them is a failure.
func (a *app) concludeFindings(all []finding, what, failure string) error {
	failed := 0
	list := make([]object, len(all))
	for i, f := range all {
		if f.state == stateFail {
			failed++
		}
		list[i] = object{{"name", f.name}, {"state", f.state}, {"text", f.text}, {"fix", orNull(f.fix)}}
	}
	if err := a.print.result(object{{"ok", failed == 0}, {"checks", list}}); err != nil {
		return err
	}
	if failed > 0 {
		a.print.line("\n%s %s", plural(failed, what), failure)
		return errToldAlready
	}
	return nil
}

func (a *app) printFinding(f finding) {
	style := map[string]string{stateOK: green, stateWarn: yellow, stateFail: red}[f.state]
	a.print.line("%s  %-10s %s", a.print.paint(style, fmt.Sprintf("%-4s", f.state)), f.name, f.text)
	if f.fix != "" {
		a.print.line("      %-10s %s", "", f.fix)
	}
}

func (a *app) checkProgram(context.Context) []finding {
	found := []finding{{"program", stateOK, fmt.Sprintf("clearml-serving %s on %s/%s, %s", version, runtime.GOOS, runtime.GOARCH, plural(runtime.NumCPU(), "core")), ""}}
	if err := a.checkConfigFile(); err != nil {
		found = append(found, finding{"settings", stateFail, err.Error(), errorHint(err)})
	} else if a.files.values != nil {
		found = append(found, finding{"settings", stateOK, a.files.path, ""})
	}
	return found
}

func (a *app) checkFolder(context.Context) []finding {
	dir, err := a.dataDir()
	if err != nil {
		return []finding{{"folder", stateFail, err.Error(), errorHint(err)}}
	}
	probe := nearestFolder(dir)
	f, err := os.CreateTemp(probe, ".doctor-*")
	if err != nil {
		return []finding{{"folder", stateFail, fmt.Sprintf("data folder %s cannot be written: %v", dir, err), "Choose another with --data-dir, or give yourself the right to write there: chown -R $(id -un) " + shellWord(probe)}}
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a leftover is empty and named .doctor-
	defer f.Close()           //nolint:errcheck // nothing was written
	if probe != dir {
		return []finding{{"folder", stateOK, dir + " (does not exist yet, can be made)", ""}}
	}
	return []finding{{"folder", stateOK, dir, ""}}
}

// nearestFolder is the folder itself or the next above it that exists.
func nearestFolder(dir string) string {
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// The free space below which models will hardly fit.
const (
	spaceWarn = 2 << 30
	spaceFail = 100 << 20
)

func (a *app) checkSpace(context.Context) []finding {
	dir, err := a.dataDir()
	if err != nil {
		return nil // told by the check of the folder
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(nearestFolder(dir), &fs); err != nil {
		return []finding{{"space", stateWarn, fmt.Sprintf("free space of %s is not known: %v", dir, err), ""}}
	}
	free := fs.Bavail * uint64(fs.Bsize) // Bsize is never negative; its type differs between systems
	f := finding{"space", stateOK, humanize.IBytes(free) + " free", ""}
	if free < spaceWarn {
		f.state, f.fix = stateWarn, "Make room on the disk of "+dir+", or choose another with --data-dir"
	}
	if free < spaceFail {
		f.state = stateFail
	}
	return []finding{f}
}

// checkPorts tells which of our addresses are free, ours, or somebody else's.
func (a *app) checkPorts(ctx context.Context) []finding {
	var running map[string]string
	if dir, err := a.dataDir(); err == nil {
		running, _ = announced(dir) // the commands that need them say what is wrong
	}
	var found []finding
	for _, port := range []struct{ name, option string }{{"serve", "serve-addr"}, {"grpc", "grpc-addr"}, {"api", "api-addr"}, {"files", "files-addr"}, {"admin", "admin-addr"}} {
		if address := running[port.name]; address != "" && answers(ctx, address) {
			found = append(found, finding{"port", stateOK, fmt.Sprintf("%s: running at %s", port.name, address), ""})
			continue
		}
		found = append(found, checkPort(ctx, port.name, a.text(port.option), "--"+port.option))
	}
	return found
}

// answers tells whether somebody listens at an address of the data folder. The
// addresses of a run that has ended stay there for the next.
func answers(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent
	return true
}

func checkPort(ctx context.Context, name, addr, flag string) finding {
	l, err := listen.Open(ctx, listen.Options{Name: name, Addr: addr, Flag: flag, AllowOpen: true})
	if err != nil {
		return finding{"port", stateWarn, err.Error(), "Stop the other program, or choose another port: " + flag + " 127.0.0.1:0"}
	}
	if err := l.Close(); err != nil {
		return finding{"port", stateWarn, fmt.Sprintf("%s: close %s: %v", name, addr, err), ""}
	}
	return finding{"port", stateOK, fmt.Sprintf("%s: %s is free", name, addr), ""}
}

// checkService asks a running inference service how it is, if there is one.
func (a *app) checkService(ctx context.Context) []finding {
	if address, err := a.serveURL(); err != nil || !answers(ctx, address) {
		return []finding{{"inference", stateOK, "no inference service runs from this data folder", ""}}
	}
	live, err := a.liveState(ctx)
	if err != nil {
		return []finding{{"inference", stateWarn, err.Error(), errorHint(err)}}
	}
	ready := 0
	found := []finding{{}}
	for _, e := range live.Endpoints {
		switch {
		case e.State == serving.StateReady:
			ready++
		case e.Failure != nil || e.Model.Reason != "":
			found = append(found, finding{"endpoint", stateWarn, fmt.Sprintf("/%s is %s: %s", e.URL, e.State, firstLine(e.Reason())), "See: clearml-serving model list --verbose"})
		}
		for _, w := range e.Model.Warnings {
			found = append(found, finding{"endpoint", stateWarn, fmt.Sprintf("/%s: %s", e.URL, w), ""})
		}
	}
	found[0] = finding{"inference", stateOK, fmt.Sprintf("%s: %d of %s ready", live.URL, ready, plural(len(live.Endpoints), "endpoint")), ""}
	if live.SourceError != "" {
		found = append(found, finding{"inference", stateWarn, "it cannot reach the ClearML server: " + live.SourceError, "It goes on with the last good configuration"})
	}
	return found
}
