package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startPatience = 3 * time.Minute
	stopPatience  = 2 * time.Minute
	poll          = "0.01" // minutes between two polls of the control plane
	// deadline is the deadline of a request in seconds: more than the pauses of a busy machine.
	deadline = "20"
)

// world is an installation: a control plane, an inference service that reaches it only through
// proxies, and the deployed endpoints.
type world struct {
	settings
	dir     string
	env     []string // of commands
	service string   // id

	control   *server
	api       *proxy // in front of the API
	files     *proxy // in front of the file server
	mu        sync.Mutex
	inference *server

	traffic *traffic // nil until it is started
	refused bool     // the endpoints of revisionFaults are deployed

	uploaded map[string]bool // models of engines, by name
	back     time.Duration   // the longest time that an endpoint needed after its engine, in the fault that is injected
}

// bystanders are the endpoints that faults do not target. Each has unique answers.
var bystanders = []string{"steady_1", "steady_2", "steady_3", "steady_4", "steady_sklearn", "steady_batched", "steady_own"}

// victim is the endpoint that most faults target.
const victim = "victim"

func start(ctx context.Context, s settings, dir string) (w *world, err error) {
	w = &world{settings: s, dir: dir, uploaded: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	for _, name := range []string{"home", "tmp", "control", "inference"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return w, err
		}
	}
	if err := w.startControl(ctx, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		return w, err
	}
	if w.api, err = newProxy(w.control.urls["api"]); err != nil {
		return w, err
	}
	if w.files, err = newProxy(w.control.urls["files"]); err != nil {
		return w, err
	}
	variables, err := w.output(ctx, nil, "env", "--data-dir", filepath.Join(dir, "control"), "--format", "json")
	if err != nil {
		return w, err
	}
	var told map[string]string
	if err := json.Unmarshal(variables, &told); err != nil {
		return w, fmt.Errorf("read the variables of clearml-serving env: %w", err)
	}
	told["CLEARML_API_HOST"], told["CLEARML_FILES_HOST"] = w.api.url(), w.files.url()
	for name, value := range told {
		w.env = append(w.env, name+"="+value)
	}
	out, err := w.output(ctx, w.env, "create", "--name", "chaos")
	if err != nil {
		return w, err
	}
	_, id, ok := strings.Cut(string(out), "id=")
	if !ok {
		return w, fmt.Errorf("create printed no id: %q", out)
	}
	w.service = strings.TrimSpace(id)
	if w.inference, err = w.startInference(ctx, "inference"); err != nil {
		return w, err
	}
	return w, w.deploy(ctx)
}

