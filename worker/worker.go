// Package worker is the Go side of the Python processes that run user code. It
// owns the interpreter's environment, the zygote that forks workers, the groups
// of workers that serve one endpoint, and the frames between this process and them.
// It never parses a request's body, knows no HTTP, and starts processes only through
// package process.
package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"clearmlserving/serving"
)

// Options of a Pool. The zero value of each field is usable unless said otherwise.
type Options struct {
	// Environment is the interpreter that runs the workers, as FindEnvironment
	// found it. Required.
	Environment *Environment
	// Restore creates the folder of Environment again if it is missing; nil: it cannot be
	// created. It is called before a process is started.
	Restore func(ctx context.Context) error
	// RuntimeDir is the folder for the embedded Python files; a folder in it is named by
	// their hash. Required; instances on one machine may share it.
	RuntimeDir string
	// ZygoteEnv is the complete environment of the zygote, to which the limits of
	// native thread pools are added. Workers get Spec.Env instead.
	ZygoteEnv []string
	// Preload lists the packages that the zygote imports before it forks; nil: the
	// well-known ones that are installed.
	Preload []string
	// Caller answers send_request of user code; nil refuses all calls.
	Caller Caller
	// Account is the user that workers run as, nil for the service's own user; it needs root.
	Account *Account
	// OpenFiles bounds the descriptors of one worker. 0: only the machine's limit applies.
	OpenFiles int
	// Budget bounds the memory of all workers of this and other pools; nil: none.
	Budget *Budget
	// Ahead bounds the bytes of streams that are buffered for their readers, of this and
	// other pools; nil: NewAhead(0) for this pool.
	Ahead *Ahead
	// Logger logs events of the workers, and their output. Default: none.
	Logger *slog.Logger

	bounds
}

const (
	// defaultQueue bounds the requests of one endpoint that wait for a worker.
	defaultQueue = 4096
	// maxCalls bounds the concurrent send_request calls of one worker.
	maxCalls = 256
	// asyncRequests bounds the concurrent requests in one worker of an asynchronous endpoint.
	asyncRequests = 256
	// stopGrace is how long a worker may take to unload.
	stopGrace = 5 * time.Second
)

// bounds are constants of a Pool that tests change.
type bounds struct {
	// maxFrame bounds one message in either direction.
	maxFrame int
	// maxReentry bounds the nested requests that one worker executes while the outer ones
	// wait in send_request.
	maxReentry int
	// outputRate bounds the logged output of a worker in bytes per second; the rest is
	// counted and dropped.
	outputRate int
	// A worker with more than maxThreads threads, or that has started more than
	// maxProcesses processes, is killed.
	maxThreads, maxProcesses int
	// loadStall is the time without progress after which a load is ended. A load that
	// progresses is not limited.
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
	o.Ahead = cmp.Or(o.Ahead, NewAhead(0))
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

// Spec describes an endpoint that a Group serves. Its files are local.
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
	// Restore restores CodePath and ModelPath if they are missing or truncated; distrust
	// asks it to compare their content, because a load has failed. It is called before the
	// start of each process but the first. nil: they cannot be restored.
	Restore func(ctx context.Context, distrust bool) error
	// Fields is the endpoint's record as a JSON object, which is self.model_endpoint in
	// user code.
	Fields json.RawMessage
	// Variables are the names of the statistics variables that the endpoint logs.
	Variables []string
	// Workers is the maximum number of processes. Default 1. Several of them share the
	// memory of the loaded model where that is proven to be correct, or the code asks for it.
	Workers int
	// Elastic is the number of Workers that are started only when requests wait, and
	// end after Limits.IdleTimeout without work. If all are elastic the endpoint sleeps
	// without a process until the next request, which is held.
	Elastic int
	// Limits bound the queue and the life of the workers. The caller applies their numbers of
	// workers and their deadline.
	Limits serving.Limits
	// Env is the complete environment of user code, "NAME=value".
	Env []string
	// Batch has requests executed together: preprocess of each, one predict of all their
	// rows, postprocess of each. Default: one by one.
	Batch serving.Batching
	// Extra is passed on to the Python side as it is.
	Extra map[string]any
}

