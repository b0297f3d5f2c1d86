package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"clearmlserving/bench/proc"
)

const (
	startPatience = 90 * time.Second
	// Some servers wait long for their own threads, after all requests.
	stopPatience = 3 * time.Second
	// Ours must end by itself: this is the time limit on a busy machine.
	ourStopPatience = 15 * time.Second
	pollEvery       = 20 * time.Millisecond
)

// server is a started server; pid is the root of its processes.
type server struct {
	url   string
	grpc  string // grpc://host, if it has that
	pid   int
	log   string
	begun time.Time
	cmd   *exec.Cmd
	done  chan struct{}
	// behind is the server that it asks, nil for none. That is not another program, and not counted.
	behind *server
	// patience is the time limit of its stop.
	patience time.Duration
}

// start starts a program in a separate process group, with its output in a file.
func start(dir, log string, env []string, path string, args ...string) (*server, error) {
	out, err := os.Create(filepath.Join(dir, log))
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	cmd := exec.Command(path, args...) //nolint:noctx // it is stopped gracefully by stop
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s := &server{begun: time.Now(), log: out.Name(), cmd: cmd, done: make(chan struct{}), patience: stopPatience}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.pid = cmd.Process.Pid
	go func() { // ends with the program; stop waits for it
		_ = cmd.Wait() // its log has the result
		close(s.done)
	}()
	return s, nil
}

// wait polls until ready returns nil; a server that does not get ready is stopped.
func (s *server) wait(ctx context.Context, every time.Duration, ready func() error) error {
	err := s.poll(ctx, every, ready)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for the server: %w; its log ends:\n%s", err, lastLines(s.log)), s.stop())
	}
	return err
}

func (s *server) poll(ctx context.Context, every time.Duration, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	tick := time.NewTicker(every)
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

// stop stops the server, and kills its remaining processes: some servers leave theirs behind.
func (s *server) stop() error {
	tree := proc.Tree(s.pid)
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(s.patience)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		say("  %s did not stop within %v and is killed", filepath.Base(s.log), s.patience)
		_ = s.cmd.Process.Kill() // it may have ended just now
		<-s.done
	}
	_ = syscall.Kill(-s.pid, syscall.SIGKILL) // none may be left
	return endAll(tree)
}

// endAll kills the remaining processes; their ids cannot have been reused so soon.
func endAll(tree []int) error {
	for _, pid := range tree {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return nil
}

// answerOf is the first successful answer of an endpoint.
func (s *server) answerOf(ctx context.Context, url, contentType string, body []byte) ([]byte, error) {
	var answer []byte
	err := s.poll(ctx, pollEvery, func() (err error) {
		answer, err = request(ctx, http.MethodPost, url, contentType, body)
		return err
	})
	return answer, err
}

func get(ctx context.Context, url string) error {
	_, err := request(ctx, http.MethodGet, url, "", nil)
	return err
}

func request(ctx context.Context, method, url, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType == "" {
		contentType = "application/json"
	}
	req.Header.Set("Content-Type", contentType)
	req.Close = true // some servers wait for idle connections when they stop
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: status %d: %.300s", method, url, resp.StatusCode, text)
	}
	return text, err
}

// freePort returns a free port whose successor is free too: some servers need two.
func freePort() (int, error) {
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
		if err != nil {
			return 0, err
		}
		port := first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1)) //nolint:noctx // at once
		_ = first.Close()
		if err == nil {
			return port, second.Close()
		}
	}
	return 0, errors.New("no two adjacent free ports")
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

func lastLines(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}
