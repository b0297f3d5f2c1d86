// Package rest is the front for HTTP clients: POST /serve/<endpoint>[/<version>], the Open
// Inference Protocol (/v2), KServe's protocol V1, the OpenAI API (/serve/openai/v1), the probes, and the operators' listener. It owns its sockets and everything that is
// specific to HTTP: paths, headers, statuses, CORS. The core decides about access and
// answers.
package rest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/mcp"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/inference/openapi"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// Options of a Front.
type Options struct {
	// Listener accepts clients' connections; the Front closes it.
	Listener net.Listener
	// Admin accepts operators' connections (status, profiles), nil for none; the Front
	// closes it.
	Admin net.Listener
	// AdminToken, if set, is required on Admin. Without one, Admin only answers requests
	// that name the machine by its address, or as localhost.
	AdminToken string
	// Metrics answers scrapes of Prometheus on Admin, nil for none.
	Metrics http.Handler
	// Feedback takes what turned out to be true about answers, nil for none.
	Feedback Feedback
	// Tracer traces the requests, nil for none.
	Tracer *tracing.Tracer
	// Suffix is the first part of every endpoint's path. Default "serve".
	Suffix string
	// StopTimeout bounds running requests after the end of Run's context and the DrainDelay.
	// 0: they are cut at once.
	StopTimeout time.Duration
	// DrainDelay is how long requests are still accepted after the end of Run's context,
	// while /readyz already answers "not ready": the time that a load balancer needs to
	// detect it. Default 0: none.
	DrainDelay time.Duration
	// MaxBody bounds a request body, as sent and decompressed. Default 256 MiB.
	MaxBody int64
	// MaxConnections bounds the clients' open connections. 0: only the machine's limit.
	MaxConnections int
	// Origins are the web pages ("https://app.example.com", or "*") that may send
	// requests from a browser. None by default.
	Origins []string
	// Identity proves on Listener that this is the instance of a record on the control
	// plane; the zero value proves nothing.
	Identity serving.Identity
	// Version is that of this program, for clients that ask.
	Version string
	Logger  *slog.Logger
}

// Feedback takes what turned out to be true about answers, and reports the quality of predictions.
type Feedback interface {
	// Take stores feedback about an endpoint. It returns an HTTP status and a JSON body.
	Take(endpoint serving.EndpointURL, body []byte) (status int, answer []byte)
	// Show describes the quality of an endpoint's predictions.
	Show(endpoint serving.EndpointURL, query string) (status int, contentType string, answer []byte)
	// Verify checks the header of a request of another instance, which has no client's key. It
	// returns nil if the header is valid.
	Verify(header string) error
	// TakeOver joins truths from another instance. header has been verified.
	TakeOver(header string, endpoint serving.EndpointURL, body []byte) (status int, answer []byte)
}

// Front serves HTTP clients. It implements inference.Front.
type Front struct {
	o       Options
	core    *inference.Service
	prefix  string
	origins origins
	started time.Time

	documents documents
	page      []openapi.File

	tools      *mcp.Server
	mcpContext context.Context //nolint:containedctx // of the answers to agents, which end before the listener does
	endMCP     context.CancelFunc
}

// New prepares a front of core; Run starts it.
func New(core *inference.Service, o Options) *Front {
	o.Suffix = cmp.Or(o.Suffix, "serve")
	o.MaxBody = cmp.Or(o.MaxBody, 256<<20)
	o.Version = cmp.Or(o.Version, "dev")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	f := &Front{
		o: o, core: core, prefix: "/" + o.Suffix + "/", origins: o.Origins, started: time.Now(), page: openapi.Page(),
		tools: mcp.New(core, mcp.Options{Version: o.Version, MaxBody: maxMessage, Tracer: o.Tracer, Logger: o.Logger}),
	}
	f.mcpContext, f.endMCP = context.WithCancel(context.Background())
	return f
}

// Run serves until ctx ends. It then continues for DrainDelay, stops accepting, and finishes
// running requests. It implements inference.Front.
func (f *Front) Run(ctx context.Context) error {
	broken, breakUp := context.WithCancel(context.WithoutCancel(ctx)) // ends with the first listener that ends
	defer breakUp()
	var listeners sync.WaitGroup
	failed := make(chan error, 2) // one slot per listener, so that neither blocks
	run := func(serve func() error) {
		listeners.Go(func() {
			failed <- serve()
			breakUp()
		})
	}
	listeners.Go(func() { f.tools.Run(f.mcpContext) })
	clients := listener.NewLean(listener.Options{Handler: handler{f}, MaxBody: f.o.MaxBody, MaxConns: f.o.MaxConnections, Logger: f.o.Logger})
	run(func() error { return clients.Serve(f.o.Listener) })
	var admin *http.Server
	if f.o.Admin != nil {
		admin = f.adminServer()
		run(func() error {
			if err := admin.Serve(f.o.Admin); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}

	select {
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), inference.ErrBroken) {
			f.linger(broken, clients)
		}
	case <-broken.Done():
	}
	f.endMCP() // clients that listen would hold the stop up
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.o.StopTimeout)
	defer cancel()
	if err := clients.Shutdown(stopCtx); err != nil {
		f.o.Logger.Warn("requests were cut at stop", "err", err)
	}
	if admin != nil {
		_ = admin.Close() // its requests need not finish
	}
	listeners.Wait()
	close(failed)
	var all error
	for err := range failed {
		all = errors.Join(all, err)
	}
	return all
}

