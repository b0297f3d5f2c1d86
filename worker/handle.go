package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"clearmlserving/process"
	"clearmlserving/recurring"
)

type workerState uint8

const (
	loading workerState = iota
	ready
	leaving // gets nothing new
	dead
)

// worker is one process that executes requests. Group.mu guards the second part.
type worker struct {
	link

	g      *Group
	since  time.Time
	loaded chan loadResult // receives once
	buried chan struct{}   // closed when all is over
	death  process.Death   // valid after buried

	state     workerState
	flights   map[uint64]*flight
	nextID    uint64
	calls     map[uint64]*openCall
	prepared  map[uint64]*Prepared // requests whose state it keeps
	streams   int                  // of the flights, those whose answer has begun
	ahead     int
	batch     batchInFlight // of a group that batches
	perOne    time.Duration // how long one request takes, roughly
	busySince time.Time
	served    uint64
	paced     uint64 // served, when pace was last called
	rescue    *time.Timer
	armed     bool
	lastSeen  uint64          // served, when rescue last looked
	rescued   map[uint64]bool // answered from the shared memory, and by the socket later
	place     *seat
	variables []string // the names that were sent to it
	retiring  bool     // it leaves when it has answered what it has
	asked     bool     // we want its end
	reason    string   // why, "" for a polite end
	types     map[string]string

	stopped int // at how many looks in a row; Pool.watch's
}

// loadResult is what a worker says when its load is over.
type loadResult struct {
	Async    bool     `json:"async"`
	Batches  bool     `json:"batches"`
	Template bool     `json:"template"`
	Why      string   `json:"why"`
	Took     float64  `json:"took"`
	Warnings []string `json:"warnings"`
	err      error
}

// launch forks a process, sends it the spec and starts to read its frames. The result
// of its load comes through loaded. A template also gets a control socket, whose forker
// is returned: it forks the workers of the group.
func (g *Group) launch(ctx context.Context, from *forker, template bool) (*worker, *forker, error) {
	w := &worker{
		link: link{tail: process.NewTail(8 << 10), oom: process.WatchOOM()}, g: g, since: time.Now(), loaded: make(chan loadResult, 1), buried: make(chan struct{}),
		flights: make(map[uint64]*flight), calls: make(map[uint64]*openCall), types: make(map[string]string),
		ahead: aheadMin,
	}
	theirs, children, err := w.connect(template, &g.arena, g.all.Go)
	if err == nil {
		w.process, err = from.fork(ctx, template, g.needs, theirs)
	}
	for _, f := range theirs {
		_ = f.Close() // the process has its own
	}
	if err != nil {
		w.disconnect()
		if children != nil {
			children.close()
		}
		return nil, nil, err
	}
	w.run(context.WithoutCancel(ctx))
	return w, children, nil
}

// run starts to read what the forked process writes, and sends it the spec.
func (w *worker) run(ctx context.Context) {
	g := w.g
	w.rescue = time.AfterFunc(time.Hour, w.rescueAnswers)
	w.rescue.Stop()
	w.readOutputs(g.log, g.o.outputRate)
	g.all.Go(func() { w.read(ctx) })
	hurries := g.hurries()
	g.mu.Lock()
	spec := g.specJSON
	if hurries {
		spec = g.hurryJSON
	}
	w.variables = g.spec.Variables
	g.mu.Unlock()
	w.out.add(appendHeader(nil, header{kind: kindSpec, length: uint32(len(spec))}), spec, nil)
	w.out.flush()
}

// read is the worker's one reader: it takes frames until the end of the socket,
// waits for the process to end, and settles what is left.
func (w *worker) read(ctx context.Context) {
	frames := newFrameReader(w.conn, w.g.o.maxFrame)
	var err error
	for err == nil {
		var fr frame
		if fr, err = frames.next(); err != nil {
			break
		}
		err = w.take(ctx, &fr, !frames.more())
	}
	if errors.Is(err, errFrame) {
		w.kill(err.Error())
	}
	w.bury()
}

