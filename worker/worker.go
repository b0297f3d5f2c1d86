// Package worker is the Go side of the Python processes that run user code. It
// owns the interpreter's environment, the zygote that forks workers, the groups
// of workers that answer for one endpoint, and the frames between us and them.
// It never parses a request's body, knows no HTTP, and never starts a process
// but through package process.
package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"clearmlserving/serving"
)

// Options of a Pool. The zero value of each field is usable unless said otherwise.
type Options struct {
	// Environment is the interpreter that runs the workers, as FindEnvironment
	// found it. Required.
	Environment *Environment
	// Restore makes the folder of Environment again if it is gone, nil when it cannot be
	// made. It is called before a process is started.
	Restore func(ctx context.Context) error
	// RuntimeDir is where the embedded Python files are put, in a folder named by
	// their hash. Required; shared by all instances on the machine.
	RuntimeDir string
	// ZygoteEnv is the whole environment of the zygote, to which the caps on
	// native thread pools are added. Workers get Spec.Env instead.
	ZygoteEnv []string
	// Preload says which packages the zygote imports before it forks; nil: those
	// of the well-known ones that are installed.
	Preload []string
	// Caller answers send_request of user code; nil refuses all calls.
	Caller Caller
	// Account is the user that workers run as, nil for the service's own user; it needs root.
	Account *Account
	// OpenFiles bounds the descriptors of one worker. 0: no bound but the machine's.
	OpenFiles int
	// Budget bounds the memory of all workers of this and other pools; nil: none.
	Budget *Budget
	// Ahead bounds the bytes of streams that wait for their readers, of this and other
	// pools; nil: NewAhead(0) for this pool.
	Ahead *Ahead
	// Logger takes what happens to the workers, and their output. Default: none.
	Logger *slog.Logger

	bounds
}

const (
	// defaultQueue bounds the requests of one endpoint that wait for a worker.
	defaultQueue = 4096
	// maxCalls bounds the send_request calls of one worker under way.
	maxCalls = 256
	// asyncRequests bounds the requests under way in one worker of an asynchronous endpoint.
	asyncRequests = 256
	// stopGrace is how long a worker may take to unload.
	stopGrace = 5 * time.Second
)

// bounds are constants of a Pool that tests change.
type bounds struct {
	// maxFrame bounds one message in either direction.
	maxFrame int
	// maxReentry bounds how many requests one worker executes on top of each other
	// while the lower ones wait in send_request.
	maxReentry int
	// outputRate bounds the bytes a second of a worker's output that are logged; the
	// rest is counted and dropped.
	outputRate int
	// A worker with more than maxThreads threads, or that has started more than
	// maxProcesses processes, is killed.
	maxThreads, maxProcesses int
	// loadStall ends a load that shows no progress for so long. A load that
	// progresses may take as long as it needs.
	loadStall time.Duration
	// killGrace is how long a request may run past its deadline before the worker
	// that executes it is killed.
	killGrace time.Duration
	// maxBackoff bounds the pause before the restart of a process that dies repeatedly.
	maxBackoff time.Duration
}

var defaultBounds = bounds{
	maxFrame: 1 << 30, maxReentry: 16, outputRate: 256 << 10, maxThreads: 1024, maxProcesses: 256,
	loadStall: time.Minute, killGrace: 2 * time.Second, maxBackoff: 3 * time.Second,
}

