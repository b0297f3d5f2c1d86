// Package openai is the engine of language models: it sends requests of the OpenAI API to servers that speak it, and
// their answers back as they come. It completes what servers leave out, answers the Responses API by chat completions,
// counts tokens, and runs user code before and after. Servers are given by address, or are children of this process.
package openai

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
)

// Options of an Engine.
type Options struct {
	// Python runs the code of endpoints that have some. Required for these.
	Python *python.Engine
	// Transport is copied for connections to servers. nil: a direct one.
	Transport *http.Transport
	// Env is the environment of this instance: keys are read from it, and children get it.
	Env []string
	// Child starts the servers of the engine vllm.
	Child ChildOptions
	// MaxAnswer bounds an answer that is not a stream. Default 64 MiB.
	MaxAnswer int64
	Logger    *slog.Logger
}

// Engine loads endpoints of servers of the OpenAI API.
type Engine struct {
	o         Options
	transport *http.Transport
	pools     remote.Set
}

const (
	defaultAnswer = 64 << 20
	mostError     = 1 << 20 // of the body of an error
	mostModels    = 1 << 20 // of the list of models
)

// New creates an Engine; Run runs it.
func New(o Options) *Engine {
	o.MaxAnswer, o.Logger = cmp.Or(o.MaxAnswer, defaultAnswer), cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	transport := remote.Transport(nil)
	if o.Transport != nil {
		transport = o.Transport.Clone()
		remote.Adapt(transport)
	}
	return &Engine{o: o, transport: transport}
}

// Run implements engine.Runner: it probes the servers until ctx ends.
func (e *Engine) Run(ctx context.Context, _ engine.Caller) error {
	e.pools.Run(ctx)
	e.transport.CloseIdleConnections()
	return nil
}

// Prepare implements engine.Preparer: it creates the environment of the endpoint's code.
func (e *Engine) Prepare(ctx context.Context, spec engine.Spec) error {
	if spec.CodePath == "" {
		return nil
	}
	return e.o.Python.Prepare(ctx, spec)
}

// Load implements engine.Loader.
func (e *Engine) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	settings, err := serving.OpenAIOf(spec.Endpoint.EngineType, spec.Endpoint.AuxiliaryCfg)
	if err != nil {
		return nil, &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	m := &model{e: e, url: spec.URL, settings: settings, tokens: newTokens()}
	m.quota.set(spec.Limits)
	if settings.KeyEnv != "" {
		if m.key = variable(e.o.Env, settings.KeyEnv); m.key == "" {
			return nil, &engine.LoadError{Text: fmt.Sprintf("the environment variable %s, which has the key for the engine (--aux-config key_env), is not set for this instance", settings.KeyEnv)}
		}
	}
	loaded := engine.Model(m)
	var around *code
	if spec.CodePath != "" {
		if around, err = e.loadCode(ctx, spec, m); err != nil {
			return nil, err
		}
		loaded = around
	}
	if spec.Endpoint.EngineType == serving.EngineVLLM {
		err = m.startChild(ctx, spec, around)
	} else {
		err = m.open(settings.Addresses)
	}
	if err == nil && spec.Endpoint.EngineType == serving.EngineOpenAI {
		m.meet(ctx)
	}
	if err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		return nil, errors.Join(err, loaded.Close(closing))
	}
	return loaded, nil
}

const closeLimit = 10 * time.Second

