package torchserve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// model is one endpoint's model in one or more servers.
type model struct {
	e             *Engine
	url           serving.EndpointURL
	settings      serving.TorchServe
	name, version string
	archive       *archive // nil: somebody else has registered the model
	servers       []*server
	conns         []*grpc.ClientConn
	pool          *remote.Pool
	maxQueue      int64

	outstanding, answered atomic.Int64
	described             []atomic.Pointer[described]
	registering           []atomic.Bool
	life                  context.Context //nolint:containedctx // of the goroutines that register again
	stop                  context.CancelFunc
	again                 sync.WaitGroup
}

// open registers the model, and returns when a server answers requests for it.
func (m *model) open(ctx context.Context) error {
	m.described, m.registering = make([]atomic.Pointer[described], len(m.servers)), make([]atomic.Bool, len(m.servers))
	m.life, m.stop = context.WithCancel(context.Background())
	var addresses []string
	for _, s := range m.servers {
		if m.settings.Protocol == serving.ProtocolGRPC {
			conn, err := dial(s.GRPC, m.e.o.MaxAnswer)
			if err != nil {
				return &engine.LoadError{Text: err.Error(), Final: true, Err: err}
			}
			m.conns, addresses = append(m.conns, conn), append(addresses, s.GRPC)
		} else {
			addresses = append(addresses, s.REST)
		}
	}
	if m.archive != nil {
		if err := m.register(ctx); err != nil {
			return err
		}
	}
	var err error
	m.pool, err = m.e.set.Open(fmt.Sprintf("%p", m), func() (remote.Options, error) {
		return remote.Options{Name: "TorchServe", Addresses: addresses, Probe: m.probe, Logger: m.e.o.Logger}, nil
	})
	if err != nil {
		return &engine.LoadError{Text: err.Error(), Err: err}
	}
	if err := m.settle(ctx); err != nil {
		return &engine.LoadError{Text: err.Error(), Within: remote.RetryIn, Err: err}
	}
	return nil
}

// settling bounds the time between the answer to a registration and the first worker that is ready: the server
// answers a moment before.
const settling = 10 * time.Second

// settle waits until a server answers requests.
func (m *model) settle(ctx context.Context) error {
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for begun := time.Now(); ; {
		err := m.pool.Check(ctx)
		if err == nil || m.archive == nil || time.Since(begun) > settling {
			return err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return err
		}
	}
}

// register registers the model with all servers. One is enough: the probes of the others do it later.
func (m *model) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.e.o.RegisterTimeout)
	defer cancel()
	failed := make([]error, len(m.servers))
	var all sync.WaitGroup
	for i, s := range m.servers {
		all.Go(func() {
			m.e.sweep(ctx, s)
			failed[i] = s.register(ctx, m.archive.file, m)
		})
	}
	all.Wait()
	for _, err := range failed {
		if err == nil {
			return nil
		}
	}
	return m.loadError(m.servers[0], failed[0])
}

// loadError says why a model could not be registered.
func (m *model) loadError(s *server, err error) error {
	r, ok := errors.AsType[*refusal](err)
	if !ok {
		return &engine.LoadError{Text: err.Error(), Within: remote.RetryIn, Err: err}
	}
	failed := &engine.LoadError{Text: fmt.Sprintf("TorchServe refuses the model: %s", r.Message), Err: err}
	switch {
	case r.refusedKey():
		failed.Text = "TorchServe refuses the key for management: " + r.Message
	case r.Status == http.StatusMethodNotAllowed:
		failed.Text = "TorchServe does not register models: start it with enable_model_api=true, or have it load the model and give its name: --aux-config model"
	case r.Status == http.StatusInternalServerError:
		failed.Traceback = s.said(m.name)
		failed.UserCode = failed.Traceback != ""
		failed.Final = failed.UserCode && !strings.Contains(failed.Traceback, "MemoryError") && !strings.Contains(failed.Traceback, "out of memory")
		if lines := strings.Split(strings.TrimSpace(failed.Traceback), "\n"); failed.UserCode {
			failed.Text += ": " + lines[len(lines)-1]
		}
	case r.Status >= 400 && r.Status < 500 && r.Status != http.StatusRequestTimeout:
		failed.Final = true
	}
	return failed
}

// probe asks a server for the state of the model. A server that has forgotten it, because it was started again, gets it
// again.
func (m *model) probe(ctx context.Context, index int) error {
	s := m.servers[index]
	if s.Management == "" {
		return m.ping(ctx, s, index)
	}
	d, err := s.describe(ctx, m.name, m.version)
	if err != nil {
		m.described[index].Store(nil)
		if r, ok := errors.AsType[*refusal](err); ok && r.unknownModel() && m.archive != nil {
			m.registerAgain(index)
			return errors.New("it does not have the model, which is being registered again")
		}
		return err
	}
	m.described[index].Store(d)
	if d.ready() == 0 && d.MinWorkers > 0 {
		return fmt.Errorf("no worker of the model is ready (%s)", statesOf(d))
	}
	return nil
}

