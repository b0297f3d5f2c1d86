package venv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/process"
)

// Error says which step of the creation of an environment failed, with the installer's last lines.
type Error struct {
	// Step is the command, as in a shell.
	Step string
	// What is what was made or fetched.
	What  string
	Death process.Death
	Hint  string
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: %s", cmp.Or(e.What, makeEnvironment), e.Step, e.Death.Detail())
	if e.Hint != "" {
		text += "\n" + e.Hint
	}
	return text
}

const makeEnvironment = "make python environment"

func (e *Error) Unwrap() error { return e.Death }

// passing are words of installers about the network and the disk. pip says "no matching
// distribution" also when it has reached no index.
var passing = []string{ //nolint:gochecknoglobals // a constant table
	"connectionerror", "connection error", "connection refused", "connection reset", "connection aborted", "connection broken", "connecttimeout", "readtimeout",
	"timed out", "max retries", "temporary failure", "name resolution", "name or service not known", "dns error", "error sending request",
	"network is unreachable", "proxyerror", "sslerror", "certificate verify", "http error 5", "server error", "no space left", "disk quota", "cannot allocate memory",
}

// Final reports whether the requirements are at fault: they cannot be installed anywhere.
func (e *Error) Final() bool {
	if e.Death.Code <= 0 || e.Hint == noVenv || e.Death.Reason != "" || !strings.Contains(e.Step, " install ") {
		return false
	}
	said := strings.ToLower(strings.Join(e.Death.LastLines, "\n"))
	return !slices.ContainsFunc(passing, func(word string) bool { return strings.Contains(said, word) })
}

// install fills the folder of an environment.
func (m *Maker) install(ctx context.Context, e Environment, r recipe, log *slog.Logger) error {
	// uv does not see the packages of the layer below and would install all of them again.
	if r.layered || !m.hasUV(ctx, r, log) {
		return m.withPip(ctx, e, r, log)
	}
	err := m.withUV(ctx, e, r, log)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// pip has its own configuration (pip.conf), which uv does not read.
	log.Warn("uv could not create the python environment, trying pip", "err", err)
	if errRemove := os.RemoveAll(e.Dir); errRemove != nil {
		return errors.Join(err, errRemove)
	}
	errPip := m.withPip(ctx, e, r, log)
	if failed, ok := errors.AsType[*Error](errPip); ok && failed.Hint == noVenv {
		return err // there is no pip either, so uv's message is all there is
	}
	return errPip
}

func (m *Maker) withUV(ctx context.Context, e Environment, r recipe, log *slog.Logger) error {
	if _, err := m.run(ctx, r, log, "", m.o.UV, "venv", "--quiet", "--no-project", "--python", r.base.Path, e.Dir); err != nil {
		return err
	}
	_, err := m.run(ctx, r, log, "", append([]string{m.o.UV, "pip", "install", "--compile-bytecode", "--python", e.Python}, r.args...)...)
	return err
}

const noVenv = "environments need uv or python's own venv; Debian, Ubuntu: apt-get install python3-venv"

func (m *Maker) withPip(ctx context.Context, e Environment, r recipe, log *slog.Logger) error {
	command := []string{r.base.Path, "-I", "-m", "venv"} // -I: files of the code's folder must not replace modules
	if r.layered {
		command = append(command, "--system-site-packages")
	}
	if _, err := m.run(ctx, r, log, noVenv, append(command, e.Dir)...); err != nil {
		return err
	}
	if r.layered {
		if err := m.seeBase(ctx, e, r, log); err != nil {
			return err
		}
	}
	// With -m, files of the code's folder would replace modules. -I would hide packages of PYTHONPATH from pip.
	pip := filepath.Join(filepath.Dir(e.Python), "pip")
	_, err := m.run(ctx, r, log, "", append([]string{e.Python, pip, "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"}, r.args...)...)
	return err
}

// otherNames are the variables of pip with other names in uv, and the reverse for certificates: pip
// reads the three variables in this order, uv only SSL_CERT_FILE.
var otherNames = [...][2]string{ //nolint:gochecknoglobals // a constant table
	{"PIP_INDEX_URL", "UV_DEFAULT_INDEX"},
	{"PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"},
	{"PIP_FIND_LINKS", "UV_FIND_LINKS"},
	{"PIP_TRUSTED_HOST", "UV_INSECURE_HOST"},
	{"PIP_NO_INDEX", "UV_OFFLINE"},
	{"PIP_CERT", "SSL_CERT_FILE"},
	{"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"},
	{"CURL_CA_BUNDLE", "SSL_CERT_FILE"},
}