func (o Options) withDefaults() Options {
	if o.bounds == (bounds{}) {
		o.bounds = defaultBounds
	}
	if o.Ahead == nil {
		o.Ahead = NewAhead(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Spec is one endpoint to be served by a Group. Files are local by now.
type Spec struct {
	// Endpoint is the url, "name/1".
	Endpoint string
	// Engine is the name of the engine, "sklearn".
	Engine string
	// CodePath is the user's file or folder, "" for none.
	CodePath string
	// CodeName is the name of the artifact that the code came from.
	CodeName string
	// ModelPath is the model's file or folder, "" for none.
	ModelPath string
	// Restore brings CodePath and ModelPath back if they are missing or cut short; distrust
	// asks it to compare their content, since a load has failed. Called before each
	// process but the first is started. nil: they cannot be brought back.
	Restore func(ctx context.Context, distrust bool) error
	// Fields is the endpoint's record as a JSON object, what user code finds as
	// self.model_endpoint.
	Fields json.RawMessage
	// Variables are the names of the statistics variables that the endpoint logs.
	Variables []string
	// Workers is the number of processes, and the most of them where some are
	// Elastic. Default 1. More than one share the memory of the loaded model where
	// that is proven to be right, or the code says so.
	Workers int
	// Elastic says how many of the Workers are started only when requests wait, and
	// end when they were idle for Limits.IdleTimeout. With all of them elastic
	// the endpoint sleeps without a process until the next request, which is held.
	Elastic int
	// Limits bound the queue and the life of the workers. Their numbers of workers and their
	// deadline are for the caller to apply.
	Limits serving.Limits
	// Env is the whole environment that user code finds, "NAME=value".
	Env []string
	// Batch has requests executed together: preprocess of each, one predict of all their
	// rows, postprocess of each. Default: one by one.
	Batch serving.Batching
	// Extra is passed on to the Python side as it is.
	Extra map[string]any
}

// Request is one question to an endpoint.
type Request struct {
	// ID names the request towards user code.
	ID string
	// Body is untouched payload, valid until Do has returned.
	Body []byte
	// Loan, if not nil, is where Body lies.
	Loan        *Loan
	ContentType string
	// Depth counts the send_request calls that led here.
	Depth int
	// Sampled asks for statistics variables.
	Sampled bool
}

// Header is one header field.
type Header struct{ Name, Value string }

// Response is the answer of user code.
type Response struct {
	Status      int
	ContentType string
	Headers     []Header
	Body        []byte
	// Stats is a JSON object of the logged variables, nil for none.
	Stats []byte
	// ErrorKind says which error of user code this is, "" for none.
	ErrorKind string
	// Stream, when not nil, yields the body; the caller must Close it.
	Stream *Stream

	prepared *Prepared // of a kindPre, when preprocess did not fail
}

// Caller answers the send_request calls of user code.
type Caller interface {
	// Call is called from many goroutines. ctx ends with the request that makes
	// the call; an error becomes an answer with status 500 for user code.
	Call(ctx context.Context, c CallRequest) (CallResponse, error)
}

// CallRequest is a send_request of user code.
type CallRequest struct {
	// From is the endpoint whose code calls.
	From string
	// RequestID is the id of the request that the code executes.
	RequestID string
	// Depth is that request's depth plus one.
	Depth int
	// URL and Version say which endpoint is called, Version "" for none.
	URL, Version string
	Body         []byte
	ContentType  string
}

// CallResponse is the answer to a send_request.
type CallResponse struct {
	Status      int
	ContentType string
	Body        []byte
}

// Pool runs the Python workers of one environment. It owns the zygote.
type Pool struct {
	o      Options
	zygote *zygote

	mu     sync.Mutex // guards groups, closed
	groups map[*Group]struct{}
	closed bool
}

// New prepares a Pool; Run starts it.
func New(o Options) *Pool {
	o = o.withDefaults()
	return &Pool{o: o, zygote: newZygote(o), groups: make(map[*Group]struct{})}
}

// Run keeps a zygote alive until ctx ends, then closes the groups that are left
// and every process. It is called once. It returns an error only when the
// environment cannot be used at all.
func (p *Pool) Run(ctx context.Context) error {
	zygoteCtx, stopZygote := context.WithCancel(context.WithoutCancel(ctx)) // outlives the groups
	defer stopZygote()
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = p.zygote.run(zygoteCtx)
	}()
	p.o.Budget.join(p)
	defer p.o.Budget.leave(p)
	var watcher sync.WaitGroup
	watcher.Go(func() { p.watch(zygoteCtx) })
	defer watcher.Wait()
	defer stopZygote()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	p.closeGroups(context.WithoutCancel(ctx))
	stopZygote()
	<-ended
	if err != nil {
		return fmt.Errorf("run python workers with %s: %w", p.o.Environment.Python, err)
	}
	return nil
}

func (p *Pool) closeGroups(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	groups := make([]*Group, 0, len(p.groups))
	for g := range p.groups {
		groups = append(groups, g)
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var all sync.WaitGroup
	for _, g := range groups {
		all.Go(func() { _ = g.Close(ctx) }) // only says that it had to kill
	}
	all.Wait()
}

// Start loads an endpoint and returns when its first worker can answer; further
// workers follow in the background. It may be called at any time, also from many
// goroutines: before Run has the zygote ready, it waits. The end of ctx ends the
// load. A *LoadError carries the user's traceback.
func (p *Pool) Start(ctx context.Context, spec Spec) (*Group, error) {
	if spec.Workers <= 0 {
		spec.Workers = 1
	}
	spec.Elastic = min(max(spec.Elastic, 0), spec.Workers)
	if spec.Limits.MaxQueue <= 0 {
		spec.Limits.MaxQueue = defaultQueue
	}
	if err := p.admit(spec); err != nil {
		return nil, fmt.Errorf("start %q: %w", spec.Endpoint, err)
	}
	g := newGroup(p, spec)
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, fmt.Errorf("start %q: %w", spec.Endpoint, ErrClosed)
	}
	p.groups[g] = struct{}{}
	p.mu.Unlock()
	if err := g.start(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

// admit lets the workers' account read what the endpoint is made of.
func (p *Pool) admit(spec Spec) error {
	for _, path := range []string{spec.CodePath, spec.ModelPath} {
		if err := p.o.Account.admit(path); err != nil {
			return fmt.Errorf("let its workers' account in: %w", err)
		}
	}
	return nil
}

func (p *Pool) forget(g *Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.groups, g)
}
