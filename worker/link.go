package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"clearmlserving/process"
	"clearmlserving/recurring"
)

// link is the process of a worker and our ends of what connects us with it. It reads what
// the process sends, and ends it. It knows no requests: frames about them, and the end,
// are for its receiver.
type link struct {
	endpoint   string
	o          *Options
	background func(func()) // starts a goroutine of the group
	receiver   receiver
	log        *slog.Logger

	// Set by start.
	pid     int
	since   time.Time
	process *forked
	conn    *net.UnixConn
	out     *outbox
	marks   *marks
	tail    *process.Tail
	printed *output
	oom     *process.OOMWatch
	pipes   []*os.File
	outputs sync.WaitGroup

	loaded chan loadResult // receives once
	ended  chan struct{}   // closed after receiver.Ended
	death  process.Death   // valid after Ended

	asked atomic.Bool // we want the end of the process

	mu     sync.Mutex // guards the rest; no other lock is taken while it is held
	reason string     // why it is killed, "" otherwise
	over   bool       // the process is dead
}

// receiver gets what a process sends about requests. A link calls it without locks.
type receiver interface {
	// Receive handles a frame; last says that no other is at hand, so that now is the time
	// to send what waits. ctx ends with the link's owner.
	Receive(ctx context.Context, fr *frame, last bool) error
	// Leave says that the process will be ended and gets nothing new.
	Leave()
	// Ended is called once, when the process is dead and all that it has sent is received.
	Ended()
}

// loadResult is what a process says when its load is over.
type loadResult struct {
	Async    bool     `json:"async"`
	Batches  bool     `json:"batches"`
	Client   bool     `json:"client"`
	Model    bool     `json:"model"`
	Methods  []string `json:"methods"`
	Template bool     `json:"template"`
	Why      string   `json:"why"`
	Took     float64  `json:"took"`
	Warnings []string `json:"warnings"`
	// Signature describes inputs and outputs, as far as the code and the model tell them; nil unless the
	// spec asks for it.
	Signature json.RawMessage `json:"signature"`
	err       error
}

// start forks the process and reads what it writes. A template also gets a control
// socket, whose forker is returned: it forks the workers of the endpoint.
func (l *link) start(ctx context.Context, from *forker, template bool, needs []string, bodies *arena) (children *forker, err error) {
	l.since, l.tail, l.oom = time.Now(), process.NewTail(8<<10), process.WatchOOM()
	l.loaded, l.ended = make(chan loadResult, 1), make(chan struct{})
	theirs, children, err := l.connect(template, bodies)
	if err == nil {
		l.process, err = from.fork(ctx, template, needs, theirs)
	}
	for _, f := range theirs {
		_ = f.Close() // the process has its own
	}
	if err != nil {
		l.disconnect()
		if children != nil {
			children.close()
		}
		return nil, err
	}
	l.pid = l.process.pid
	l.log = l.log.With("worker", l.pid)
	l.printed = newOutput(l.log, l.o.outputRate)
	for i, name := range []process.Stream{process.Stdout, process.Stderr} {
		l.outputs.Go(func() { l.readOutput(l.pipes[i], name) })
	}
	ctx = context.WithoutCancel(ctx)
	l.background(func() { l.read(ctx) })
	return children, nil
}