// Request is one request to an endpoint.
type Request struct {
	// ID names the request towards user code.
	ID string
	// Body is the payload, valid until Do has returned.
	Body []byte
	// Loan, if not nil, is where Body lies.
	Loan        *Loan
	ContentType string
	// Client is how the client asked, for a Group that ShowsClient: its method, path, query and
	// address, then the names and values of its header fields, then its parameters as a JSON object if
	// there are any, each by AppendClientText. Empty: no
	// client has sent the request itself.
	Client []byte
	// Depth counts the nested send_request calls that led to this request.
	Depth int
	// Sampled asks for the statistics variables.
	Sampled bool
	// Traceparent is the W3C header of the request's span, "" if it is not traced. Spans gets the spans of user
	// code below it, as a JSON list, from another goroutine.
	Traceparent string
	Spans       func(list []byte)
}

// Header is one header field.
type Header struct{ Name, Value string }

// Response is the answer of user code.
type Response struct {
	Status      int
	ContentType string
	Headers     []Header
	Body        []byte
	// Tensors is the answer to a request with tensors, nil for an error status.
	Tensors *Value
	// Stats is a JSON object of the logged variables, nil for none.
	Stats []byte
	// ErrorKind is the kind of user code's error, "" for none.
	ErrorKind string
	// Queued is how long the request waited before it was sent to a worker.
	Queued time.Duration
	// Stream, when not nil, yields the body; the caller must Close it.
	Stream *Stream

	prepared *Prepared // of a kindPre, when preprocess did not fail
}

// Caller answers the send_request calls of user code.
type Caller interface {
	// Call may be called from many goroutines. ctx ends with the calling request;
	// an error becomes an answer with status 500 for user code.
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
	// URL and Version name the called endpoint; Version is "" for none.
	URL, Version string
	Body         []byte
	ContentType  string
	// Traceparent is that of the span that calls, "" for none.
	Traceparent string
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

// Run keeps a zygote running until ctx ends, then closes the remaining groups and ends
// all processes. It is called once. It returns an error only when the environment cannot
// be used.
func (p *Pool) Run(ctx context.Context) error {
	p.o.Budget.join(p)
	defer p.o.Budget.leave(p)
	zygoteCtx, stopZygote := context.WithCancel(context.WithoutCancel(ctx)) // outlives the groups
	defer stopZygote()
	var err error
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { p.watch(zygoteCtx) })
	all.Go(func() {
		defer close(ended)
		err = p.zygote.run(zygoteCtx)
	})
	select {
	case <-ctx.Done():
	case <-ended:
	}
	p.closeGroups(context.WithoutCancel(ctx))
	stopZygote()
	all.Wait()
	if err != nil {
		return fmt.Errorf("run python workers with %s: %w", p.o.Environment.Python, err)
	}
	return nil
}

func (p *Pool) closeGroups(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var all sync.WaitGroup
	for _, g := range p.appendGroups(nil) {
		all.Go(func() { _ = g.Close(ctx) }) // the error only says that it had to kill
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
	g := newGroup(ctx, p, spec)
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

// admit lets the workers' account read the endpoint's files.
func (p *Pool) admit(spec Spec) error {
	for _, path := range []string{spec.CodePath, spec.ModelPath} {
		if err := p.o.Account.admit(path); err != nil {
			return fmt.Errorf("let the account of its workers read its files: %w", err)
		}
	}
	return nil
}

// appendGroups appends the groups that are not closed.
func (p *Pool) appendGroups(to []*Group) []*Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.AppendSeq(to, maps.Keys(p.groups))
}

func (p *Pool) forget(g *Group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.groups, g)
}
