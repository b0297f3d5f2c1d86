package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clearmlserving/leaktest"
	"clearmlserving/process"
)

// TestMain runs the test binary as a child: the first argument selects its behaviour.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		play(os.Args[2], os.Args[3:])
		os.Exit(0)
	}
	leaktest.Main(m)
}

func play(role string, args []string) {
	switch role {
	case "exit":
		code, _ := strconv.Atoi(args[0])
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(code)
	case "print":
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "flood":
		line := strings.Repeat("x", 1000)
		for i := range 200 {
			fmt.Fprintf(os.Stderr, "%d %s\n", i, line)
		}
		_, _ = os.Stderr.WriteString(strings.Repeat("y", 100_000))
	case "wait":
		fmt.Println("ready")
		time.Sleep(time.Hour) // Go ends a process in which nothing can go on
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour) // Go ends a process in which nothing can go on
	case "parent": // leaves a child in its group, prints its pid, and ends
		cmd := exec.CommandContext(context.Background(), os.Args[0], "child", "wait")
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println(cmd.Process.Pid)
	case "orphan": // starts a grandchild through the package, prints its pid, and waits
		child, err := process.Start(context.Background(), process.Spec{Path: os.Args[0], Args: []string{"child", "wait"}})
		if err != nil {
			panic(err)
		}
		fmt.Println(child.PID())
		time.Sleep(time.Hour) // Go ends a process in which nothing can go on
	case "file":
		f := os.NewFile(3, "extra")
		b, _ := io.ReadAll(f)
		fmt.Println(string(b))
	}
}

// lines collects a child's output.
type lines struct {
	mu  sync.Mutex
	got []string
	ch  chan string
}

func (l *lines) take(s process.Stream, line []byte) {
	text := string(s) + " " + string(line)
	l.mu.Lock()
	l.got = append(l.got, text)
	l.mu.Unlock()
	if l.ch != nil {
		select {
		case l.ch <- text:
		default: // only the first lines are waited for
		}
	}
}

func start(t *testing.T, out *lines, role string, args ...string) *process.Child {
	t.Helper()
	spec := process.Spec{Path: os.Args[0], Args: append([]string{"child", role}, args...)}
	if out != nil {
		spec.LogLine = out.take
	}
	c, err := process.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Kill()
		<-c.Done()
	})
	return c
}

func TestExitCodeAndLastLinesAreInTheDeath(t *testing.T) {
	d := start(t, nil, "exit", "7").Death()
	if d.Code != 7 || d.Signal != 0 || d.OOM || d.Asked {
		t.Errorf("death = %+v", d)
	}
	if !slices.Equal(d.LastLines, []string{"last words"}) {
		t.Errorf("last lines = %q", d.LastLines)
	}
	if got, want := d.String(), "exited with code 7"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if got := d.Detail(); !strings.Contains(got, "last words") {
		t.Errorf("Detail() = %q lacks the last lines", got)
	}
}

func TestSignalIsInTheDeath(t *testing.T) {
	out := &lines{ch: make(chan string, 10)}
	c := start(t, out, "wait")
	<-out.ch
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if d := c.Death(); d.Signal != syscall.SIGKILL || d.Code != -1 || d.OOM || d.Asked || !strings.Contains(d.Error(), "SIGKILL") {
		t.Errorf("death = %+v", d)
	}
}

func TestOutputArrivesLineByLine(t *testing.T) {
	out := &lines{}
	<-start(t, out, "print").Done()
	slices.Sort(out.got)
	if want := []string{"stderr to stderr", "stdout to stdout"}; !slices.Equal(out.got, want) {
		t.Errorf("got %q, want %q", out.got, want)
	}
}

func TestEnvironmentIsOnlyWhatTheSpecSays(t *testing.T) {
	out := &lines{}
	c, err := process.Start(t.Context(), process.Spec{Path: os.Args[0], Args: []string{"child", "env"}, Env: []string{"A=1"}, LogLine: out.take})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if want := []string{"stdout A=1"}; !slices.Equal(out.got, want) {
		t.Errorf("environment = %q, want %q", out.got, want)
	}
}

func TestTailIsBoundedAndLongLinesArriveInPieces(t *testing.T) {
	out := &lines{}
	d := start(t, out, "flood").Death()
	size := 0
	for _, l := range d.LastLines {
		size += len(l) + 1
	}
	if size > 8<<10+1 {
		t.Errorf("kept %d bytes of stderr", size)
	}
	longest, total := 0, 0
	for _, l := range out.got {
		longest = max(longest, len(l))
		total += len(l)
	}
	if longest > 9<<10 || total < 300_000 {
		t.Errorf("longest piece %d bytes, %d in all", longest, total)
	}
}

