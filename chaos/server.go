package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// server is a started process.
type server struct {
	name string
	log  string
	data string // the data folder of a service
	urls map[string]string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launch starts a role; its output goes to a file.
func (w *world) launch(name string, env []string, args ...string) (*server, error) {
	return w.launchProgram(w.binary, name, env, args...)
}

func (w *world) launchProgram(program, name string, env []string, args ...string) (*server, error) {
	log := filepath.Join(w.dir, name+".log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	return w.launchTo(out, program, name, env, args...)
}

// launchTo is launchProgram for output that is not written to the log file.
func (w *world) launchTo(out *os.File, program, name string, env []string, args ...string) (*server, error) {
	log := filepath.Join(w.dir, name+".log")
	cmd := exec.Command(program, args...) //nolint:noctx // stop ends it gracefully
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = w.dir, out, out, w.environ(env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process; stop waits for it
		_ = cmd.Wait() // its state has the result
		close(s.done)
	}()
	return s, nil
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) readAddresses(data string) error {
	text, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
	if err != nil {
		return err
	}
	var urls map[string]string
	if err := json.Unmarshal(text, &urls); err != nil {
		return err
	}
	if urls["pid"] != strconv.Itoa(s.pid()) {
		return fmt.Errorf("endpoints.json is of process %s, not %d", urls["pid"], s.pid())
	}
	s.urls, s.data = urls, data
	return nil
}

// wait polls until ready returns nil.
func (s *server) wait(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("%s ended (%w)", s.name, err)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", s.name, ctx.Err(), err)
		}
	}
}

// stop stops the process gracefully. Any exit but a clean one is an error.
func (s *server) stop() error {
	select {
	case <-s.done:
		return nil // a fault killed it
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // a fault may have stopped it
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		_ = syscall.Kill(-s.pid(), syscall.SIGKILL) // it may have ended just now
		<-s.done
		return fmt.Errorf("%s did not end within %v", s.name, stopPatience)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with code %d", s.name, code)
	}
	return nil
}

func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// kill kills the process.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// endpoint is the url of an endpoint of an inference service.
func (s *server) endpoint(name string) string { return s.urls["serve"] + "/serve/" + name }

// readyz queries an inference service for the health of one endpoint.
func readyz(ctx context.Context, c *http.Client, s *server, name string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.urls["serve"]+"/readyz?endpoint="+url.QueryEscape(name), nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func get(ctx context.Context, url string) error {
	_, err := fetch(ctx, url)
	return err
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + string(body))
	}
	return body, err
}
