package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"clearmlserving/bench/proc"
)

// trainOne saves a logistic regression of four numbers.
const trainOne = `
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
joblib.dump(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), "model.pkl")
`

// many serves n endpoints that share one model, computed in Go, and prints what they take. It runs everything in one process,
// on SQLite, without the embedded time series: their memory is that of the series.
func many(ctx context.Context, binary, python string, n int) (err error) {
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if python, err = filepath.Abs(python); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "scaling")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	train := exec.CommandContext(ctx, python, "-c", trainOne)
	train.Dir = dir
	if out, err := train.CombinedOutput(); err != nil {
		return fmt.Errorf("train the model: %w: %s", err, out)
	}
	u := &installation{ctx: ctx, binary: binary, dir: dir}
	if err := u.start(python); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.stop()) }()
	created, err := u.cli("create", "--name", "many")
	if err != nil {
		return err
	}
	id := regexp.MustCompile(`[0-9a-f]{32}`).FindString(created)
	for _, args := range [][]string{
		{"model", "upload", "--name", "one", "--project", "many", "--path", "model.pkl"},
		{"model", "add", "--engine", "sklearn", "--endpoint", "e0", "--name", "one", "--project", "many", "--aux-config", "accelerate=true", "--wait"},
	} {
		if _, err := u.cli(append([]string{"--id", id}, args...)...); err != nil {
			return err
		}
	}
	one, err := proc.PSS(u.cmd.Process.Pid)
	if err != nil {
		return err
	}
	size, err := u.multiply(id, n)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := u.serves(n); err != nil {
		return err
	}
	took := time.Since(begun)
	time.Sleep(10 * time.Second)
	all, err := proc.PSS(u.cmd.Process.Pid)
	if err != nil {
		return err
	}
	series, err := u.series()
	if err != nil {
		return err
	}
	const idle = 20 * time.Second
	var meter proc.Meter
	meter.Begin()
	time.Sleep(idle)
	used := meter.End(u.cmd.Process.Pid)
	fmt.Printf("%d endpoints: %.0f s until all answer, %.2f MB with one, %.2f MB with all, %.3f MB each; the section has %d bytes, %d each; %d series, %d each; idle %.1f ms of CPU a second\n",
		n, took.Seconds(), mb(one), mb(all), mb(all-one)/float64(n-1), size, size/n, series, series/n, used.Server.Seconds()*1000/idle.Seconds())
	return nil
}

func mb(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// installation is everything in one process, in a folder of its own.
type installation struct {
	ctx         context.Context //nolint:containedctx // of one run
	binary, dir string
	cmd         *exec.Cmd
	urls        map[string]string
}

func (u *installation) start(python string) error {
	args := []string{"up", "--data-dir", filepath.Join(u.dir, "data"), "--prometheus-url", "http://127.0.0.1:9"} // which nobody asks here
	for _, name := range []string{"serve", "grpc", "api", "files", "admin"} {
		args = append(args, "--"+name+"-addr", "127.0.0.1:0")
	}
	log, err := os.Create(filepath.Join(u.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the program writes to its own handle
	u.cmd = exec.CommandContext(u.ctx, u.binary, args...)
	u.cmd.Dir, u.cmd.Stdout, u.cmd.Stderr = u.dir, log, log
	u.cmd.Env = append(os.Environ(), "CLEARML_SERVING_PYTHON="+python)
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := u.cmd.Start(); err != nil {
		return err
	}
	return u.until(2*time.Minute, func() error {
		text, err := os.ReadFile(filepath.Join(u.dir, "data", "endpoints.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &u.urls)
	})
}

func (u *installation) stop() error {
	return errors.Join(u.cmd.Process.Signal(syscall.SIGTERM), u.cmd.Wait())
}

// until calls check until it succeeds.
func (u *installation) until(limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(u.ctx, limit)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(u.dir, "log"))
			return fmt.Errorf("%w; the log ends: %s", err, log[max(0, len(log)-3000):])
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (u *installation) cli(args ...string) (string, error) {
	cmd := exec.CommandContext(u.ctx, u.binary, args...)
	cmd.Dir = u.dir
	cmd.Env = append(os.Environ(), "CLEARML_SERVING_HOME="+filepath.Join(u.dir, "data"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// multiply writes the section of endpoints with n copies of the one that is there, and returns its size.
func (u *installation) multiply(id string, n int) (size int, err error) {
	var answer struct {
		Data struct {
			Task struct {
				Configuration map[string]struct{ Value string }
			}
		}
	}
	if err := u.call("tasks.get_by_id", map[string]any{"task": id}, &answer); err != nil {
		return 0, err
	}
	section := map[string]map[string]any{}
	if err := json.Unmarshal([]byte(answer.Data.Task.Configuration["endpoints"].Value), &section); err != nil {
		return 0, fmt.Errorf("read the section of endpoints: %w", err)
	}
	for i := range n {
		copied := map[string]any{}
		maps.Copy(copied, section["e0"])
		name := fmt.Sprintf("e%d", i)
		copied["serving_url"] = name
		section[name] = copied
	}
	text, err := json.Marshal(section)
	if err != nil {
		return 0, err
	}
	return len(text), u.call("tasks.edit_configuration", map[string]any{
		"task": id, "force": true,
		"configuration": []map[string]any{{"name": "endpoints", "type": "json", "value": string(text)}},
	}, nil)
}

func (u *installation) call(name string, body, into any) error {
	var keys struct {
		Access string `json:"access_key"`
		Secret string `json:"secret_key"`
	}
	text, err := os.ReadFile(filepath.Join(u.dir, "data", "credentials.json"))
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil {
		return err
	}
	if text, err = json.Marshal(body); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(u.ctx, http.MethodPost, u.urls["api"]+"/"+name, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.SetBasicAuth(keys.Access, keys.Secret)
	req.Header.Set("Content-Type", "application/json")
	return ask(req, into)
}

func ask(req *http.Request, into any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		return fmt.Errorf("%s: %s: %.500s", req.URL, resp.Status, text.String())
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// series is how many series of metrics the instance exposes.
func (u *installation) series() (n int, err error) {
	req, err := http.NewRequestWithContext(u.ctx, http.MethodGet, u.urls["admin"]+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "#") {
			n++
		}
	}
	return n, lines.Err()
}

// serves waits until n endpoints are ready.
func (u *installation) serves(n int) error {
	return u.until(30*time.Minute, func() error {
		req, err := http.NewRequestWithContext(u.ctx, http.MethodGet, u.urls["serve"]+"/status", http.NoBody)
		if err != nil {
			return err
		}
		var status struct{ Endpoints []struct{ State string } }
		if err := ask(req, &status); err != nil {
			return err
		}
		ready := 0
		for _, e := range status.Endpoints {
			if e.State == "ready" {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d of %d endpoints are ready", ready, n)
		}
		return nil
	})
}
