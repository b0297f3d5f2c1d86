package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"clearmlserving/process"
)

// errForkerGone says that the process which forks workers is dead.
var errForkerGone = errors.New("the process that forks workers is gone")

// forker is our end of the control socket of a process that forks workers: the
// zygote, or the template of one endpoint.
type forker struct {
	conn *net.UnixConn

	mu       sync.Mutex // guards the rest
	children map[uint64]*forked
	next     uint64
	gone     bool
	pid      int // 0 until it has reported it
}

// forked is a process that a forker has forked, and whose end it reports.
type forked struct {
	n    uint64
	f    *forker
	born chan error // receives once: nil when the process exists
	pid  int        // valid after born

	done   chan struct{}      // closed when the process is dead
	status syscall.WaitStatus // valid after done
	lost   bool               // it died because its forker died
}

// control is a message from a forker.
type control struct {
	Is       string            `json:"is"`
	N        uint64            `json:"n"`
	PID      int               `json:"pid"`
	Status   uint32            `json:"status"`
	Text     string            `json:"text"`
	Name     string            `json:"name"`
	Threads  int               `json:"threads"`
	Imported []string          `json:"imported"`
	Failed   map[string]string `json:"failed"`
}

// newForker makes a control socket; theirs is for the process that will fork.
func newForker() (f *forker, theirs *os.File, err error) {
	conn, theirs, err := socketPair(packets, "control")
	if err != nil {
		return nil, nil, fmt.Errorf("make a control socket: %w", err)
	}
	return &forker{conn: conn, children: make(map[uint64]*forked)}, theirs, nil
}

// read handles the forker's messages until it is gone; then all its children are
// dead too. other gets the messages that are not about children.
func (f *forker) read(other func(control)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		var m control
		if json.Unmarshal(buf[:n], &m) != nil {
			break // only our own runtime writes here, so it is broken
		}
		f.mu.Lock()
		c := f.children[m.N]
		if m.Is == "exit" || m.Is == "unforked" {
			delete(f.children, m.N)
		}
		f.mu.Unlock()
		switch {
		case m.Is == "here":
			f.mu.Lock()
			f.pid = m.PID
			f.mu.Unlock()
		case c == nil:
			other(m)
		case m.Is == "forked":
			c.pid = m.PID
			c.born <- nil
		case m.Is == "unforked":
			c.born <- fmt.Errorf("fork: %s", m.Text)
			close(c.done)
		case m.Is == "exit":
			c.status = syscall.WaitStatus(m.Status)
			close(c.done)
		}
	}
	f.close()
	f.mu.Lock()
	left := f.children
	f.children = nil
	f.mu.Unlock()
	for _, c := range left {
		c.lost = true
		select {
		case c.born <- errForkerGone:
		default: // reported before
		}
		close(c.done)
	}
}

// close ends the forker and its children.
func (f *forker) close() {
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	_ = f.conn.Close()
}

// retire asks the forker to end; read continues until it has.
func (f *forker) retire() {
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	if err := f.conn.CloseWrite(); err != nil {
		_ = f.conn.Close()
	}
}

func (f *forker) alive() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.gone
}

// process is the id of the process that forks, 0 when it is gone, has not reported
// it yet, or there is none.
func (f *forker) process() int {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return 0
	}
	return f.pid
}

// fork asks for a process that gets files as its data socket, stdout, stderr,
// page of marks and, for a template, control socket. The zygote imports
// the packages in needs before it forks.
func (f *forker) fork(ctx context.Context, template bool, needs []string, files []*os.File) (*forked, error) {
	f.mu.Lock()
	if f.gone {
		f.mu.Unlock()
		return nil, errForkerGone
	}
	f.next++
	c := &forked{n: f.next, f: f, born: make(chan error, 1), done: make(chan struct{})}
	f.children[c.n] = c
	f.mu.Unlock()

	descriptors := make([]int, len(files))
	for i, file := range files {
		descriptors[i] = int(file.Fd())
	}
	message, err := json.Marshal(map[string]any{"do": "fork", "n": c.n, "template": template, "needs": needs})
	if err == nil {
		_, _, err = f.conn.WriteMsgUnix(message, unix.UnixRights(descriptors...), nil)
	}
	if err != nil {
		f.mu.Lock()
		delete(f.children, c.n)
		f.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errForkerGone, err)
	}
	select {
	case err := <-c.born:
		if err != nil {
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		c.kill(syscall.SIGKILL, true) // the messages are handled in order
		return nil, context.Cause(ctx)
	}
}

// wake continues a forker that a signal has stopped: a stopped one neither forks nor
// reports, and killing it would end all its workers. A process that a debugger has stopped
// is not continued.
func (f *forker) wake() {
	pid := f.process()
	if pid == 0 {
		return
	}
	if stat, ok := process.StatOf(pid); ok && stat.Stopped {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it existed a moment ago
	}
}

// kill sends a signal to the process or its group. The parent sends it, so that it never
// reaches another process that has got the same id.
func (c *forked) kill(sig syscall.Signal, group bool) {
	message, err := json.Marshal(map[string]any{"do": "kill", "n": c.n, "signal": int(sig), "group": group})
	if err != nil {
		return // numbers always encode
	}
	_, _ = c.f.conn.Write(message) // it fails only if the forker, and so the process, is dead
}
