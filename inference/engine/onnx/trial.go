package onnx

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/inference/engine"
	"clearmlserving/onnxruntime"
	"clearmlserving/process"
	"clearmlserving/serving"
)

// trial is what the child process is to load.
type trial struct {
	Library   string   `json:"library"`
	Model     string   `json:"model"`
	Threads   int      `json:"threads"`
	Providers []string `json:"providers,omitempty"`
	Memory    int64    `json:"memory"` // 0: no bound
}

// outcome is what has come of it.
type outcome struct {
	// LoadError is why the model cannot be loaded. Final: on no machine.
	LoadError string `json:"load_error,omitempty"`
	Final     bool   `json:"final,omitempty"`
	// Probe is the first input with which the model has run, -1 for none; RunError is then the first
	// error.
	Probe    int    `json:"probe"`
	RunError string `json:"run_error,omitempty"`
}

// trialTime bounds a trial.
const trialTime = 5 * time.Minute

// try loads and runs a model in a child process.
func (e *Engine) try(ctx context.Context, t trial) (*outcome, error) {
	if info, err := os.Stat(t.Model); err == nil && t.Memory > 0 && info.Size() > t.Memory {
		return nil, &engine.LoadError{Text: fmt.Sprintf("%s has %s: models may use %s here", filepath.Base(t.Model), humanize.IBytes(uint64(info.Size())), humanize.IBytes(uint64(t.Memory)))} //nolint:gosec // sizes
	}
	asked, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards said: two streams call LogLine
	var said []byte
	child, err := process.Start(ctx, process.Spec{
		Path: e.o.Trial[0], Args: append(e.o.Trial[1:len(e.o.Trial):len(e.o.Trial)], string(asked)), Env: append(slices.Clone(e.o.TrialEnv), "GOTRACEBACK=none"), MaxLine: 64 << 10,
		LogLine: func(stream process.Stream, line []byte) {
			mu.Lock()
			defer mu.Unlock()
			if rest, ok := bytes.CutPrefix(line, []byte(saysOutcome)); ok && stream == process.Stdout {
				said = bytes.Clone(rest)
			}
		},
	})
	if err != nil {
		return nil, &engine.LoadError{Text: "the model cannot be tried: " + err.Error(), Err: err}
	}
	death, hung, err := child.Await(ctx, trialTime)
	if err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	name := filepath.Base(t.Model)
	if hung {
		return nil, &engine.LoadError{Text: fmt.Sprintf("%s could not be tried in a process of its own within %s", name, trialTime), Err: death}
	}
	out := &outcome{}
	if death.Code != 0 || json.Unmarshal(said, out) != nil {
		text := fmt.Sprintf("%s was tried in a process of its own, which it has ended: %s", name, explained(death, t.Memory))
		return nil, &engine.LoadError{Text: text, Final: crashed(death), Err: death}
	}
	if out.LoadError != "" {
		return nil, &engine.LoadError{Text: out.LoadError, Final: out.Final}
	}
	return out, nil
}

// explained says how a trial ended.
func explained(d process.Death, limit int64) string {
	text := d.String()
	if limit > 0 && saysNoMemory(d.LastLines) {
		text = "it needs more memory than " + humanize.IBytes(uint64(limit)) + " (" + text + ")" //nolint:gosec // positive
	}
	if line := telling(d.LastLines); line != "" {
		text += ": " + line
	}
	return text
}

// telling is the line that says why a process has ended: a fault in native code is reported by Go,
// with its registers.
func telling(lines []string) string {
	for _, line := range lines {
		if saysCrash(line) {
			return line
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

func saysCrash(line string) bool {
	return strings.HasPrefix(line, "SIG") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "panic: ")
}

// crashed reports whether the model has ended the process, which it does on every machine. All else may be
// this machine's fault: another program in the place of this one, no memory, no threads.
func crashed(d process.Death) bool {
	if d.OOM || d.Signal == syscall.SIGKILL || saysNoMemory(d.LastLines) || says(d.LastLines, noThread...) {
		return false
	}
	return d.Signal != 0 || slices.ContainsFunc(d.LastLines, saysCrash)
}

// noThread are words of Go, and of ONNX Runtime, for a thread that the system does not allow.
var noThread = []string{"pthread_create failed", "newosproc"} //nolint:gochecknoglobals // a constant table

func saysNoMemory(lines []string) bool {
	return says(lines, "out of memory", "bad_alloc", "cannot allocate memory")
}

func says(lines []string, words ...string) bool {
	for _, line := range lines {
		for _, word := range words {
			if strings.Contains(strings.ToLower(line), word) {
				return true
			}
		}
	}
	return false
}

const (
	saysOutcome = "outcome: "
	// ownMemory is what the process needs beside the model.
	ownMemory = 512 << 20
)

// Trial is the child process: it loads and runs the model that the argument describes, and writes what
// has come of it. It returns the exit code.
func Trial(ctx context.Context, argument string, stdout, stderr io.Writer) int {
	var t trial
	if err := json.Unmarshal([]byte(argument), &t); err != nil {
		fmt.Fprintln(stderr, err) //nolint:errcheck // the exit code says it
		return 2
	}
	if err := process.LimitMemory(t.Memory, ownMemory); err != nil {
		fmt.Fprintln(stderr, err) //nolint:errcheck // the exit code says it
		return 2
	}
	o := t.run(ctx)
	o.LoadError, o.RunError = serving.Shorten(o.LoadError, 4<<10), serving.Shorten(o.RunError, 300) // they are one line of output
	out, err := json.Marshal(o)
	if err != nil {
		fmt.Fprintln(stderr, err) //nolint:errcheck // the exit code says it
		return 2
	}
	if _, err := fmt.Fprintf(stdout, "%s%s\n", saysOutcome, out); err != nil {
		return 2
	}
	return 0
}

func (t trial) run(ctx context.Context) outcome {
	library, err := onnxruntime.Open(t.Library, onnxruntime.Options{RunMemory: t.Memory})
	if err != nil {
		return outcome{LoadError: err.Error()}
	}
	session, err := library.NewSession(t.Model, onnxruntime.SessionOptions{Threads: t.Threads, Providers: t.Providers})
	if err != nil {
		return outcome{LoadError: loadText(t.Model, err), Final: final(err)}
	}
	defer session.Close()
	m := &model{session: session}
	if err := m.describe(); err != nil {
		return outcome{LoadError: err.Error(), Final: true}
	}
	out := outcome{Probe: -1}
	for i := range probes {
		in, ok := probe(m.signature.Inputs, i)
		if !ok {
			continue
		}
		_, err := m.run(ctx, in)
		if err == nil {
			return outcome{Probe: i}
		}
		out.RunError = cmp.Or(out.RunError, err.Error())
	}
	return out
}

// final reports whether a model cannot be loaded on any machine.
func final(err error) bool {
	if onnxruntime.OutOfMemory(err) || says([]string{err.Error()}, noThread...) {
		return false
	}
	failed, ok := errors.AsType[*onnxruntime.Error](err)
	return ok && failed.Code != onnxruntime.NoSuchFile
}
