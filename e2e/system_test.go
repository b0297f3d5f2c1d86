//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// patience bounds the wait for any event, on a busy machine. It is less than the 5 minutes
	// between two polls of the configuration: a change that is seen within it was pushed by
	// the control plane.
	patience = 2 * time.Minute
	tick     = 20 * time.Millisecond
)

// system is an installation in a separate folder, and the process that serves it.
type system struct {
	dir  string // parent of everything
	data string // --data-dir
	env  []string

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	log  string        // what the process prints
	urls map[string]string
	sdk  []string // the SDK's variables
}

// role is the role of the program to start, "up" by default.
type role struct {
	args   []string
	env    []string
	python string
	as     *syscall.Credential
}

// install creates the folders of an installation without starting it.
func install(t *testing.T) *system {
	t.Helper()
	dir := t.TempDir()
	s := &system{dir: dir, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log")}
	for _, name := range []string{"home", "tmp", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "NO_COLOR=1",
		"HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + filepath.Join(dir, "tmp"),
		"OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=",
	}
	return s
}

// up starts everything in one process and waits until it answers. At the end of the
// test it is stopped and checked for leftovers.
func up(t *testing.T) *system {
	t.Helper()
	s := install(t)
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	return s
}

// start starts the process on free ports and waits until it answers.
func (s *system) start(t *testing.T, r role) {
	t.Helper()
	// The file of a killed process would be mistaken for that of the new one.
	if err := os.Remove(filepath.Join(s.data, "endpoints.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s.launch(t, r)
	s.eventually(t, patience, "the service starts", func() error {
		if err := s.readRegistry(); err != nil {
			return err
		}
		for _, name := range []string{"serve", "api"} {
			if url := s.urls[name]; url != "" {
				if status, body := s.get(t, url+"/livez"); status != http.StatusOK {
					return fmt.Errorf("%s/livez: status %d: %s", url, status, body)
				}
			}
		}
		return nil
	})
	if s.urls["api"] == "" {
		return // an inference service alone
	}
	out := s.must(t, "env", "--data-dir", s.data, "--format", "json")
	variables := map[string]string{}
	decode(t, out, &variables)
	s.sdk = nil
	for name, value := range variables {
		s.sdk = append(s.sdk, name+"="+value)
	}
}

// launch starts the process and returns at once.
func (s *system) launch(t *testing.T, r role) {
	t.Helper()
	if r.args == nil {
		r.args = []string{"up"}
		for _, name := range []string{"serve", "grpc", "api", "files", "admin"} {
			r.args = append(r.args, "--"+name+"-addr", "127.0.0.1:0")
		}
	}
	if r.python == "" {
		r.python = pythonSDK2
	}
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the child has its own
	cmd := exec.Command(binary, append(r.args, "--data-dir", s.data)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(s.dir, "work"), out, out
	cmd.Env = slices.Concat(s.env, []string{"CLEARML_SERVING_PYTHON=" + r.python}, r.env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: r.as}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the process; end waits for it
		_ = cmd.Wait() // the result is in its state
		close(done)
	}()
	s.cmd, s.done = cmd, done
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %v ends:\n%s", cmd.Args[1], lastLines(s.log))
		}
	})
}

// readRegistry reads the addresses that the running process wrote.
func (s *system) readRegistry() error {
	text, err := os.ReadFile(filepath.Join(s.data, "endpoints.json"))
	if err != nil {
		return err
	}
	s.urls = map[string]string{}
	if err := json.Unmarshal(text, &s.urls); err != nil {
		return err
	}
	if pid := strconv.Itoa(s.cmd.Process.Pid); s.urls["pid"] != pid {
		return fmt.Errorf("endpoints.json is of process %s, not %s", s.urls["pid"], pid)
	}
	return nil
}

// end waits until the process has ended and returns its exit code, -1 for a signal.
func (s *system) end(t *testing.T, within time.Duration) int {
	t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended just now
		<-s.done
		t.Errorf("the process did not end within %v", within)
	}
	return s.cmd.ProcessState.ExitCode()
}