func statesOf(d *described) string {
	if len(d.Workers) == 0 {
		return "there is none"
	}
	var states []string
	for _, w := range d.Workers {
		states = append(states, w.Status)
	}
	return strings.Join(states, ", ")
}

// ping asks a server whose management API is not known.
func (m *model) ping(ctx context.Context, s *server, index int) error {
	key, err := s.keys.get(ctx, forInference, "")
	if err != nil {
		return err
	}
	var text []byte
	if m.settings.Protocol == serving.ProtocolGRPC {
		var reply []byte
		if err := m.conns[index].Invoke(withKey(ctx, key), pingMethod, []byte{}, &reply); err != nil {
			return err
		}
		if text, err = prediction(reply); err != nil {
			return err
		}
	} else {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.REST+"/ping", nil)
		if err != nil {
			return err
		}
		if key != "" {
			request.Header.Set("Authorization", "Bearer "+key)
		}
		response, err := s.client.Do(request) //nolint:bodyclose // by ReadBody
		if err != nil {
			return err
		}
		if text, err = remote.ReadBody(response, mostAPI); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return errors.New(wordsOf(response.StatusCode, text))
		}
	}
	var health struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(text, &health); err != nil || health.Status == "" {
		return fmt.Errorf("its answer to a ping is not usable: %s", serving.Shorten(string(bytes.TrimSpace(text)), 100))
	}
	return nil
}

// registerAgain registers the model with one server, in the background.
func (m *model) registerAgain(index int) {
	if m.life.Err() != nil || !m.registering[index].CompareAndSwap(false, true) {
		return
	}
	m.again.Go(func() {
		defer m.registering[index].Store(false)
		ctx, cancel := context.WithTimeout(m.life, m.e.o.RegisterTimeout)
		defer cancel()
		if err := m.servers[index].register(ctx, m.archive.file, m); err != nil && m.life.Err() == nil {
			m.e.o.Logger.Warn("model not registered again", "endpoint", m.url, "err", m.loadError(m.servers[index], err))
			wait := time.NewTimer(time.Second)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-m.life.Done():
			}
		}
	})
}

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if req.Tensors != nil {
		return nil, m.at(engine.KindBadRequest, nil, "a model of TorchServe takes bodies, and no tensors; code with a class Preprocess can make bodies of tensors")
	}
	q := question{body: req.Body, contentType: req.ContentType, id: req.ID}
	if req.Client != nil {
		q.client = req.Client()
	}
	begun := time.Now()
	answer, err := m.ask(ctx, q)
	if req.Span != nil {
		req.Span.Later().Between("torchserve", begun, time.Now())
	}
	return answer, err
}

// between answers what preprocess returned, as a whole.
func (m *model) between(ctx context.Context, body []byte, contentType string) (*engine.Response, error) {
	answer, err := m.ask(ctx, question{body: body, contentType: contentType})
	if err != nil || answer.Stream == nil {
		return answer, err
	}
	answer.Body, err = engine.ReadAll(ctx, answer.Stream, m.e.o.MaxAnswer)
	answer.Stream = nil
	return answer, err
}

// question is one request to the server.
type question struct {
	body        []byte
	contentType string
	id          string
	client      engine.Client
}

func (m *model) ask(ctx context.Context, q question) (answer *engine.Response, err error) {
	if m.outstanding.Add(1) > m.maxQueue {
		m.outstanding.Add(-1)
		return nil, m.at(engine.KindOverloaded, nil, "%d requests wait for TorchServe already", m.maxQueue)
	}
	defer m.outstanding.Add(-1)
	// The context of the call ends with it, that of a streamed answer with the stream.
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	if m.settings.Protocol == serving.ProtocolGRPC {
		answer, err = m.askGRPC(life, q.body)
	} else {
		answer, err = m.askREST(life, q)
	}
	unhook()
	if err == nil {
		m.answered.Add(1)
		if answer.Stream != nil {
			answer.Stream = &stream{Stream: answer.Stream, cancel: cancel}
			return answer, nil
		}
		cancel(nil)
		return answer, nil
	}
	cancel(nil)
	if missing, ok := errors.AsType[*keyError](err); ok {
		return nil, m.keyless(ctx, missing.err)
	}
	if answered, ok := errors.AsType[*handlerError](err); ok {
		m.answered.Add(1)
		return answered.answer(), nil
	}
	if failed, ok := errors.AsType[*engine.Error](err); ok {
		if failed.Endpoint == "" { // of the pool, for this request alone
			failed.Endpoint, failed.Text = m.url, fmt.Sprintf("endpoint '%s': %s", m.url, failed.Text)
		}
		return nil, failed
	}
	return nil, m.cut(ctx, err)
}