// take handles one frame; last says that no other is at hand, so that now is the
// time to send what waits.
func (w *worker) take(ctx context.Context, fr *frame, last bool) error {
	switch fr.kind {
	case kindAnswer:
		return w.answered(fr, last)
	case kindChunk:
		return w.chunk(fr)
	case kindEnd:
		w.endStream(fr)
	case kindCall:
		return w.called(ctx, fr)
	case kindLog:
		w.logged(fr)
	case kindReady:
		var r loadResult
		if err := json.Unmarshal(fr.body, &r); err != nil {
			return fmt.Errorf("%w: %w", errFrame, err)
		}
		w.reportLoaded(r)
	case kindLoadError:
		var e struct{ Text, Cause, Traceback string }
		if err := json.Unmarshal(fr.body, &e); err != nil {
			return fmt.Errorf("%w: %w", errFrame, err)
		}
		w.reportLoaded(loadResult{err: &LoadError{
			Endpoint: w.g.spec.Endpoint, Text: e.Text, Cause: e.Cause, Traceback: e.Traceback, LastLines: w.tail.Lines(),
		}})
	default:
		return fmt.Errorf("%w: of unknown kind %d", errFrame, fr.kind)
	}
	return nil
}

func (w *worker) reportLoaded(r loadResult) {
	select {
	case w.loaded <- r:
	default: // said before
	}
}

// replaceBroken ends a worker whose code reported a fatal error.
func (w *worker) replaceBroken() {
	if w.g.Async() {
		w.g.all.Go(func() { w.stop(context.Background()) }) // others are under way there
		return
	}
	w.kill("the endpoint's code reported an error that only a new process can heal")
}

// cancel tells the worker that f is abandoned. g.mu is held; the caller flushes.
func (w *worker) cancel(f *flight) {
	w.marks.cancelled()
	w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindCancel, id: f.id}), nil, nil)
	for _, c := range w.calls {
		if c.parent == f.id {
			c.cancel()
		}
	}
}

// maxRecurring bounds the text of a record that may recur.
const maxRecurring = 32 << 10

// logged passes on what the runtime logs. The metadata of a record that may recur is its
// key: such records are summed up, so they do not count against the limit of output.
func (w *worker) logged(fr *frame) {
	level := levels[min(int(fr.flags), len(levels)-1)]
	if len(fr.meta) == 0 {
		if w.printed.admit(len(fr.body)) {
			w.log.Log(context.Background(), level, "endpoint says", "text", UserText(fr.body))
		}
		return
	}
	text := UserText(fr.body[:min(len(fr.body), maxRecurring)])
	first, _, _ := strings.Cut(string(text), "\n")
	w.log.Log(context.Background(), level, "endpoint says", "text", text,
		"mark", recurring.Mark(w.g.spec.Endpoint+" "+string(fr.meta), slog.Any("text", UserText(first))))
}

// stop asks the worker to finish, unload and exit, and kills it after stopGrace or at
// the end of ctx. It returns when the process is gone and its requests are settled.
func (w *worker) stop(ctx context.Context) {
	w.g.mu.Lock()
	w.asked = true
	if w.state == ready {
		w.state = leaving
	}
	w.g.mu.Unlock()
	w.out.add(appendHeader(nil, header{kind: kindStop}), nil, nil)
	w.out.flush()
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-w.buried:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	w.process.kill(syscall.SIGKILL, true)
	<-w.buried
}

// kill ends the worker because of what it did. It is first asked where it hangs,
// which it writes to stderr.
func (w *worker) kill(reason string) {
	if !w.condemn(reason) {
		return
	}
	w.process.kill(syscall.SIGUSR1, false)
	time.AfterFunc(100*time.Millisecond, func() { w.process.kill(syscall.SIGKILL, true) })
}

// condemn notes that w is to be killed, and why; false if that is decided already.
func (w *worker) condemn(reason string) bool {
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	if w.reason != "" || w.state == dead {
		return false
	}
	w.reason, w.asked = reason, true
	if w.state == ready {
		w.state = leaving
	}
	return true
}

// bury waits for the end of the process and settles its requests: those begun are lost
// with it, the others go to another worker.
func (w *worker) bury() {
	g := w.g
	w.end()

	g.mu.Lock()
	w.takeUnsent(w.marks.unsent())
	w.death = w.verdict(w.asked, w.reason)
	w.state = dead
	w.rescue.Stop()
	g.drop(w)
	for _, c := range w.calls {
		c.cancel()
	}
	w.settle()
	w.dropPrepared()
	w.marks.close()
	g.mu.Unlock()
	w.reportLoaded(loadResult{err: &LoadError{
		Endpoint: g.spec.Endpoint, Text: "worker died while it loaded: " + w.death.String(), LastLines: w.death.LastLines, Death: w.death,
	}})
	close(w.buried)
	g.feedAll()
}