// variable is the value of a variable in an environment.
func variable(env []string, name string) string {
	for _, pair := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// model is an endpoint whose answers come from servers.
type model struct {
	e        *Engine
	url      serving.EndpointURL
	settings serving.OpenAI
	key      string // for the servers
	pool     *remote.Pool
	flights  []*flights // of each address
	child    *child     // nil: the servers are given by address
	tokens   *tokens
	quota    quota

	found    atomic.Pointer[string] // the only model that the servers have
	answered atomic.Uint64
}

// open opens the pool of the servers.
func (m *model) open(addresses []string) (err error) {
	at := make([]probed, len(addresses))
	for _, address := range addresses {
		m.flights = append(m.flights, &flights{address: address})
	}
	m.pool, err = m.e.pools.Open(string(m.url)+" "+newID(""), func() (remote.Options, error) { // a pool of its own: the key may differ
		return remote.Options{
			Name: "the engine", Addresses: addresses, Logger: m.e.o.Logger,
			Probe: func(ctx context.Context, index int) error {
				err := m.probe(ctx, addresses[index], &at[index])
				m.flights[index].probed(err, time.Now())
				return err
			},
		}, nil
	})
	return err
}

// meet asks the servers once which models they have. They may also come later.
func (m *model) meet(ctx context.Context) {
	if err := m.pool.Check(ctx); err != nil {
		m.e.o.Logger.Warn("engine does not answer yet", "endpoint", m.url, "err", err)
	}
}

// probed is when the last good probe of a server was.
type probed struct{ at atomic.Pointer[time.Time] }

func (p *probed) good() {
	now := time.Now()
	p.at.Store(&now)
}

// politeness is the time between two probes of a server elsewhere, which is told by its certificate.
const politeness = 10 * time.Second

// probe asks a server for its models.
func (m *model) probe(ctx context.Context, address string, last *probed) error {
	if at := last.at.Load(); at != nil && strings.HasPrefix(address, "https://") && time.Since(*at) < politeness {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/"+openaiapi.Models, http.NoBody)
	if err != nil {
		return err
	}
	m.authorize(request)
	response, err := m.e.transport.RoundTrip(request) //nolint:bodyclose // ReadBody closes it
	if err != nil {
		return err
	}
	body, err := remote.ReadBody(response, mostModels)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		if response.StatusCode == http.StatusNotFound { // a server without a list; it answers
			last.good()
			return nil
		}
		return fmt.Errorf("it answered its list of models with status %d: %s", response.StatusCode, refusalOf(response.StatusCode, body).Message)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("its list of models is not JSON: %w", err)
	}
	last.good()
	if len(list.Data) == 1 && list.Data[0].ID != "" {
		m.found.Store(&list.Data[0].ID)
	}
	return nil
}

func (m *model) authorize(request *http.Request) {
	if m.key != "" {
		request.Header.Set("Authorization", "Bearer "+m.key)
	}
}

// name is the model's name at the servers.
func (m *model) name() string {
	if m.settings.Model != "" {
		return m.settings.Model
	}
	if found := m.found.Load(); found != nil {
		return *found
	}
	return string(m.url)
}

// Speaks implements engine.Speaker.
func (m *model) Speaks() bool { return true }

// signature tells of requests what all servers have in common.
var signature = engine.Signature{ //nolint:gochecknoglobals // a constant
	Source:     engine.SourceNone,
	BodySchema: json.RawMessage(`{"type":"object","properties":{"messages":{"type":"array","items":{"type":"object"}}}}`),
	Example:    json.RawMessage(`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":50}`), ExampleOf: engine.ExampleMade,
}

// Signature implements engine.Signed.
func (m *model) Signature() engine.Signature { return signature }

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if req.Tensors != nil {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s' takes requests of the OpenAI API, no tensors", m.url)}
	}
	contentType := req.ContentType
	if contentType == "" {
		contentType = jsonType
	}
	q, problem := prepare(req.Route, contentType, req.Body, m.name(), &m.settings)
	if problem != nil {
		return refused(problem), nil
	}
	return m.ask(ctx, req, q)
}

const jsonType = "application/json"

// refused is the answer to a request that is not sent to a server.
func refused(p *openaiapi.Problem) *engine.Response {
	return &engine.Response{Status: p.Status, ContentType: jsonType, Body: p.Body(), Unread: true}
}

// ask has a question answered.
func (m *model) ask(ctx context.Context, req *engine.Request, q *question) (*engine.Response, error) {
	if wait := m.quota.exceeded(time.Now()); wait > 0 {
		resp := refused(&openaiapi.Problem{Status: http.StatusTooManyRequests, Type: "tokens", Code: "rate_limit_exceeded", Message: fmt.Sprintf("The tokens of endpoint '%s' are used up: %s", m.url, m.quota.text())})
		resp.Unread = false
		resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: strconv.Itoa(max(1, int(wait.Round(time.Second)/time.Second)))})
		return resp, nil
	}
	// The answer may be read after Infer has returned: then the end of ctx says nothing.
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	begun := time.Now()
	resp, streams, err := m.send(life, cancel, req, q, begun)
	ended := !stop()
	if req.Span != nil {
		req.Span.Later().Between("engine", begun, time.Now())
	}
	if err != nil || !streams {
		cancel(nil)
	}
	if err == nil && streams && ended { // the end of ctx has ended the stream too
		_ = resp.Stream.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, m.failure(ctx, err)
	}
	m.answered.Add(1)
	return resp, nil
}