// keyless is the error of a request for which there is no key.
func (m *model) keyless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return m.cut(ctx, err)
	}
	return m.at(engine.KindUnavailable, err, "TorchServe's key")
}

// cut is the error of a request without an answer.
func (m *model) cut(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return m.at(engine.KindDeadline, nil, "TorchServe has not answered in time")
	case ctx.Err() != nil:
		return m.at(engine.KindInternal, ctx.Err(), "the request was cancelled")
	case remote.Begun(err):
		return m.at(engine.KindDied, err, "TorchServe ended before its answer")
	}
	return m.at(engine.KindUnavailable, err, "TorchServe cannot be reached")
}

// askREST asks over REST.
func (m *model) askREST(ctx context.Context, q question) (answer *engine.Response, err error) {
	path := "/predictions/" + url.PathEscape(m.name)
	if m.version != "" {
		path += "/" + url.PathEscape(m.version)
	}
	if q.client.Query != "" {
		path += "?" + q.client.Query
	}
	err = m.pool.Do(ctx, func(ctx context.Context, use *remote.Use) error {
		s := m.servers[use.Index()]
		var r *refusal
		err := s.keys.with(ctx, forInference, func(key string) (refusedKey bool, err error) {
			answer, r, err = m.sendREST(ctx, use, path, key, q)
			return r != nil && r.refusedKey(), err
		})
		if err != nil || r == nil {
			return err
		}
		return m.refused(s, r)
	})
	return answer, err
}

// hopByHop are header fields of one connection, and those that this process sets.
var hopByHop = map[string]bool{ //nolint:gochecknoglobals // a constant table
	"connection": true, "keep-alive": true, "proxy-connection": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"host": true, "content-length": true, "content-type": true, "content-encoding": true, "accept-encoding": true, "expect": true, "authorization": true, "cookie": true,
}

func (m *model) sendREST(ctx context.Context, use *remote.Use, path, key string, q question) (*engine.Response, *refusal, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(q.body))
	if err != nil {
		return nil, nil, m.at(engine.KindBadRequest, err, "the request's query")
	}
	for _, h := range q.client.Header {
		if name := strings.ToLower(h.Name); !hopByHop[name] {
			request.Header.Add(h.Name, h.Value)
		}
	}
	if q.contentType != "" {
		request.Header.Set("Content-Type", q.contentType)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := use.RoundTrip(ctx, m.e.client.Transport, request) //nolint:bodyclose // by ReadBody, or by the stream
	if err != nil {
		return nil, nil, err
	}
	if response.ContentLength < 0 && response.StatusCode < http.StatusBadRequest {
		use.Hold()
		held := *use
		return &engine.Response{
			Status: response.StatusCode, ContentType: response.Header.Get("Content-Type"), Header: headerOf(response), Stream: &chunks{m: m, ctx: ctx, body: response.Body, use: &held},
		}, nil, nil
	}
	body, err := remote.ReadBody(response, m.e.o.MaxAnswer)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode >= http.StatusBadRequest {
		if r, own := refusalOf(response.StatusCode, body); own {
			return nil, r, nil
		}
	}
	kind := response.Header.Get("Content-Type")
	if kind == "" {
		kind = typeOf(body)
	}
	return &engine.Response{Status: response.StatusCode, ContentType: kind, Header: headerOf(response), Body: body}, nil, nil
}

// theirs are header fields that TorchServe sets in each answer.
var theirs = map[string]bool{"X-Request-Id": true, "Pragma": true, "Cache-Control": true, "Expires": true, "Date": true, "Ts_stream_next": true} //nolint:gochecknoglobals // a constant table

func headerOf(response *http.Response) (list []engine.Header) {
	for name, values := range response.Header {
		if theirs[name] || hopByHop[strings.ToLower(name)] {
			continue
		}
		for _, value := range values {
			list = append(list, engine.Header{Name: name, Value: value})
		}
	}
	return list
}

// typeOf is the content type of an answer without one: handlers return JSON, text or bytes.
func typeOf(body []byte) string {
	if json.Valid(body) {
		return "application/json"
	}
	return "application/octet-stream"
}

// handlerError is an error of the model's handler, which is an answer.
type handlerError struct{ r *refusal }

func (h *handlerError) Error() string { return h.r.Error() }

func (h *handlerError) answer() *engine.Response {
	return &engine.Response{Status: http.StatusInternalServerError, ContentType: "application/json", Body: serving.Detail("TorchServe: " + h.r.Message)}
}

