// Package process runs one child process and tells the truth about its end. It
// owns the child's process group, its output pipes and the verdict why it died.
// It never restarts anything, never interprets output, and is the only package
// that calls os/exec.
package process

import (
	"bufio"
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
	// Env is the whole environment of the child; nil means an empty one, so that
	// nothing of ours leaks by accident.
	Env []string
	// Dir is the working directory, "" for ours.
	Dir string
	// Stdin is the child's standard input, nil for the null device. It is not closed.
	Stdin *os.File
	// ExtraFiles become descriptors 3, 4, … of the child. The caller closes its
	// own copies after Start has returned.
	ExtraFiles []*os.File
	// LogLine takes each line of output, nil to drop them. It is called from two
	// goroutines, one for each stream, and the child blocks when it does.
	LogLine func(stream Stream, line []byte)
	// MaxLine is the longest line given to LogLine; a longer one arrives in
	// pieces. Default 8 KiB.
	MaxLine int
	// Tail is how much of stderr is kept for Death.LastLines. Default 8 KiB.
	Tail int
	// WhenWeDie is the signal that the child gets if we die without a word, where
	// the system can do that (Linux). A child that has processes to end itself asks
	// for a milder one than the default, SIGKILL.
	WhenWeDie syscall.Signal
}

// Stream says where a line of output came from.
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
	pid   int
	since time.Time
	asked atomic.Bool // we sent a signal that ends it
	done  chan struct{}
	death Death // written before done is closed, read after

	mu     sync.Mutex // guards reaped: no signal may go to a pid that is free again
	reaped bool
}

// Start starts a child in a process group of its own, told to die with us where
// the system can do that (Linux). The end of ctx before the child runs refuses
// the start; afterwards ctx has no meaning: the caller ends the child with Stop
// or Kill, and must wait for Done either way.
func Start(ctx context.Context, spec Spec) (*Child, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w: %w", spec.Path, ErrNotStarted, err)
	}
	if spec.MaxLine <= 0 {
		spec.MaxLine = 8 << 10
	}
	if spec.Tail <= 0 {
		spec.Tail = 8 << 10
	}
	if spec.WhenWeDie == 0 {
		spec.WhenWeDie = syscall.SIGKILL
	}
	c := &Child{done: make(chan struct{})}
	started := make(chan error, 1)
	// The goroutine that starts the child also reaps it. It stays on one thread:
	// the parent-death signal is tied to the thread that forked, and Go may end a
	// thread long before the process.
	go c.own(spec, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w: %w", spec.Path, ErrNotStarted, err)
	}
	return c, nil
}

// own starts the child and stays with it until it is reaped and its output is read.
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

	// The context is deliberately not the caller's: Stop and Kill end the child.
	cmd := exec.CommandContext(context.Background(), spec.Path, spec.Args...)
	cmd.Env = append([]string{}, spec.Env...)
	cmd.Dir = spec.Dir
	cmd.ExtraFiles = spec.ExtraFiles
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	cmd.Stdout, cmd.Stderr = stdoutChild, stderrChild
	cmd.SysProcAttr = groupOfItsOwn(spec.WhenWeDie)
	oom := WatchOOM()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	_ = stdoutChild.Close()
	_ = stderrChild.Close()
	c.pid, c.since = cmd.Process.Pid, time.Now()

	tail := NewTail(spec.Tail)
	var readers sync.WaitGroup
	readers.Go(func() {
		_ = ReadLines(stdout, spec.MaxLine, func(line []byte) {
			if spec.LogLine != nil {
				spec.LogLine(Stdout, line)
			}
		})
	})
	readers.Go(func() {
		_ = ReadLines(io.TeeReader(stderr, tail), spec.MaxLine, func(line []byte) {
			if spec.LogLine != nil {
				spec.LogLine(Stderr, line)
			}
		})
	})
	started <- nil

	c.reap(cmd)

	// A grandchild that left the group may hold the pipes open for ever.
	limit := time.Now().Add(500 * time.Millisecond)
	_ = stdout.SetReadDeadline(limit)
	_ = stderr.SetReadDeadline(limit)
	readers.Wait()
	c.death = newDeath(cmd.ProcessState, c.asked.Load(), oom, tail.Lines())
	close(c.done)
}

// PID is the child's process id, and its group's.
func (c *Child) PID() int { return c.pid }

// Since is when the child was started.
func (c *Child) Since() time.Time { return c.since }

// Done is closed once the child is dead, reaped, and its output read to the end.
func (c *Child) Done() <-chan struct{} { return c.done }

// Death says how the child ended. It blocks until Done is closed.
func (c *Child) Death() Death {
	<-c.done
	return c.death
}

// Signal sends a signal to the child alone. A child that is gone is no error.
func (c *Child) Signal(sig syscall.Signal) error { return c.signal(c.pid, sig) }

// Kill ends the child and its whole group at once. It does not wait for Done.
func (c *Child) Kill() error {
	c.asked.Store(true)
	return c.signal(-c.pid, syscall.SIGKILL)
}

// Stop asks the child to end (SIGTERM), waits for grace, or less if ctx ends,
// then kills its group. It returns when the child is gone and may be called more
// than once and at the same time.
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

// ReadLines reads r to its end and gives each line, without its end, to take.
// The slice is only valid during the call. A line longer than limit arrives in
// pieces, so that a writer without line ends can neither fill memory nor be held up.
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
