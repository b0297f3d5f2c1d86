// Package process runs one child process and reports its end. It owns the child's process group,
// its output pipes and the cause of death. It does not restart processes or interpret output, and
// is the only package that calls os/exec.
package process

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Spec describes the child to start.
type Spec struct {
	// Path is the program; a name without a slash is looked up in PATH.
	Path string
	// Args are the arguments after the program's name.
	Args []string
	// Env is the whole environment of the child; nil means an empty one, so that no variable leaks
	// by accident.
	Env []string
	// Dir is the working directory, "" for the current one.
	Dir string
	// Stdin is the child's standard input, nil for the null device. It is not closed.
	Stdin *os.File
	// ExtraFiles become descriptors 3, 4, … of the child. The caller closes its own copies after
	// Start has returned.
	ExtraFiles []*os.File
	// LogLine gets each line of output; nil drops them. It is called from two goroutines, one per
	// stream, and blocks the child while it blocks.
	LogLine func(stream Stream, line []byte)
	// MaxLine is the maximum length of a line for LogLine; a longer line is split. Default 8 KiB.
	MaxLine int
	// Tail is how much of stderr is kept for Death.LastLines. Default 8 KiB.
	Tail int
	// WhenWeDie is the signal that the child gets if this process dies unexpectedly (Linux only).
	// A child that must end its own processes uses a milder signal than the default, SIGKILL.
	WhenWeDie syscall.Signal
	// Guard, if not empty, is the command line of a program that calls Guard with what follows: that
	// process is put between us and the child, so that no process of the child survives the child or us,
	// also none that has left its group. Stdin and ExtraFiles must be unset then.
	Guard []string
}

// Stream is the source of a line of output.
type Stream string

// The streams of a child.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// ErrNotStarted is wrapped by each error of Start.
var ErrNotStarted = errors.New("process not started")

// Child is a started process. All methods may be called from any goroutine.
type Child struct {
	pid   int // of the guard, if there is one
	since time.Time
	asked atomic.Bool // a signal that ends it was sent
	done  chan struct{}
	death Death // written before done is closed, read after

	guarded *guarded // nil without a guard
	server  atomic.Int64

	mu     sync.Mutex // guards reaped: no signal may go to a pid that is free again
	reaped bool
}

// children are the processes that Start has started and that are not reaped yet.
var children sync.Map //nolint:gochecknoglobals // orphans are told from children of the whole process

// Start starts a child in its own process group, with a parent-death signal on Linux. If ctx ends
// before the child runs, the start is refused; afterwards ctx has no effect: the caller ends the
// child with Stop or Kill, and must always wait for Done.
func Start(ctx context.Context, spec Spec) (*Child, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w: %w", spec.Path, ErrNotStarted, err)
	}
	spec.MaxLine = cmp.Or(spec.MaxLine, 8<<10)
	spec.Tail = cmp.Or(spec.Tail, 8<<10)
	spec.WhenWeDie = cmp.Or(spec.WhenWeDie, syscall.SIGKILL)
	if spec.LogLine == nil {
		spec.LogLine = func(Stream, []byte) {}
	}
	c := &Child{done: make(chan struct{})}
	started := make(chan error, 1)
	// The goroutine that starts the child also reaps it. It stays on one thread: the parent-death
	// signal is bound to the thread that forked, and Go may end a thread long before the process.
	go c.own(spec, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w: %w", spec.Path, ErrNotStarted, err)
	}
	return c, nil
}