// send sends a question to a server. streams: the answer is read from it later, within life.
func (m *model) send(life context.Context, cancel context.CancelCauseFunc, req *engine.Request, q *question, begun time.Time) (resp *engine.Response, streams bool, err error) {
	trace := ""
	if req.Span != nil {
		trace = req.Span.Later().Traceparent()
	}
	response, err := m.post(life, cancel, q, req.ID, trace) //nolint:bodyclose // it is closed by its stream or by ReadBody
	if err != nil {
		return nil, false, err
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // "" is none of these
	switch {
	case response.StatusCode >= http.StatusBadRequest:
		return m.refusal(response)
	case kind == "text/event-stream":
		s := newStream(m, q, response.Body, cancel, begun)
		return &engine.Response{Status: response.StatusCode, ContentType: response.Header.Get("Content-Type"), Stream: s}, true, nil
	case kind != jsonType && kind != "":
		s := &plainStream{body: response.Body, cancel: cancel, stall: m.settings.Stall}
		return &engine.Response{Status: response.StatusCode, ContentType: response.Header.Get("Content-Type"), Stream: s}, true, nil
	}
	body, err := remote.ReadBody(response, m.e.o.MaxAnswer)
	if err != nil {
		return nil, false, err
	}
	if q.forced != nil {
		body = m.withCall(life, cancel, q, req.ID, body)
	}
	body, err = m.whole(q, body)
	if err != nil {
		return nil, false, err
	}
	return &engine.Response{Status: response.StatusCode, ContentType: jsonType, Body: body}, false, nil
}

// post sends a question to the server with the least to do.
func (m *model) post(life context.Context, cancel context.CancelCauseFunc, q *question, id, trace string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(life, http.MethodPost, "/"+q.route, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", q.contentType)
	request.Header.Set("User-Agent", "clearml-serving")
	if id != "" {
		request.Header.Set("X-Request-Id", id)
	}
	if trace != "" {
		request.Header.Set("Traceparent", trace)
	}
	// Servers close kept connections without notice. This has the transport send the request once more if that happens
	// before the first byte of an answer; an empty list is not sent.
	request.Header["X-Idempotency-Key"] = []string{}
	m.authorize(request)
	return m.pool.Send(&holder{m, life, cancel}, request)
}

// withCall is an answer that has to call a function. If it does not, the call is asked for in another way; the answer
// stays if that fails too.
func (m *model) withCall(life context.Context, cancel context.CancelCauseFunc, q *question, id string, body []byte) []byte {
	o, err := openaiapi.ParseObject(body)
	if err != nil || hasCalls(&o) {
		return body
	}
	form, ok := formOfCall(q.forced)
	if !ok {
		return body
	}
	response, err := m.post(life, cancel, &question{route: q.route, contentType: jsonType, body: form.Append(nil)}, id, "") //nolint:bodyclose // ReadBody closes it
	if err != nil {
		return body
	}
	second, err := remote.ReadBody(response, m.e.o.MaxAnswer)
	if err != nil || response.StatusCode != http.StatusOK {
		return body
	}
	called, err := callOf(second)
	if err != nil {
		return body
	}
	if u, ok := usageOf(&o); ok { // the first answer has been generated too
		m.count(u)
	}
	return called
}

// whole is a whole answer in the form that the client has asked for.
func (m *model) whole(q *question, body []byte) ([]byte, error) {
	o, err := openaiapi.ParseObject(body)
	if err != nil && listed(q.route) && json.Valid(body) {
		return body, nil
	}
	if err != nil {
		return nil, remote.Broken(fmt.Errorf("the engine's answer is no JSON object: %w", err))
	}
	if u, ok := usageOf(&o); ok {
		m.count(u)
	}
	if q.responses == nil {
		return repaired(q.route, m.name(), body), nil
	}
	if err := q.responses.answered(body); err != nil {
		return nil, remote.Broken(err)
	}
	return q.responses.object("", nil), nil
}

// listed reports whether servers may answer a route with something other than an object: those beside the API, as SGLang
// does for rerank and classify.
func listed(route string) bool {
	return route != openaiapi.Chat && route != openaiapi.Completions && route != openaiapi.Embeddings && route != openaiapi.Responses
}

// count counts the tokens of an answer.
func (m *model) count(u openaiapi.Usage) {
	m.tokens.count(u)
	m.quota.spend(time.Now(), u.Prompt+u.Completion)
}

// refusal is the answer of a server with an error. One that cannot work is as good as none.
func (m *model) refusal(response *http.Response) (*engine.Response, bool, error) {
	body, err := remote.ReadBody(response, mostError)
	if err != nil {
		return nil, false, err
	}
	p := refusalOf(response.StatusCode, body)
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden: // the client's own key is good
		return nil, false, &engine.Error{Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': the engine refuses the key of this instance (--aux-config key_env)", m.url), Err: errors.New(p.Message)}
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return nil, false, &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.url, Text: "the engine cannot answer", RetryAfter: remote.RetryIn, Err: errors.New(p.Message)}
	}
	resp := &engine.Response{Status: p.Status, ContentType: jsonType, Body: p.Body()}
	if after := response.Header.Get("Retry-After"); after != "" {
		resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: after})
	}
	return resp, false, nil
}

