package worker

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"clearmlserving/process"
)

// link is a worker's process and our ends of what connects us with it. It knows no
// requests and needs no lock: what happens to it is in the order of connect, the fork,
// readOutputs, and end.
type link struct {
	pid     int
	log     *slog.Logger
	process *forked
	conn    *net.UnixConn
	out     *outbox
	marks   *marks
	tail    *process.Tail
	printed *output
	oom     *process.OOMWatch
	pipes   []*os.File
	outputs sync.WaitGroup
}

// connect makes what the process will share with us; theirs are its ends, in the order
// in which it expects them. The caller closes what it returns, also with an error.
func (l *link) connect(template bool, shared *arena, background func(func())) (theirs []*os.File, children *forker, err error) {
	conn, data, err := socketPair(stream, "data")
	if err != nil {
		return theirs, nil, fmt.Errorf("make a data socket: %w", err)
	}
	l.conn, theirs = conn, append(theirs, data)
	if l.out, err = newOutbox(conn, func() { background(l.out.finish) }); err != nil {
		return theirs, nil, fmt.Errorf("make a data socket: %w", err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		r, pw, err := os.Pipe()
		if err != nil {
			return theirs, nil, fmt.Errorf("make a pipe for %s: %w", name, err)
		}
		l.pipes, theirs = append(l.pipes, r), append(theirs, pw)
		// Go opens pipes non-blocking, at which a print of user code would fail.
		if err := syscall.SetNonblock(int(pw.Fd()), false); err != nil {
			return theirs, nil, fmt.Errorf("make a pipe for %s: %w", name, err)
		}
	}
	marks, file, err := newMarks()
	if err != nil {
		return theirs, nil, err
	}
	l.marks, theirs = marks, append(theirs, file)
	bodies, err := shared.share()
	if err != nil {
		return theirs, nil, err
	}
	theirs = append(theirs, bodies)
	if template {
		f, control, err := newForker()
		if err != nil {
			return theirs, nil, err
		}
		children, theirs = f, append(theirs, control)
	}
	return theirs, children, nil
}

// disconnect closes our ends after connect, when no process was forked.
func (l *link) disconnect() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	for _, p := range l.pipes {
		_ = p.Close()
	}
	if l.marks != nil {
		l.marks.close()
	}
}

// readOutputs starts to log what the forked process writes.
func (l *link) readOutputs(log *slog.Logger, rate int) {
	l.pid = l.process.pid
	l.log = log.With("worker", l.pid)
	l.printed = newOutput(l.log, rate)
	for i, name := range []process.Stream{process.Stdout, process.Stderr} {
		l.outputs.Go(func() { l.readOutput(l.pipes[i], name) })
	}
}

// longestLine is how much of a line or record is logged as one.
const longestLine = 32 << 10

func (l *link) readOutput(pipe *os.File, name process.Stream) {
	_ = process.ReadLines(pipe, longestLine, func(line []byte) {
		if name == process.Stderr {
			_, _ = l.tail.Write(append(slices.Clone(parseLine(line).text), '\n')) // it never fails
		}
		l.printed.line(string(name), line)
	})
}

// end waits for the end of the process, whose socket has ended, and of its output.
func (l *link) end() {
	last := time.AfterFunc(time.Second, func() { l.process.kill(syscall.SIGKILL, true) }) // it closed its socket and lives on
	<-l.process.done
	last.Stop()
	if l.process.lost {
		// Its forker can no longer end its children. The group keeps its number as long
		// as it has members, so this reaches no other process.
		_ = syscall.Kill(-l.pid, syscall.SIGKILL)
	}
	limit := time.Now().Add(500 * time.Millisecond) // a grandchild may hold the pipes
	for _, p := range l.pipes {
		_ = p.SetReadDeadline(limit)
	}
	l.outputs.Wait()
	for _, p := range l.pipes {
		_ = p.Close()
	}
	l.printed.end()
	_ = l.conn.Close()
	l.out.breakOff()
}

// verdict makes the death of the wait status. asked reports that we wanted it, and
// reason why.
func (l *link) verdict(asked bool, reason string) process.Death {
	d := process.Verdict(l.process.status, asked, l.oom, l.tail.Lines())
	if l.process.lost {
		d = process.Death{
			Signal: syscall.SIGKILL, Code: -1, LastLines: l.tail.Lines(), At: time.Now(), Asked: asked,
			Reason: "the process that it was forked from died",
		}
	}
	if reason != "" {
		d.Reason = reason
	}
	return d
}