// forBoth copies a setting of one installer to the other, if that has none.
func forBoth(env []string) []string {
	set := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		set[name] = value
	}
	all := slices.Clone(env)
	say := func(name, value string) {
		if value != "" && set[name] == "" {
			set[name] = value
			all = append(all, name+"="+value)
		}
	}
	if set["REQUESTS_CA_BUNDLE"] == "" && set["CURL_CA_BUNDLE"] == "" {
		say("PIP_CERT", set["SSL_CERT_FILE"])
	}
	for _, n := range otherNames {
		say(n[1], set[n[0]])
	}
	return all
}

// seeBase gives an environment access to the packages of the one below it. venv's "system packages"
// are those of the interpreter below all environments.
func (m *Maker) seeBase(ctx context.Context, e Environment, r recipe, log *slog.Logger) error {
	// -c adds the current folder, whose files must not replace modules.
	const own = `import sys; sys.path[:1] = [p for p in sys.path[:1] if p]
`
	const list = own + `import json; print(json.dumps([p for p in sys.path if p.rstrip("/").endswith(("site-packages", "dist-packages"))]))`
	out, err := m.run(ctx, recipe{turn: r.turn}, log, "", r.base.Path, "-c", list)
	if err != nil {
		return err
	}
	var folders []string
	if err := json.Unmarshal([]byte(out), &folders); err != nil {
		return fmt.Errorf("make python environment: ask %s where its packages are: %w", r.base.Path, err)
	}
	// A line of code in a .pth file is run at start: addsitedir reads the .pth files of the base
	// too.
	const write = own + `import os, sysconfig
with open(os.path.join(sysconfig.get_path("purelib"), "zz_base.pth"), "w") as f:
    f.writelines(f"import site; site.addsitedir({p!r})\n" for p in sys.argv[1:])`
	_, err = m.run(ctx, recipe{turn: r.turn}, log, "", append([]string{e.Python, "-c", write}, folders...)...)
	return err
}

// hasUV reports whether uv can be used.
func (m *Maker) hasUV(ctx context.Context, r recipe, log *slog.Logger) bool {
	_, err := m.run(ctx, recipe{turn: r.turn}, log, "", m.o.UV, "--version")
	return err == nil
}

// tellEvery is the minimum time between two log lines of an installer.
const tellEvery = time.Second

// run runs one step to its end and returns its last line. A step without output for a long time, or
// whose context ends, is killed with all its children.
//
// The installers' standard input is the locked file. If this process is killed, the installer's
// processes continue for a while: they hold the lock, so that the next creation of the environment
// waits for their end.
func (m *Maker) run(ctx context.Context, r recipe, log *slog.Logger, hint string, command ...string) (last string, err error) {
	step := strings.Join(command[:min(len(command), 8)], " ")
	heard := make(chan struct{}, 1) // one pending message is enough
	var mu sync.Mutex               // guards last and told: two streams call LogLine
	told := time.Now()
	child, err := process.Start(ctx, process.Spec{
		Path: command[0], Args: command[1:], Dir: r.dir, Env: m.o.Env, Stdin: r.turn,
		LogLine: func(stream process.Stream, line []byte) {
			text := strings.TrimSpace(string(line))
			mu.Lock()
			if stream == process.Stdout && text != "" {
				last = text
			}
			tell := time.Since(told) >= tellEvery && text != ""
			if tell {
				told = time.Now()
			}
			mu.Unlock()
			if tell {
				log.Info("installing", "says", text)
			}
			select {
			case heard <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", cmp.Or(r.what, makeEnvironment), step, err)
	}
	stalled, err := m.await(ctx, child, heard)
	death := child.Death()
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %s: %w", cmp.Or(r.what, makeEnvironment), step, err)
	case stalled:
		death.Reason = fmt.Sprintf("said nothing for %s", m.o.Stall)
	case death.Code == 0:
		return last, nil
	}
	death.LastLines = lastOf(death.LastLines, 20)
	return "", &Error{Step: step, What: r.what, Death: death, Hint: hint}
}

// await waits until the child is gone; it kills a child that stalls or whose context has ended.
func (m *Maker) await(ctx context.Context, child *process.Child, heard <-chan struct{}) (stalled bool, err error) {
	stall := time.NewTimer(m.o.Stall)
	defer stall.Stop()
	for {
		select {
		case <-child.Done():
			return stalled, err
		case <-heard:
			stall.Reset(m.o.Stall)
		case <-stall.C:
			stalled = true
			err = errors.Join(err, child.Kill())
		case <-ctx.Done():
			_ = child.Kill() // a failure means that it is gone already
			<-child.Done()
			return false, context.Cause(ctx)
		}
	}
}

// lastOf is the end of a list, without empty lines.
func lastOf(lines []string, n int) []string {
	kept := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.TrimSpace(l) == "" })
	return kept[max(0, len(kept)-n):]
}