// linger continues to serve for DrainDelay, unless a listener ends. Clients are told to
// close their connections, each after its next answer: requests of a balancer that has
// not yet detected the stop are answered, and none are in transit at the close.
func (f *Front) linger(broken context.Context, clients *listener.Lean) {
	if f.o.DrainDelay <= 0 {
		return
	}
	f.o.Logger.Info("stop delayed for load balancers", "for", f.o.DrainDelay)
	clients.Retire()
	timer := time.NewTimer(f.o.DrainDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-broken.Done():
	}
}

// handler implements listener.Handler for a Front.
type handler struct{ *Front }

// Admit checks a client's request by its head: preflights of browsers, then endpoint
// paths with their key, then probes. An admitted request is for an endpoint
// that can answer.
func (f handler) Admit(h *listener.Head) *listener.Response {
	resp := f.origins.preflight(h)
	if resp == nil {
		resp = f.route(h)
	}
	if resp == nil {
		return nil
	}
	return f.origins.mark(h, resp)
}

// Lend returns memory for a large body of an admitted request.
func (f handler) Lend(h *listener.Head, size int) engine.Loan {
	return f.core.Lend(ticketOf(h), size)
}

// Refused counts an admitted request whose body is refused.
func (f handler) Refused(h *listener.Head, status int) {
	kind := inference.KindBadRequest
	if status >= http.StatusInternalServerError { // a lack of memory for bodies
		kind = inference.KindOverloaded
	}
	f.core.Reject(ticketOf(h), kind)
}

// Refusal implements listener.Refuser.
func (f handler) Refusal(h *listener.Head, status int, text string) *listener.Response {
	switch h.Admitted.(type) {
	case *v1question, *v2question, v2index, *v2change:
		return f.origins.mark(h, v2Error(status, text))
	case *openAIQuestion:
		return f.origins.mark(h, openAIProblem(openaiapi.ProblemOf(status, text)))
	}
	return nil
}

// Answer answers an admitted request.
func (f handler) Answer(ctx context.Context, r *listener.Request) *listener.Response {
	return f.origins.mark(&r.Head, f.ask(ctx, r))
}

func (f *Front) ask(ctx context.Context, r *listener.Request) *listener.Response {
	switch admitted := r.Admitted.(type) {
	case feedback:
		return f.takeFeedback(admitted, r.Body)
	case *v2question:
		return f.answerV2(ctx, r, admitted)
	case *v1question:
		return f.answerV1(ctx, r, admitted)
	case v2index:
		return f.answerIndex(r.Body)
	case *v2change:
		return f.changeModel(ctx, admitted, r.Body)
	case mcpMessage:
		return f.answerMCP(ctx, r)
	case *openAIQuestion:
		return f.answerOpenAI(ctx, r, admitted)
	}
	ticket, _ := r.Admitted.(inference.Ticket)
	within, err := allowance(r.Header(timeoutHeader))
	if err != nil {
		f.core.Reject(ticket, inference.KindBadRequest)
		return detail(http.StatusBadRequest, "Error processing request, "+err.Error())
	}
	span := f.span(r)
	answer, failure := f.core.Ask(ctx, ticket, &inference.Question{
		Request: engine.Request{ID: r.ID, Body: r.Body, ContentType: r.ContentType, Client: r.Client, Loan: r.Loan, Span: span}, Within: within,
	})
	if failure != nil {
		resp := refuse(failure)
		endSpan(span, resp.Status)
		return resp
	}
	resp := &listener.Response{Response: *answer.Response}
	resp.Header = append(slices.Clip(answer.Origin), answer.Header...)
	if resp.Stream != nil {
		streamed := answer // a copy, so that only streamed answers are allocated
		resp.Done = func() {
			streamed.Close()
			endSpan(span, resp.Status)
		}
		return resp
	}
	endSpan(span, resp.Status)
	return resp
}

// span begins the span of a request, nil if requests are not traced. It has copies of the request's texts, because it
// is sent after the listener has reused their memory.
func (f *Front) span(r *listener.Request) *tracing.Span {
	if f.o.Tracer == nil {
		return nil
	}
	span := f.o.Tracer.Start(r.Method+" "+r.Path, tracing.Server, r.Header("traceparent"), strings.Clone(r.Header("tracestate")))
	if span.Sampled() {
		span.Set("http.request.method", strings.Clone(r.Method))
		span.Set("url.path", strings.Clone(r.Path))
		span.Set("clearml.request_id", strings.Clone(r.ID))
		span.Set("http.request.body.size", len(r.Body))
	}
	return span
}

func endSpan(span *tracing.Span, status int) {
	if span == nil {
		return
	}
	span.Set("http.response.status_code", status)
	if status >= http.StatusInternalServerError {
		span.Fail(http.StatusText(status))
	}
	span.End()
}

func refuse(failure *inference.Failure) *listener.Response {
	return &listener.Response{Response: *failure.Response()}
}

func detail(status int, text string) *listener.Response {
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: serving.Detail(text)}}
}

const jsonType = "application/json"
