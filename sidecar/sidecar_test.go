package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/process"
	"clearmlserving/sidecar"
)

// guardWord begins the command line of a guard, serverWord that of a server: both are this program.
const guardWord, serverWord, ownerWord = "guard", "server", "owner"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case guardWord:
			os.Exit(process.Guard(os.Args[2:]))
		case serverWord:
			serve(os.Args[2:])
		case ownerWord:
			own(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

// serve is a server. The words say what it does besides answering at /; the first is the file of its address.
func serve(words []string) {
	has := func(word string) bool { return slices.Contains(words, word) }
	if has("silent") {
		time.Sleep(time.Hour)
	}
	if has("secret") {
		fmt.Println("the key is sk-very-secret")
	}
	if has("fails") {
		fmt.Fprintln(os.Stderr, "no such model")
		os.Exit(3)
	}
	if has("child") { // leaves the group
		child := exec.CommandContext(context.Background(), "/bin/sleep", "1000")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			panic(err)
		}
		if err := os.WriteFile(words[0]+".child", []byte(strconv.Itoa(child.Process.Pid)), 0o600); err != nil {
			panic(err)
		}
	}
	if has("stubborn") {
		signal.Ignore(syscall.SIGTERM)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	deaf := false
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		d := deaf
		mu.Unlock()
		if d {
			<-r.Context().Done()
		}
	})
	mux.HandleFunc("/deaf", func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		deaf = true
		mu.Unlock()
	})
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) {
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(7)
	})
	if err := os.WriteFile(words[0]+".new", []byte(l.Addr().String()), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(words[0]+".new", words[0]); err != nil {
		panic(err)
	}
	panic(http.Serve(l, mux)) //nolint:gosec // of a test
}

// own supervises a server until it is killed.
func own(address string) {
	s := sidecar.New(options(address, "child"))
	go func() {
		status, err := s.Ready(context.Background())
		fmt.Println(status.PID, err)
	}()
	panic(s.Run(context.Background()))
}

// options are those of a server of this program.
func options(address string, words ...string) sidecar.Options {
	return sidecar.Options{
		Name: "server", Guard: []string{os.Args[0], guardWord}, ProbeEvery: 10 * time.Millisecond, ProbeTimeout: time.Second, Grace: time.Minute,
		Command: func(context.Context) (sidecar.Command, error) {
			_ = os.Remove(address)
			return sidecar.Command{Path: os.Args[0], Args: append([]string{serverWord, address}, words...)}, nil
		},
		Probe: func(ctx context.Context) error {
			_, err := ask(ctx, address, "/")
			return err
		},
		Line: func(string) {},
	}
}

func ask(ctx context.Context, address, path string) (string, error) {
	host, err := os.ReadFile(address)
	if err != nil {
		return "", errors.New("it does not listen yet")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(host)+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// run runs a server until the end of the test.
func run(t *testing.T, o sidecar.Options) *sidecar.Server {
	t.Helper()
	s := sidecar.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s.Status().State != sidecar.StateStopped {
			t.Errorf("after Run: %+v", s.Status())
		}
	})
	return s
}

// await waits for a status.
func await(t *testing.T, s *sidecar.Server, wanted func(sidecar.Status) bool) sidecar.Status {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		changed := s.Changed()
		if status := s.Status(); wanted(status) {
			return status
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("still %+v", s.Status())
		}
	}
}

func ready(t *testing.T, s *sidecar.Server) sidecar.Status {
	t.Helper()
	return await(t, s, sidecar.Status.Ready)
}

// gone waits for the end of a process that is not a child.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if stat, ok := process.StatOf(pid); !ok || stat.Dead {
			return
		}
	}
	t.Errorf("process %d still runs", pid)
}

func TestAServerThatEndsIsStartedAgainAndItsDeathIsTold(t *testing.T) {
	address := filepath.Join(t.TempDir(), "address")
	s := run(t, options(address))
	before := ready(t, s)
	if _, err := ask(t.Context(), address, "/exit"); err == nil {
		t.Fatal("it has answered")
	}
	after := await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Restarts == 1 })
	if after.LastDeath != "exited with code 7" || !slices.Contains(after.LastLines, "last words") || after.Starts != 2 || after.PID == before.PID {
		t.Errorf("%+v", after)
	}
	if err := syscall.Kill(after.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if after = await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Restarts == 2 }); !strings.Contains(after.LastDeath, "SIGKILL") {
		t.Errorf("%+v", after)
	}
	if usage, ok := after.Usage(); !ok || usage.Processes < 2 || usage.Memory == 0 {
		t.Errorf("usage %+v", usage)
	}
}

