package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startPatience = time.Minute
	stopPatience  = 30 * time.Second
	// One thread for each process's numerics, on both sides: rows are single.
	oneThread = "OMP_NUM_THREADS=1"
)

// setup is what both sides share.
type setup struct {
	dir           string
	ours, fastapi side
	bodies        map[string][]byte // by case
	answers       map[string][]byte
	versions      map[string]string
}

// side is one of the two that are compared.
type side struct {
	name  string
	start func(ctx context.Context, workers int) (*server, error)
	path  func(name string) string
}

// prepare trains the example's model into our service, deploys the cases and
// stops: the rounds start the service again from the same data folder.
func prepare(ctx context.Context, dir string) (*setup, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(root, "bin/clearml-serving")
	data := filepath.Join(dir, "data")
	s := &setup{dir: dir, bodies: map[string][]byte{}, answers: map[string][]byte{}}
	paths := map[string]string{"sklearn": "/serve/test_model_sklearn", "null": "/serve/test_model_null"}
	s.ours = side{
		name: "ours",
		path: func(name string) string { return paths[name] },
		start: func(ctx context.Context, workers int) (*server, error) {
			return startOurs(ctx, binary, data, filepath.Join(root, ".venv/bin/python"), workers)
		},
	}
	s.fastapi = side{
		name: "fastapi",
		path: func(name string) string { return "/serve/" + name },
		start: func(ctx context.Context, workers int) (*server, error) {
			return startFastAPI(ctx, root, dir, workers)
		},
	}
	server, err := s.ours.start(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := deploy(ctx, root, dir, data, binary); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	if err := s.ask(ctx, root, server); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	if err := server.stop(); err != nil {
		return nil, err
	}
	s.versions, err = versions(ctx, root, binary)
	return s, err
}

// deploy is what a user would type.
func deploy(ctx context.Context, root, dir, data, binary string) error {
	env, err := output(ctx, dir, nil, binary, "env", "--data-dir", data, "--format", "json")
	if err != nil {
		return err
	}
	var variables map[string]string
	if err := json.Unmarshal(env, &variables); err != nil {
		return fmt.Errorf("read the variables of clearml-serving env: %w", err)
	}
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	// The SDK runs git in one thread while another forks its reporter; when the fork
	// inherits git's pipe, Task.close waits five minutes. One after the other is safe.
	settings := filepath.Join(dir, "sdk.conf")
	if err := os.WriteFile(settings, []byte("sdk { development { vcs_repo_detect_async: false } }\n"), 0o600); err != nil {
		return err
	}
	environ = append(environ, "CLEARML_CONFIG_FILE="+settings)
	python := filepath.Join(root, ".venv/bin/python")
	for _, command := range [][]string{
		{python, filepath.Join(root, "examples/sklearn/train_model.py")},
		{binary, "create", "--name", "bench"},
		{
			binary, "model", "add", "--engine", "sklearn", "--endpoint", "test_model_sklearn", "--preprocess", filepath.Join(root, "examples/sklearn/preprocess.py"),
			"--name", "train sklearn model - sklearn-model", "--project", "serving examples", "--wait",
		},
		{binary, "model", "add", "--engine", "custom", "--endpoint", "test_model_null", "--preprocess", filepath.Join(root, "bench/null/preprocess.py"), "--wait"},
	} {
		if _, err := output(ctx, dir, environ, command[0], command[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// ask keeps the answers that every later one must be equal to.
func (s *setup) ask(ctx context.Context, root string, server *server) error {
	row, err := output(ctx, root, nil, filepath.Join(root, ".venv/bin/python"), "scripts/demo_model.py", "row")
	if err != nil {
		return err
	}
	s.bodies["sklearn"] = bytes.TrimSpace(row)
	s.bodies["null"] = []byte(`{"x0": 1, "x1": 2}`)
	for name, body := range s.bodies {
		s.answers[name], err = waitForAnswer(ctx, server, server.url+s.ours.path(name), body)
		if err != nil {
			return err
		}
	}
	return nil
}

func versions(ctx context.Context, root, binary string) (map[string]string, error) {
	ours, err := output(ctx, root, nil, binary, "version", "--json")
	if err != nil {
		return nil, err
	}
	ours = ours[max(bytes.IndexByte(ours, '{'), 0):]
	var told struct{ Version, Commit string }
	if err := json.Unmarshal(ours, &told); err != nil {
		return nil, fmt.Errorf("read clearml-serving version: %w", err)
	}
	python, err := output(ctx, root, nil, filepath.Join(root, ".venv-bench/bin/python"), "-c",
		"import json, platform; from importlib.metadata import version as v; print(json.dumps({'python': platform.python_version(), **{n: v(n) for n in ('fastapi', 'uvicorn', 'scikit-learn', 'numpy')}}))")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	if err := json.Unmarshal(python, &all); err != nil {
		return nil, fmt.Errorf("read the versions of the Python packages: %w", err)
	}
	all["clearml-serving"] = strings.TrimSpace(told.Version + " " + told.Commit)
	return all, nil
}

// server is a started server; pid is the top of its processes.
type server struct {
	url  string
	pid  int
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

func startOurs(ctx context.Context, binary, data, python string, workers int) (*server, error) {
	told := filepath.Join(data, "endpoints.json")
	if err := os.Remove(told); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	args := []string{"up", "--data-dir", data}
	for _, name := range []string{"serve", "api", "files", "admin"} {
		args = append(args, "--"+name+"-addr", "127.0.0.1:0")
	}
	s, err := start(filepath.Dir(data), "ours.log", []string{
		oneThread, "CLEARML_SERVING_NUM_PROCESS=" + strconv.Itoa(workers), "CLEARML_SERVING_PYTHON=" + python,
	}, binary, args...)
	if err != nil {
		return nil, err
	}
	err = s.wait(ctx, func() error {
		text, err := os.ReadFile(told)
		if err != nil {
			return err
		}
		var urls map[string]string
		if err := json.Unmarshal(text, &urls); err != nil {
			return err
		}
		s.url = urls["serve"]
		return get(ctx, s.url+"/livez")
	})
	return s, err
}

func startFastAPI(ctx context.Context, root, dir string, workers int) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a free port, at once
	if err != nil {
		return nil, err
	}
	address := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return nil, err
	}
	s, err := start(dir, "fastapi.log", []string{
		oneThread, "BENCH_ROOT=" + root, "BENCH_MODEL=" + filepath.Join(dir, "sklearn-model.pkl"),
	}, filepath.Join(root, ".venv-bench/bin/python"), "-m", "uvicorn", "server:app",
		"--app-dir", filepath.Join(root, "bench/fastapi"), "--port", strconv.Itoa(address.Port),
		"--workers", strconv.Itoa(workers), "--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log")
	if err != nil {
		return nil, err
	}
	s.url = "http://" + address.String()
	return s, s.wait(ctx, func() error { return get(ctx, s.url+"/openapi.json") })
}

// start starts a program in a group of its own, its output in a file.
func start(dir, log string, env []string, path string, args ...string) (*server, error) {
	out, err := os.Create(filepath.Join(dir, log))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	cmd := exec.Command(path, args...) //nolint:noctx // it is stopped by stop, politely
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{pid: cmd.Process.Pid, log: out.Name(), cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the program; stop waits for it
		_ = cmd.Wait() // how it ended is in its log
		close(s.done)
	}()
	return s, nil
}

// wait asks until ready says nil; what never gets ready is stopped.
func (s *server) wait(ctx context.Context, ready func() error) error {
	err := poll(ctx, s, ready)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for the server: %w; its log ends:\n%s", err, lastLines(s.log)), s.stop())
	}
	return err
}

func poll(ctx context.Context, s *server, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("it ended (%w)", err)
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
	}
}

// stop asks the server to end, and kills its group when it does not.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-s.done:
		return nil
	case <-timer.C:
		_ = syscall.Kill(-s.pid, syscall.SIGKILL) // it may have ended just now
		<-s.done
		return fmt.Errorf("%s did not stop within %v and was killed", filepath.Base(s.log), stopPatience)
	}
}

// waitForAnswer is the first good answer of an endpoint.
func waitForAnswer(ctx context.Context, s *server, url string, body []byte) ([]byte, error) {
	var answer []byte
	err := poll(ctx, s, func() (err error) {
		answer, err = request(ctx, http.MethodPost, url, body)
		return err
	})
	return answer, err
}

func get(ctx context.Context, url string) error {
	_, err := request(ctx, http.MethodGet, url, nil)
	return err
}

func request(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: status %d: %s", method, url, resp.StatusCode, text)
	}
	return text, err
}

// output runs a command to its end and returns what it printed.
func output(ctx context.Context, dir string, env []string, path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(path), strings.Join(args, " "), err, out, errs.Bytes())
	}
	return out, nil
}

// sameJSON compares two answers as values: servers space them differently.
func sameJSON(got, want []byte) error {
	var a, b any
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal(want, &b)); err != nil {
		return err
	}
	if !reflect.DeepEqual(a, b) {
		return fmt.Errorf("answered %s, the other side %s", got, want)
	}
	return nil
}

func lastLines(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