func TestStopAsksFirst(t *testing.T) {
	out := &lines{ch: make(chan string, 10)}
	c := start(t, out, "wait")
	<-out.ch
	d := c.Stop(t.Context(), time.Minute)
	if d.Signal != syscall.SIGTERM || !d.Asked {
		t.Errorf("death = %+v, want a requested SIGTERM", d)
	}
	if again := c.Stop(t.Context(), time.Minute); again.At != d.At {
		t.Error("a second Stop returns another death")
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal to a dead child: %v", err)
	}
}

func TestStopKillsWhoDoesNotListen(t *testing.T) {
	out := &lines{ch: make(chan string, 10)}
	c := start(t, out, "stubborn")
	<-out.ch
	if d := c.Stop(t.Context(), time.Millisecond); d.Signal != syscall.SIGKILL || !d.Asked || d.OOM {
		t.Errorf("death = %+v, want a requested SIGKILL", d)
	}
}

func TestStopKillsAtTheEndOfItsContext(t *testing.T) {
	out := &lines{ch: make(chan string, 10)}
	c := start(t, out, "stubborn")
	<-out.ch
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d := c.Stop(ctx, time.Hour); d.Signal != syscall.SIGKILL {
		t.Errorf("death = %+v, want SIGKILL", d)
	}
}

func TestLeftOverChildrenDieWithTheirParent(t *testing.T) {
	out := &lines{}
	<-start(t, out, "parent").Done()
	var pid int
	for _, l := range out.got {
		if n, err := strconv.Atoi(strings.TrimPrefix(l, "stdout ")); err == nil {
			pid = n
		}
	}
	if pid == 0 {
		t.Fatalf("no pid in %q", out.got)
	}
	waitGone(t, pid)
}

func TestChildrenDieWhenWeAreKilled(t *testing.T) {
	// Without the package, because the test kills the process that uses it.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "child", "orphan")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed on purpose
	waitGone(t, pid)
}

func TestExtraFilesAreDescriptorsFromThree(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{}
	c, err := process.Start(t.Context(), process.Spec{
		Path: os.Args[0], Args: []string{"child", "file"}, ExtraFiles: []*os.File{r}, LogLine: out.take,
	})
	_ = r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("through three"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	<-c.Done()
	if want := []string{"stdout through three"}; !slices.Equal(out.got, want) {
		t.Errorf("got %q, want %q", out.got, want)
	}
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	_, err := process.Start(t.Context(), process.Spec{Path: "/nonexistent/python"})
	if !errors.Is(err, process.ErrNotStarted) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nonexistent/python") {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := process.Start(ctx, process.Spec{Path: os.Args[0]}); !errors.Is(err, context.Canceled) {
		t.Errorf("start after the end of ctx: err = %v", err)
	}
}

func TestTailKeepsWholeLinesOfTheEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		size  int
		write []string
		want  []string
	}{
		"nothing":                {10, nil, nil},
		"fits":                   {20, []string{"a\nb\n"}, []string{"a", "b"}},
		"exactly full":           {4, []string{"a\nb\n"}, []string{"b"}},
		"first line is cut":      {8, []string{"first\nsec", "ond\nx\n"}, []string{"x"}},
		"one line too long":      {4, []string{"abcdefgh"}, []string{"efgh"}},
		"one write, much more":   {5, []string{"0123456789\nyes\n"}, []string{"yes"}},
		"carriage returns":       {20, []string{"a\r\nb\r\n"}, []string{"a", "b"}},
		"bytes that are no text": {20, []string{"a\xffb\n"}, []string{"a\uFFFDb"}},
	} {
		t.Run(name, func(t *testing.T) {
			tail := process.NewTail(tc.size)
			for _, w := range tc.write {
				if n, err := io.WriteString(tail, w); n != len(w) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			if got := tail.Lines(); !slices.Equal(got, tc.want) {
				t.Errorf("Lines() = %q, want %q", got, tc.want)
			}
		})
	}
}

// waitGone waits until a process that is not a child is dead; a zombie counts as dead.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if _, rest, ok := strings.Cut(string(b), ") "); ok && (rest[0] == 'Z' || rest[0] == 'X') {
			return
		}
		time.Sleep(5 * time.Millisecond) // not a child, so there is no event to wait for
	}
	t.Errorf("process %d still runs", pid)
}

func TestAwaitEndsAChildAtItsLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		args       []string
		limit      time.Duration
		code       int
		hung, gone bool
	}{
		"it ends":           {[]string{"-c", "exit 3"}, time.Minute, 3, false, false},
		"it hangs":          {[]string{"-c", "exec sleep 60"}, time.Millisecond, -1, true, false},
		"its caller leaves": {[]string{"-c", "exec sleep 60"}, time.Minute, -1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			child, err := process.Start(t.Context(), process.Spec{Path: "/bin/sh", Args: tc.args})
			if err != nil {
				t.Fatal(err)
			}
			if tc.gone {
				cancel()
			}
			death, hung, err := child.Await(ctx, tc.limit)
			if death.Code != tc.code || hung != tc.hung || (err != nil) != tc.gone {
				t.Errorf("%+v, hung %t, %v", death, hung, err)
			}
		})
	}
}