func TestAServerThatCannotStartIsTriedAgainWithGrowingPauses(t *testing.T) {
	s := run(t, options(filepath.Join(t.TempDir(), "address"), "fails"))
	status := await(t, s, func(now sidecar.Status) bool { return now.Restarts >= 3 && now.State == sidecar.StateWaiting })
	if status.LastDeath != "exited with code 3" || !slices.Equal(status.LastLines, []string{"no such model"}) {
		t.Errorf("%+v", status)
	}
	if pause := status.NextStart.Sub(status.Since); pause < 600*time.Millisecond {
		t.Errorf("after the third failure it waits %s", pause)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Ready(ctx); err == nil || !strings.Contains(err.Error(), "exited with code 3") {
		t.Errorf("Ready says %v", err)
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"))
	o.Command = func(context.Context) (sidecar.Command, error) {
		return sidecar.Command{Path: "/nonexistent/server"}, nil
	}
	status := await(t, run(t, o), func(now sidecar.Status) bool { return now.Restarts > 0 })
	if !strings.Contains(strings.Join(status.LastLines, "\n"), "/nonexistent/server: no such file") {
		t.Errorf("%+v", status)
	}
}

func TestAStoppedServerIsSeenAndReplaced(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"))
	o.ProbeTimeout, o.Hang = 100*time.Millisecond, time.Second
	s := run(t, o)
	before := ready(t, s)
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	seen := await(t, s, func(now sidecar.Status) bool { return now.State == sidecar.StateUnresponsive })
	if !strings.Contains(seen.Reason, "does not answer its probe within 100ms") {
		t.Errorf("%+v", seen)
	}
	after := await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Starts == 2 })
	if !strings.Contains(after.LastDeath, "it did not work for") || !strings.Contains(after.LastDeath, "SIGKILL") {
		t.Errorf("%+v", after)
	}
	gone(t, before.PID)
}

func TestAServerThatWorksAgainIsKept(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"))
	o.ProbeTimeout, o.Hang = 100*time.Millisecond, 5*time.Minute
	s := run(t, o)
	before := ready(t, s)
	if err := syscall.Kill(before.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, s, func(now sidecar.Status) bool { return now.State == sidecar.StateUnresponsive })
	if err := syscall.Kill(before.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if after := ready(t, s); after.PID != before.PID || after.Restarts != 0 {
		t.Errorf("%+v", after)
	}
}

func TestAServerThatListensButDoesNotWorkIsReplaced(t *testing.T) {
	address := filepath.Join(t.TempDir(), "address")
	o := options(address)
	o.ProbeTimeout, o.Hang = 100*time.Millisecond, time.Second
	s := run(t, o)
	ready(t, s)
	if _, err := ask(t.Context(), address, "/deaf"); err != nil {
		t.Fatal(err)
	}
	after := await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Starts == 2 })
	if !strings.Contains(after.LastDeath, "it did not work for") || !strings.Contains(after.LastDeath, "SIGTERM") {
		t.Errorf("%+v", after)
	}
}

func TestAStartMayTakeAsLongAsItMakesProgress(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"), "silent")
	o.Stall = time.Second
	begin, n := time.Now(), 0
	o.Probe = func(context.Context) error {
		if n++; time.Since(begin) < 4*time.Second {
			return fmt.Errorf("loading part %d", n) // progress
		}
		return errors.New("loading the last part")
	}
	s := run(t, o)
	dead := await(t, s, func(now sidecar.Status) bool { return now.Restarts == 1 })
	if !strings.Contains(dead.LastDeath, "its start made no progress for 1s (loading the last part)") || time.Since(begin) < 4*time.Second {
		t.Errorf("after %s: %+v", time.Since(begin), dead)
	}
}

func TestSecretsAreNotInTheLog(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"), "secret")
	o.Secrets = []string{"", "sk-very-secret"}
	lines := make(chan string, 10)
	o.Line = func(line string) { lines <- line }
	s := run(t, o)
	ready(t, s)
	want := "the key is ***"
	if got := <-lines; got != want || !slices.Equal(s.Log(), []string{want}) {
		t.Errorf("got %q, kept %q", got, s.Log())
	}
}

func TestNoProcessOutlivesTheEnd(t *testing.T) {
	address := filepath.Join(t.TempDir(), "address")
	o := options(address, "child", "stubborn")
	o.Grace = 10 * time.Millisecond
	s := sidecar.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	status := ready(t, s)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	gone(t, status.PID)
	gone(t, childOf(t, address))
}

func TestNoProcessOutlivesOurSuddenDeath(t *testing.T) {
	address := filepath.Join(t.TempDir(), "address")
	owner := exec.CommandContext(t.Context(), os.Args[0], ownerWord, address)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(line, " ")
	server, err := strconv.Atoi(pid)
	if err != nil || !strings.Contains(line, "<nil>") {
		t.Fatalf("%q: %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed on purpose
	gone(t, server)
	gone(t, childOf(t, address))
}

func TestTheServerDiesWithItsGuard(t *testing.T) {
	s := run(t, options(filepath.Join(t.TempDir(), "address")))
	before := ready(t, s)
	if before.Group == before.PID {
		t.Fatal("there is no guard")
	}
	if err := syscall.Kill(before.Group, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Starts == 2 })
	gone(t, before.PID)
}

func TestWithoutAGuardTheGroupEnds(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"))
	o.Guard = nil
	s := run(t, o)
	before := ready(t, s)
	if before.Group != before.PID {
		t.Errorf("%+v", before)
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, s, func(now sidecar.Status) bool { return now.Ready() && now.Starts == 2 })
}

// childOf is the id of the process that the server has started in a session of its own.
func childOf(t *testing.T, address string) int {
	t.Helper()
	text, err := os.ReadFile(address + ".child")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestTheBeginOfALongLogIsKept(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "address"))
	o.Command = func(context.Context) (sidecar.Command, error) {
		return sidecar.Command{Path: "/bin/sh", Args: []string{"-c", "echo the flag is unknown; for i in $(seq 5000); do echo usage $i; done; exit 2"}}, nil
	}
	lines := await(t, run(t, o), func(now sidecar.Status) bool { return now.Restarts > 0 }).LastLines
	if lines[0] != "the flag is unknown" || !slices.Contains(lines, "...") || lines[len(lines)-1] != "usage 5000" || len(lines) > 2500 {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
}
