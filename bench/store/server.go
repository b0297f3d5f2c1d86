package main

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
	"sync"
	"syscall"
	"time"
)

// restore restores the content into a data folder, or a database.
func restore(ctx context.Context, binary, dir, content, databaseURL string) error {
	args := []string{"server", "restore", content, "--data-dir", dir}
	if databaseURL != "" {
		args = append(args, "--database-url", databaseURL)
	}
	if out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("restore: %w: %s", err, out)
	}
	return nil
}

// server is a running clearml-serving server.
type server struct {
	cmd   *exec.Cmd
	url   string
	token string
}

func startServer(ctx context.Context, binary, dir, databaseURL string) (*server, error) {
	args := []string{"server", "--data-dir", dir, "--api-addr", "127.0.0.1:0", "--files-addr", "127.0.0.1:0"}
	if databaseURL != "" {
		args = append(args, "--database-url", databaseURL)
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the program writes to its own handle
	s := &server{cmd: exec.CommandContext(ctx, binary, args...)}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.login(ctx, dir); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("start the server: %w: %s", err, text), s.stop())
	}
	return s, nil
}

// login waits for the server's addresses and credentials, and gets a token.
func (s *server) login(ctx context.Context, dir string) error {
	limit, cancel := context.WithTimeout(ctx, 10*time.Minute) // PostgreSQL first creates its text index
	defer cancel()
	for {
		err := s.tryLogin(limit, dir)
		if err == nil {
			return nil
		}
		select {
		case <-limit.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) tryLogin(ctx context.Context, dir string) error {
	var endpoints map[string]any
	if err := readJSON(filepath.Join(dir, "endpoints.json"), &endpoints); err != nil {
		return err
	}
	s.url, _ = endpoints["api"].(string)
	var keys struct {
		Access string `json:"access_key"`
		Secret string `json:"secret_key"`
	}
	if err := readJSON(filepath.Join(dir, "credentials.json"), &keys); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/auth.login", http.NoBody)
	if err != nil {
		return err
	}
	req.SetBasicAuth(keys.Access, keys.Secret)
	var answer struct{ Data struct{ Token string } }
	if err := do(req, &answer); err != nil {
		return err
	}
	s.token = answer.Data.Token
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func do(req *http.Request, into any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.300s", resp.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (s *server) call(ctx context.Context, name, body, contentType string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v2.23/"+name, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", contentType)
	return do(req, nil)
}

// page requests a web page as a logged-in browser does.
func (s *server) page(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/html")
	req.AddCookie(&http.Cookie{Name: "clearml_token_basic", Value: s.token})
	if err := do(req, nil); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func (s *server) stop() error {
	err := s.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, s.cmd.Wait())
}

// times are the durations of the answers to one query, and the server's CPU time for one of them,
// which does not depend on other work of the machine.
type times struct {
	took []time.Duration // sorted
	cpu  time.Duration
}

func (t times) at(share float64) time.Duration { return t.took[int(share*float64(len(t.took)-1))] }

func (t times) print(name string) {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	fmt.Printf("| %s | %.1f | %.1f | %.1f | %.1f |\n", name, ms(t.at(0.5)), ms(t.at(0.99)), ms(t.at(1)), ms(t.cpu))
}

// cpu is the CPU time that the server has used until now.
func (s *server) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name before may contain anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/…/stat is %q", text)
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = 10 * time.Millisecond // the unit of /proc on Linux
	return time.Duration(ticks) * tick, nil
}

// ask sends a query this many times, one after the other, the first few times without measurement.
func (s *server) ask(ctx context.Context, q question, rounds int) (times, error) {
	const warm = 5
	var out times
	var before time.Duration
	for n := range rounds + warm {
		var err error
		if n == warm {
			if before, err = s.cpu(); err != nil {
				return out, err
			}
		}
		began := time.Now()
		if q.page != nil {
			err = s.page(ctx, q.page(n))
		} else {
			err = s.call(ctx, q.call, q.body(n), "application/json")
		}
		if err != nil {
			return out, err
		}
		if n >= warm {
			out.took = append(out.took, time.Since(began))
		}
	}
	after, err := s.cpu()
	out.cpu = (after - before) / time.Duration(rounds)
	slices.Sort(out.took)
	return out, err
}

// importEvents reports scalars as the SDK does, as fast as the server accepts them, while a list is
// queried.
func (s *server) importEvents(ctx context.Context, o options) error {
	const atOnce = 1000
	began := time.Now()
	var reporting sync.WaitGroup
	var failed error // read after the wait
	ended := make(chan struct{})
	reporting.Go(func() {
		defer close(ended)
		for from := 0; from < o.events && failed == nil; from += atOnce {
			failed = s.call(ctx, "events.add_batch", scalars(o, from, atOnce), "application/json-lines")
		}
	})
	q := questions(o)[0]
	var out times
	var err error
	for n := 0; err == nil; n++ {
		select {
		case <-ended:
		default:
			asked := time.Now()
			err = s.call(ctx, q.call, q.body(n), "application/json")
			out.took = append(out.took, time.Since(asked))
			continue
		}
		break
	}
	reporting.Wait()
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("import events: %w", err)
	}
	took := time.Since(began)
	slices.Sort(out.took)
	out.print(fmt.Sprintf("%s, during an import of %d scalars", q.name, o.events))
	fmt.Printf("\n%d scalars in %.0f s: %.0f a second\n", o.events, took.Seconds(), float64(o.events)/took.Seconds())
	return nil
}

func scalars(o options, from, n int) string {
	var out bytes.Buffer
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&out, `{"type":"training_stats_scalar","task":%q,"metric":"loss","variant":"train","iter":%d,"value":%f,"timestamp":%d}`+"\n",
			taskID((1+i/10_000*5)%o.tasks), i%10_000, 1/float64(1+i%10_000), 1795441216000+int64(i))
	}
	return out.String()
}