// connect makes what the process will share with us; theirs are its ends, in the order
// in which it expects them. The caller closes what it returns, also with an error.
func (l *link) connect(template bool, shared *arena) (theirs []*os.File, children *forker, err error) {
	conn, data, err := socketPair(stream, "data")
	if err != nil {
		return theirs, nil, fmt.Errorf("make a data socket: %w", err)
	}
	l.conn, theirs = conn, append(theirs, data)
	if l.out, err = newOutbox(conn, func() { l.background(l.out.finish) }); err != nil {
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

// read takes frames until the end of the socket, waits for the end of the process, and
// has its requests settled.
func (l *link) read(ctx context.Context) {
	frames := newFrameReader(l.conn, l.o.maxFrame)
	var err error
	for fr := new(frame); err == nil; { // one for all: it would be allocated for each
		if *fr, err = frames.next(); err == nil {
			err = l.take(ctx, fr, !frames.more())
		}
	}
	if errors.Is(err, errFrame) {
		l.kill(err.Error())
	}
	l.awaitEnd()
	l.mu.Lock()
	l.death, l.over = l.cause(), true
	l.mu.Unlock()
	l.receiver.Ended()
	l.reportLoaded(loadResult{err: &LoadError{
		Endpoint: l.endpoint, Text: "worker died while it loaded: " + l.death.String(), LastLines: l.death.LastLines, Death: l.death,
	}})
	close(l.ended)
}

// take handles one frame.
func (l *link) take(ctx context.Context, fr *frame, last bool) error {
	switch fr.kind {
	case kindLog:
		l.logRecord(ctx, fr)
	case kindReady:
		var r loadResult
		if err := json.Unmarshal(fr.body, &r); err != nil {
			return fmt.Errorf("%w: %w", errFrame, err)
		}
		l.reportLoaded(r)
	case kindLoadError:
		var e struct{ Text, Cause, Traceback string }
		if err := json.Unmarshal(fr.body, &e); err != nil {
			return fmt.Errorf("%w: %w", errFrame, err)
		}
		l.reportLoaded(loadResult{err: &LoadError{
			Endpoint: l.endpoint, Text: e.Text, Cause: e.Cause, Traceback: e.Traceback, LastLines: l.tail.Lines(),
		}})
	default:
		return l.receiver.Receive(ctx, fr, last)
	}
	return nil
}

// maxRecurring bounds the text of a record that may recur.
const maxRecurring = 32 << 10

// logRecord logs what the runtime says. The metadata of a record that may recur is its
// key: such records are summed up, so they do not count against the limit of output.
func (l *link) logRecord(ctx context.Context, fr *frame) {
	level := levels[min(int(fr.flags), len(levels)-1)]
	if len(fr.meta) == 0 {
		if l.printed.admit(len(fr.body)) {
			l.log.Log(ctx, level, "endpoint says", "text", UserText(fr.body))
		}
		return
	}
	text := UserText(fr.body[:min(len(fr.body), maxRecurring)])
	first, _, _ := strings.Cut(string(text), "\n")
	l.log.Log(ctx, level, "endpoint says", "text", text,
		"mark", recurring.Mark(l.endpoint+" "+string(fr.meta), slog.Any("text", UserText(first))))
}

func (l *link) reportLoaded(r loadResult) {
	select {
	case l.loaded <- r:
	default: // reported before
	}
}

// post adds a frame without metadata to what is sent; the caller flushes.
func (l *link) post(h header, body []byte) {
	h.length = uint32(len(body))
	l.out.add(appendHeader(make([]byte, 0, headerSize), h), body, nil)
}

// stop asks the process to finish, unload and exit, and kills it after stopGrace or at
// the end of ctx. It returns when the process is gone and its requests are settled.
func (l *link) stop(ctx context.Context) {
	l.asked.Store(true)
	l.receiver.Leave()
	l.post(header{kind: kindStop}, nil)
	l.out.flush()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-l.ended:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	l.abort()
}

// abort kills the process because it is no longer wanted, and waits until its requests are
// settled.
func (l *link) abort() {
	l.asked.Store(true)
	l.process.kill(syscall.SIGKILL, true)
	<-l.ended
}

// kill ends the process because of what it did. It is first asked where it hangs,
// which it writes to stderr.
func (l *link) kill(reason string) {
	if l.markKilled(reason) {
		l.process.kill(syscall.SIGUSR1, false)
		time.AfterFunc(100*time.Millisecond, func() { l.process.kill(syscall.SIGKILL, true) })
	}
}

// killNow ends the process because of the resources that it takes, which may grow while it
// is asked anything. members are processes of its own that may have left its group.
func (l *link) killNow(reason string, members []int) {
	if !l.markKilled(reason) {
		return
	}
	l.process.kill(syscall.SIGKILL, true)
	for _, pid := range members {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it was there a moment ago; gone: nothing to do
	}
}

// markKilled notes that the process is to be killed, and why; false if that is decided already.
func (l *link) markKilled(reason string) bool {
	l.mu.Lock()
	if l.reason != "" || l.over {
		l.mu.Unlock()
		return false
	}
	l.reason = reason
	l.asked.Store(true)
	l.mu.Unlock()
	l.receiver.Leave()
	return true
}

// awaitEnd waits for the end of the process, whose socket has ended, and of its output.
func (l *link) awaitEnd() {
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

// cause makes the death of the wait status. mu is held.
func (l *link) cause() process.Death {
	d := process.Verdict(l.process.status, l.asked.Load(), l.oom, l.tail.Lines())
	if l.process.lost {
		d = process.Death{
			Signal: syscall.SIGKILL, Code: -1, LastLines: l.tail.Lines(), At: time.Now(), Asked: l.asked.Load(),
			Reason: "the process that it was forked from died",
		}
	}
	if l.reason != "" {
		d.Reason = l.reason
	}
	return d
}