// errStalled ends an answer that pauses for too long.
var errStalled = errors.New("the engine sends nothing")

// failure is an error as the data plane knows it.
func (m *model) failure(ctx context.Context, err error) error {
	at := func(kind engine.Kind, text string, err error) *engine.Error {
		return &engine.Error{Kind: kind, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %s", m.url, text), Err: err}
	}
	failed, ok := errors.AsType[*engine.Error](err)
	if errors.Is(err, errGone) {
		err = remote.Broken(err)
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return at(engine.KindDeadline, "the deadline has passed before the engine has answered", nil)
	case ctx.Err() != nil:
		return at(engine.KindInternal, "the request was cancelled", err)
	case ok && failed.Kind == engine.KindUnavailable:
		unavailable := at(engine.KindUnavailable, failed.Text, failed.Err)
		unavailable.RetryAfter, unavailable.Fallback = failed.RetryAfter, m.settings.Fallback
		return unavailable
	case ok:
		return err
	case remote.Begun(err):
		died := at(engine.KindDied, "the engine failed while it answered"+m.cause(), err)
		died.Fallback = m.settings.Fallback // the client has got nothing yet
		return died
	}
	unavailable := at(engine.KindUnavailable, "the engine cannot be reached"+m.cause(), err)
	unavailable.RetryAfter, unavailable.Fallback = remote.RetryIn, m.settings.Fallback
	return unavailable
}

// cause is what is known of the end of a child, "" for nothing.
func (m *model) cause() string {
	if m.child == nil {
		return ""
	}
	return m.child.cause()
}

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	r := serving.ModelReport{State: serving.StateReady}
	m.report(&r)
	return r
}

// report completes the report of the endpoint.
func (m *model) report(r *serving.ModelReport) {
	r.Answered = m.answered.Load()
	r.Tokens = m.tokens.report()
	if m.pool != nil {
		r.Addresses = m.pool.Report()
		if why := m.pool.Unavailable(); why != "" {
			r.State, r.Reason = serving.StateDegraded, why
		}
	}
	if m.child != nil {
		m.child.report(r)
	}
}

// Close implements engine.Model.
func (m *model) Close(context.Context) error {
	if m.pool != nil {
		m.pool.Close()
	}
	if m.child != nil {
		m.child.close()
	}
	return nil
}

// plainStream is an answer that is no JSON, such as audio.
type plainStream struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	stall  time.Duration
	buffer []byte
}

// Next implements engine.Stream.
func (s *plainStream) Next(ctx context.Context) ([]byte, error) {
	if s.buffer == nil {
		s.buffer = make([]byte, pieceSize)
	}
	defer context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })()
	timer := time.AfterFunc(s.stall, func() { s.cancel(errStalled) })
	defer timer.Stop()
	n, err := s.body.Read(s.buffer)
	if n > 0 {
		return s.buffer[:n], nil
	}
	return nil, err
}

// Close implements engine.Stream.
func (s *plainStream) Close() error {
	s.cancel(nil)
	return s.body.Close()
}