// refused says what an error that the server has answered means.
func (m *model) refused(s *server, r *refusal) error {
	switch {
	case r.refusedKey():
		return m.at(engine.KindUnavailable, nil, "TorchServe refuses the key for inference: %s", r.Message)
	case r.unknownModel():
		if m.archive != nil {
			for i, other := range m.servers {
				if other == s {
					m.registerAgain(i)
				}
			}
		}
		return &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %s", m.url, r), RetryAfter: remote.RetryIn}
	case strings.HasPrefix(r.Message, "Worker died"):
		return m.at(engine.KindDied, nil, "%s", r)
	case r.Status == http.StatusInsufficientStorage:
		return m.at(engine.KindUnavailable, nil, "%s", r)
	case r.Status == http.StatusRequestEntityTooLarge:
		return m.at(engine.KindTooLarge, nil, "%s", r)
	case r.Status == http.StatusRequestTimeout:
		return m.at(engine.KindDeadline, nil, "%s", r)
	case r.Status == http.StatusBadRequest:
		return m.at(engine.KindBadRequest, nil, "%s", r)
	case r.Type == "InternalServerException" || strings.HasPrefix(r.Message, "Prediction failed"):
		return &handlerError{r}
	case r.Status == http.StatusServiceUnavailable: // no worker, or a full queue
		return &engine.Error{Kind: engine.KindUnavailable, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %s", m.url, r), RetryAfter: remote.RetryIn}
	}
	return m.at(engine.KindInternal, nil, "%s", r)
}

// stream is an answer in pieces, whose context is the one that its pieces are asked with.
type stream struct {
	engine.Stream

	cancel context.CancelCauseFunc
}

// Next implements engine.Stream.
func (s *stream) Next(ctx context.Context) ([]byte, error) {
	defer context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })()
	return s.Stream.Next(ctx)
}

// Close implements engine.Stream.
func (s *stream) Close() error {
	err := s.Stream.Close()
	s.cancel(nil)
	return err
}

// chunks are an answer in pieces over REST.
type chunks struct {
	m      *model
	ctx    context.Context //nolint:containedctx // that of the request
	body   io.ReadCloser
	use    *remote.Use
	buffer []byte
	closed bool
}

const chunkSize = 32 << 10

// Next implements engine.Stream.
func (c *chunks) Next(context.Context) ([]byte, error) {
	if c.closed {
		return nil, io.EOF
	}
	if c.buffer == nil {
		c.buffer = make([]byte, chunkSize)
	}
	for {
		n, err := c.body.Read(c.buffer)
		if n > 0 {
			c.use.Progress()
			return c.buffer[:n], nil // an error comes again
		}
		switch {
		case errors.Is(err, io.EOF):
			c.finish(nil)
			return nil, io.EOF
		case err != nil:
			err = remote.Broken(err)
			c.finish(err)
			return nil, c.m.cut(c.ctx, err)
		}
	}
}

func (c *chunks) finish(err error) {
	if !c.closed {
		c.closed = true
		_ = c.body.Close() // it is read, or not wanted
		c.use.End(err)
	}
}

// Close implements engine.Stream.
func (c *chunks) Close() error {
	c.finish(nil)
	return nil
}

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	r := serving.ModelReport{State: serving.StateReady}
	m.report(&r)
	r.Answered = uint64(max(m.answered.Load(), 0))
	return r
}

// report adds the servers to a report.
func (m *model) report(r *serving.ModelReport) {
	r.Queued += int(max(m.outstanding.Load(), 0))
	r.MaxQueue = int(m.maxQueue)
	r.Addresses = m.pool.Report()
	if why := m.pool.Unavailable(); why != "" && (r.State == serving.StateReady || r.Reason == "") {
		r.State, r.Reason = serving.StateDegraded, why
	}
	for i := range m.described {
		d := m.described[i].Load()
		if d == nil {
			continue
		}
		if ready := d.ready(); ready < d.MinWorkers {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %d of %d workers of the model are ready (%s)", r.Addresses[i].Address, ready, d.MinWorkers, statesOf(d)))
		}
	}
}

// Close implements engine.Model.
func (m *model) Close(ctx context.Context) error {
	m.release(ctx)
	return nil
}

// release ends the use of the servers. The last user of the model has them end it.
func (m *model) release(ctx context.Context) {
	if m.stop != nil {
		m.stop()
	}
	if m.pool != nil {
		m.pool.Close()
	}
	m.again.Wait()
	for _, conn := range m.conns {
		_ = conn.Close() // nothing is sent any more
	}
	m.conns = nil
	if m.archive != nil {
		m.archive.end(func() { m.unregister(ctx) })
	}
}

func (m *model) unregister(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range m.servers {
		all.Go(func() {
			if err := s.unregister(ctx, m.name); err != nil {
				m.e.o.Logger.Warn("model stays in torchserve", "endpoint", m.url, "model", m.name, "err", err)
			}
		})
	}
	all.Wait()
}