// deploy adds the endpoints as a user would.
func (w *world) deploy(ctx context.Context) error {
	code, err := filepath.Abs("chaos/code")
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "model.pkl")
	if _, err := w.command(ctx, nil, w.python, filepath.Join(code, "train.py"), file); err != nil {
		return err
	}
	commands := [][]string{{"model", "upload", "--name", "steady model", "--project", "chaos", "--path", file}}
	model, together := []string{"--name", "steady model", "--project", "chaos"}, []string{"--aux-config", "max_batch_size=16"}
	for _, name := range bystanders {
		source, engine := "steady.py", "custom"
		var more []string
		switch name {
		case "steady_sklearn":
			engine, more = "sklearn", model
		case "steady_batched":
			engine, more = "sklearn", slices.Concat(model, together)
		case "steady_own":
			source, more = "own.py", slices.Concat(model, together)
		}
		commands = append(commands, append([]string{"model", "add", "--endpoint", name, "--engine", engine, "--preprocess", filepath.Join(code, source)}, more...))
	}
	commands = append(commands, []string{"model", "add", "--endpoint", victim, "--engine", "custom", "--preprocess", filepath.Join(code, "victim.py")})
	for _, c := range commands {
		if err := w.cli(ctx, c...); err != nil {
			return err
		}
	}
	for _, name := range append(slices.Clone(bystanders), victim) {
		if err := w.waitReady(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// startControl starts the control plane, with the proxies in front of it.
func (w *world) startControl(ctx context.Context, api, files string) (err error) {
	data := filepath.Join(w.dir, "control")
	w.control, err = w.launch("control", nil, "server", "--data-dir", data, "--api-addr", api, "--files-addr", files)
	if err != nil {
		return err
	}
	err = w.control.wait(ctx, func() error {
		if err := w.control.readAddresses(data); err != nil {
			return err
		}
		return get(ctx, w.control.urls["api"]+"/livez")
	})
	if err != nil || w.files == nil {
		return err
	}
	w.api.stand(host(w.control.urls["api"]))
	w.files.stand(host(w.control.urls["files"]))
	return nil
}

// startInference starts an inference service on a separate data folder, and waits until it is
// ready.
func (w *world) startInference(ctx context.Context, name string) (*server, error) {
	return w.startInferenceTo(ctx, name, nil)
}

// startInferenceTo is startInference with its output going to out, nil for the log file.
func (w *world) startInferenceTo(ctx context.Context, name string, out *os.File) (*server, error) {
	data := filepath.Join(w.dir, name)
	args := []string{"--id", w.service, "inference", "--data-dir", data, "--serve-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}
	env := append(slices.Clone(w.env), "CLEARML_SERVING_POLL_FREQ="+poll, "GUNICORN_SERVING_TIMEOUT="+deadline, "CLEARML_SERVING_PYTHON="+w.python, "OMP_NUM_THREADS=1")
	var s *server
	var err error
	if out != nil {
		s, err = w.launchTo(out, w.binary, name, append(env, "CLEARML_SERVING_LOG_LEVEL=debug"), args...)
	} else {
		s, err = w.launch(name, env, args...)
	}
	if err != nil {
		return nil, err
	}
	err = s.wait(ctx, func() error {
		if err := s.readAddresses(data); err != nil {
			return err
		}
		return get(ctx, s.urls["serve"]+"/readyz")
	})
	if err != nil {
		err = errors.Join(err, s.stop()) // only this process knows it
	}
	return s, err
}

// serving is the inference service that clients use at the moment.
func (w *world) serving() *server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inference
}

func (w *world) replaceServing(s *server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inference = s
}

// endpoint is the url of an endpoint.
func (w *world) endpoint(name string) string { return w.serving().endpoint(name) }

func (w *world) waitReady(ctx context.Context, name string) error {
	s := w.serving()
	return s.wait(ctx, func() error {
		return get(ctx, s.urls["serve"]+"/readyz?endpoint="+url.QueryEscape(name))
	})
}

// cli runs a command against the installation's control plane.
func (w *world) cli(ctx context.Context, args ...string) error {
	_, err := w.output(ctx, w.env, append([]string{"--id", w.service}, args...)...)
	return err
}

func (w *world) output(ctx context.Context, env []string, args ...string) ([]byte, error) {
	return w.command(ctx, env, w.binary, args...)
}

func (w *world) command(ctx context.Context, env []string, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = w.dir, w.environ(env)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(path), strings.Join(args, " "), err, out, errs.Bytes())
	}
	return out, nil
}

func (w *world) environ(more []string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "NO_COLOR=1",
		"HOME=" + filepath.Join(w.dir, "home"), "TMPDIR=" + filepath.Join(w.dir, "tmp"),
	}, more...)
}

// stop stops everything and reports processes that did not end, or that left something behind.
func (w *world) stop() error {
	var errs []error
	for _, s := range []*server{w.inference, w.control} {
		if s != nil {
			errs = append(errs, s.stop())
		}
	}
	for _, p := range []*proxy{w.api, w.files} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	return errors.Join(append(errs, w.orphans())...)
}

// orphans looks for processes of the installation that outlive it.
func (w *world) orphans() error {
	var left []int
	for end := time.Now().Add(patience / 4); time.Now().Before(end); {
		if left = w.processes(); len(left) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, pid := range left {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
	}
	return fmt.Errorf("%d processes outlived the service: %v", len(left), left)
}

// processes are the processes with the installation's folder in their arguments or environment.
func (w *world) processes() []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err == nil && bytes.Contains(environ, []byte(w.dir)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			found = append(found, pid)
		}
	}
	return found
}

// lastLines are the ends of the logs.
func (w *world) lastLines() string {
	var b strings.Builder
	for _, s := range []*server{w.control, w.inference} {
		if s != nil {
			text, err := os.ReadFile(s.log)
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, "--- %s ends:\n", filepath.Base(s.log))
			for line := range bytes.Lines(text[max(0, len(text)-20_000):]) {
				if len(line) < 1000 { // the victim prints longer lines
					b.Write(line)
				}
			}
		}
	}
	return b.String()
}