// own starts the child and waits until it is reaped and its output is read.
func (c *Child) own(spec Spec, started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	stdout, stdoutChild, err := os.Pipe()
	if err != nil {
		started <- err
		return
	}
	defer func() { _ = stdout.Close() }()
	defer func() { _ = stdoutChild.Close() }()
	stderr, stderrChild, err := os.Pipe()
	if err != nil {
		started <- err
		return
	}
	defer func() { _ = stderr.Close() }()
	defer func() { _ = stderrChild.Close() }()

	// The caller's context is deliberately not used: Stop and Kill end the child.
	cmd := exec.CommandContext(context.Background(), spec.Path, spec.Args...)
	cmd.Env = append([]string{}, spec.Env...)
	cmd.Dir = spec.Dir
	cmd.ExtraFiles = spec.ExtraFiles
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	var guardEnds []*os.File
	if len(spec.Guard) > 0 {
		spec.WhenWeDie = 0 // the guard sees it, and ends its processes first
		if guardEnds, err = c.guard(cmd, spec.Guard); err != nil {
			started <- err
			return
		}
		for _, end := range guardEnds {
			defer func() { _ = end.Close() }()
		}
	}
	cmd.Stdout, cmd.Stderr = stdoutChild, stderrChild
	cmd.SysProcAttr = groupOfItsOwn(spec.WhenWeDie)
	oom := WatchOOM()
	if err := cmd.Start(); err != nil {
		c.guarded.close()
		started <- err
		return
	}
	_ = stdoutChild.Close()
	_ = stderrChild.Close()
	for _, end := range guardEnds {
		_ = end.Close()
	}
	c.pid, c.since = cmd.Process.Pid, time.Now()
	children.Store(c.pid, nil)

	tail := NewTail(spec.Tail)
	var readers sync.WaitGroup
	readers.Go(func() {
		_ = ReadLines(stdout, spec.MaxLine, func(line []byte) { spec.LogLine(Stdout, line) })
	})
	readers.Go(func() {
		_ = ReadLines(io.TeeReader(stderr, tail), spec.MaxLine, func(line []byte) { spec.LogLine(Stderr, line) })
	})
	var status syscall.WaitStatus
	told := false
	if c.guarded != nil {
		readers.Go(func() { status, told = c.hear() })
	}
	started <- nil

	c.reap(cmd)
	children.Delete(c.pid)

	// A grandchild that left the group may hold the pipes open forever, unless a guard has ended it.
	patience := 500 * time.Millisecond
	if c.guarded != nil {
		patience = 10 * time.Second
	}
	limit := time.Now().Add(patience)
	_ = stdout.SetReadDeadline(limit)
	_ = stderr.SetReadDeadline(limit)
	if c.guarded != nil {
		_ = c.guarded.reports.SetReadDeadline(limit)
	}
	readers.Wait()
	c.guarded.close()
	if !told { // by a guard
		status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus) // on every Unix
	}
	c.death = Verdict(status, c.asked.Load(), oom, tail.Lines())
	close(c.done)
}

// PID is the child's process id, and its group's. With a guard it is the guard's.
func (c *Child) PID() int { return c.pid }

// ServerPID is the process id of the child behind its guard, 0 while it has not started.
func (c *Child) ServerPID() int {
	if c.guarded == nil {
		return c.pid
	}
	return int(c.server.Load())
}

// Since is the start time of the child.
func (c *Child) Since() time.Time { return c.since }

// Done is closed once the child is dead, reaped, and its output read to the end.
func (c *Child) Done() <-chan struct{} { return c.done }

// Death returns how the child ended. It blocks until Done is closed.
func (c *Child) Death() Death {
	<-c.done
	return c.death
}

// Signal sends a signal to the child only. It is no error if the child is gone.
func (c *Child) Signal(sig syscall.Signal) error { return c.signal(c.pid, sig) }

// Kill ends the child and its whole group at once. It does not wait for Done.
func (c *Child) Kill() error {
	c.asked.Store(true)
	if c.guarded != nil {
		c.guarded.lifelineEnds.Do(func() { _ = c.guarded.lifeline.Close() })
		go func() { // ends at the end of the child, or after guardPatience
			patience := time.NewTimer(guardPatience)
			defer patience.Stop()
			select {
			case <-c.done:
			case <-patience.C:
				_ = c.signal(-c.pid, syscall.SIGKILL)
			}
		}()
		return nil
	}
	return c.signal(-c.pid, syscall.SIGKILL)
}

// Await waits until the child ends by itself, and kills it if limit or ctx is over before. hung: the limit was
// over. An error is the end of ctx.
func (c *Child) Await(ctx context.Context, limit time.Duration) (death Death, hung bool, err error) {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-c.done:
	case <-late.C:
		hung = true
	case <-ctx.Done():
	}
	_ = c.Kill() // usually it has ended
	return c.Death(), hung, context.Cause(ctx)
}

// Stop sends SIGTERM to the child, waits for grace, or less if ctx ends, then kills its group. It
// returns when the child is gone and may be called several times and concurrently.
func (c *Child) Stop(ctx context.Context, grace time.Duration) Death {
	c.asked.Store(true)
	_ = c.signal(c.pid, syscall.SIGTERM)
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-c.done:
		return c.death
	case <-patience.C:
	case <-ctx.Done():
	}
	_ = c.Kill()
	return c.Death()
}

func (c *Child) signal(pid int, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", c.pid, err)
	}
	return nil
}

// ReadLines reads r to its end and passes each line, without its line end, to take. The slice is
// only valid during the call. A line longer than limit is split, so that a writer without line ends
// can neither fill memory nor block.
func ReadLines(r io.Reader, limit int, take func(line []byte)) error {
	br := bufio.NewReaderSize(r, max(limit, 16))
	for {
		line, _, err := br.ReadLine()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read lines: %w", err)
		}
		take(line)
	}
}