// stop stops the process gracefully, and checks the exit code 0 and that no
// process, file or address is left.
func (s *system) stop(t *testing.T) {
	t.Helper()
	select {
	case <-s.done: // killed by the test on purpose
		s.noProcessLeft(t)
		return
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop: %v", err)
	}
	if code := s.end(t, patience); code != 0 {
		t.Errorf("the stopped service ended with %d, want 0; its log:\n%s", code, lastLines(s.log))
	}
	s.noProcessLeft(t)
	if _, err := os.Stat(filepath.Join(s.data, "endpoints.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("endpoints.json is still there after the stop (%v)", err)
	}
	err := filepath.WalkDir(filepath.Join(s.data), func(path string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".tmp") || strings.HasSuffix(path, ".partial") || strings.HasSuffix(path, "-wal")) {
			t.Errorf("left behind: %s", strings.TrimPrefix(path, s.dir))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// kill kills the process, and checks that its workers end too.
func (s *system) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.end(t, patience)
	s.noProcessLeft(t)
}

// eventually calls check every few milliseconds until it returns nil. It fails the test
// if that takes longer than within, or if the process ends.
func (s *system) eventually(t *testing.T, within time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		err := check()
		took := time.Since(begun)
		if err == nil {
			return took
		}
		select {
		case <-s.done:
			t.Fatalf("%s: the process ended with %d: %v\n%s", what, s.cmd.ProcessState.ExitCode(), err, lastLines(s.log))
		default:
		}
		if took > within {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(tick)
	}
}

// result has the output and the exit code of a command.
type result struct {
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.code, r.out, r.err)
}

// cli runs a command with the variables of clearml-serving env.
func (s *system) cli(t *testing.T, args ...string) result {
	t.Helper()
	return s.cliWith(t, nil, args...)
}

func (s *system) cliWith(t *testing.T, env []string, args ...string) result {
	t.Helper()
	env = append(append([]string{"CLEARML_SERVING_HOME=" + s.data}, s.sdk...), env...)
	return s.command(t, env, binary, args...)
}

// must runs a command that must succeed, and returns its output.
func (s *system) must(t *testing.T, args ...string) string {
	t.Helper()
	r := s.cli(t, args...)
	if r.code != 0 {
		t.Fatalf("clearml-serving %s: %v", strings.Join(args, " "), r)
	}
	return r.out
}

// python runs a script (in testdata/python, or an absolute path) with
// the SDK, and returns its output.
func (s *system) python(t *testing.T, interpreter, script string, args ...string) string {
	t.Helper()
	if !filepath.IsAbs(script) {
		script = filepath.Join(root, "e2e/testdata/python", script)
	}
	// The SDK runs git in one thread while another forks its reporter. If the fork
	// inherits git's pipe, Task.close waits five minutes. Sequential execution is safe.
	settings := filepath.Join(s.dir, "sdk.conf")
	if err := os.WriteFile(settings, []byte("sdk { development { vcs_repo_detect_async: false } }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := slices.Concat(s.sdk, []string{"CLEARML_CONFIG_FILE=" + settings})
	r := s.command(t, env, interpreter, append([]string{script}, args...)...)
	if r.code != 0 {
		t.Fatalf("%s: %v", filepath.Base(script), r)
	}
	return r.out
}

// command runs a program in the installation's environment and work folder.
func (s *system) command(t *testing.T, env []string, path string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = filepath.Join(s.dir, "work")
	cmd.Env = slices.Concat(s.env, env)
	cmd.WaitDelay = patience
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

var client = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// get returns status and body; status 0 with the error's text if there is no answer.
func (s *system) get(t *testing.T, url string) (int, string) {
	t.Helper()
	return roundTrip(http.MethodGet, url, "", nil)
}

// ask posts JSON to an endpoint.
func (s *system) ask(t *testing.T, endpoint, body string) (int, string) {
	t.Helper()
	return roundTrip(http.MethodPost, s.urls["serve"]+"/serve/"+endpoint, "application/json", strings.NewReader(body))
}

// wants fails unless the endpoint answers 200 with this JSON.
func (s *system) wants(t *testing.T, endpoint, body, answer string) {
	t.Helper()
	if status, got := s.ask(t, endpoint, body); status != http.StatusOK || got != answer {
		t.Errorf("%s answered %d %s, want %s", endpoint, status, got, answer)
	}
}

func roundTrip(method, url, contentType string, body io.Reader, header ...string) (int, string) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, err.Error()
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// decode parses the JSON value in a command's output.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	start := strings.IndexAny(text, "{[")
	if start < 0 {
		t.Fatalf("no JSON in %q", text)
	}
	if err := json.NewDecoder(strings.NewReader(text[start:])).Decode(into); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

func lastLines(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-6000):])
}

// code is the path of a file or folder in testdata/code.
func code(name string) string { return filepath.Join(root, "e2e/testdata/code", name) }
