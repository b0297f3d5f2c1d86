package v2server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/serving"
)

// model is an endpoint whose model is on other servers.
type model struct {
	jsontensor.Logged

	e               *Engine
	url             serving.EndpointURL
	name            string // of the servers, for texts
	pool            *remote.Pool
	client          client
	remote, version string // the model on the servers
	signature       engine.Signature
	json            []engine.TensorSpec // the inputs for JSON bodies: all have a datatype
	outputs         []string            // that are asked for, nil: all
	streams         bool                // the model is decoupled: a request has any number of answers
	asText          map[string]bool     // whether postprocess gets an output as text
	nanAsNull       bool
	maxQueue        int64

	outstanding, answered atomic.Int64
	failures              atomic.Int32 // of the model in a row, in the server's words
	lastFailure           atomic.Pointer[string]
}

// failing is the number of failures in a row from which an endpoint counts as degraded.
const failing = 3

// Signature implements engine.Signed.
func (m *model) Signature() engine.Signature { return m.signature }

// Status implements engine.Model.
func (m *model) Status() serving.ModelReport {
	r := serving.ModelReport{State: serving.StateReady, Answered: uint64(m.answered.Load()), MaxQueue: int(m.maxQueue)} //nolint:gosec // positive
	m.report(&r)
	return r
}

// report completes the report of the endpoint.
func (m *model) report(r *serving.ModelReport) {
	r.Queued += int(max(m.outstanding.Load(), 0))
	r.Addresses = m.pool.Report()
	if r.State != serving.StateReady {
		return
	}
	if why := m.pool.Unavailable(); why != "" {
		r.State, r.Reason = serving.StateFailed, why
		return
	}
	for _, a := range r.Addresses {
		if a.State == serving.AddressEjected {
			r.State, r.Reason = serving.StateDegraded, fmt.Sprintf("%s at %s: %s", m.name, a.Address, a.Reason)
		}
	}
	if last := m.lastFailure.Load(); last != nil && m.failures.Load() >= failing {
		r.State, r.Reason = serving.StateDegraded, fmt.Sprintf("the model fails: %s", *last)
	}
}

// Close implements engine.Model.
func (m *model) Close(context.Context) error {
	m.pool.Close()
	return nil
}

// count keeps how the model does.
func (m *model) count(err error) {
	if err == nil {
		m.answered.Add(1)
		if m.failures.Load() != 0 {
			m.failures.Store(0)
		}
		return
	}
	if refused, ok := errors.AsType[*Refusal](err); ok {
		switch refused.Code { //nolint:exhaustive // others are the client's fault, or the load's
		case codes.Internal, codes.Unknown, codes.NotFound, codes.Unavailable, codes.DataLoss, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
			text := serving.Shorten(refused.Error(), 500)
			m.lastFailure.Store(&text)
			m.failures.Add(1)
		}
	}
}

// enter bounds the requests at the servers. leave is called at the end of the request.
func (m *model) enter() error {
	if m.outstanding.Add(1) > m.maxQueue {
		m.leave()
		return &engine.Error{Kind: engine.KindOverloaded, Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': %d requests wait already", m.url, m.maxQueue)}
	}
	return nil
}

func (m *model) leave() { m.outstanding.Add(-1) }

// question is the request to a server.
func (m *model) question(req *engine.Request, in []engine.Tensor) (*question, error) {
	q := &question{model: m.remote, version: m.version, id: strings.ToValidUTF8(req.ID, ""), contentType: req.TensorsAs, parameters: req.Parameters, inputs: in, outputs: m.outputs}
	if req.Outputs != nil {
		q.outputs = req.Outputs
	}
	for i := range in {
		t := &in[i]
		if err := t.Check(); err != nil {
			return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: fmt.Sprintf("tensor %.40q: %s", t.Name, err)}
		}
		if !utf8.ValidString(t.Name) {
			return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: fmt.Sprintf("the name %.40q of a tensor is not valid UTF-8", t.Name)}
		}
	}
	if err := q.prepare(); err != nil {
		return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: err.Error()}
	}
	return q, nil
}

// ask gets the one answer of a server.
func (m *model) ask(ctx context.Context, req *engine.Request, q *question) (a *answer, err error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	trace := ""
	if req.Span != nil {
		at, begun := req.Span.Later(), time.Now()
		trace = at.Traceparent()
		defer func() { at.Between(m.name, begun, time.Now()) }()
	}
	err = m.pool.Do(ctx, func(ctx context.Context, use *remote.Use) (err error) {
		a, err = m.client.infer(ctx, use, q, trace)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.arrange(a, q.outputs)
	return a, nil
}

// arrange puts the outputs into the order in which they were asked for.
func (m *model) arrange(a *answer, names []string) {
	for i, name := range names {
		at := slices.IndexFunc(a.outputs, func(t engine.Tensor) bool { return t.Name == name })
		if at >= 0 && i < len(a.outputs) {
			a.outputs[i], a.outputs[at] = a.outputs[at], a.outputs[i]
		}
	}
}

// Infer implements engine.Model.
func (m *model) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	in := req.Tensors
	if in == nil {
		var err error
		if in, err = jsontensor.Tensors(req.Body, m.json); err != nil {
			m.answered.Add(1)
			return jsontensor.Refused(err), nil
		}
	}
	q, err := m.question(req, in)
	if err != nil {
		return nil, err
	}
	if m.streams {
		return m.stream(ctx, req, q)
	}
	a, err := m.ask(ctx, req, q)
	m.count(err)
	if err != nil {
		return m.answerOf(req, m.failure(err))
	}
	resp := m.respond(req, a)
	resp.Stats = m.Stats(req, in, a.outputs)
	return resp, nil
}

// answerOf is the answer to a request that the server refuses, for a client that has sent a body.
func (m *model) answerOf(req *engine.Request, err error) (*engine.Response, error) {
	if failed, ok := errors.AsType[*engine.Error](err); ok && failed.Kind == engine.KindBadRequest && req.Tensors == nil {
		return jsontensor.Refused(err), nil
	}
	return nil, err
}

// respond is the answer in the form of the request.
func (m *model) respond(req *engine.Request, a *answer) *engine.Response {
	if req.Tensors != nil {
		if a.outputs == nil {
			a.outputs = []engine.Tensor{}
		}
		return &engine.Response{Status: http.StatusOK, Tensors: a.outputs, TensorsAs: a.contentType}
	}
	body, err := m.body(nil, a.outputs)
	if err != nil {
		return jsontensor.Unprintable(err)
	}
	return &engine.Response{Status: http.StatusOK, ContentType: jsontensor.ContentType, Body: body}
}

// body appends the JSON of outputs: that of a single one, or an object by their names.
func (m *model) body(b []byte, outputs []engine.Tensor) ([]byte, error) {
	if len(outputs) == 1 {
		return jsontensor.AppendTensor(b, &outputs[0], m.nanAsNull)
	}
	return jsontensor.AppendObject(b, outputs, m.nanAsNull)
}

// compute computes what preprocess has returned.
func (m *model) compute(ctx context.Context, in []engine.Tensor) ([]engine.Tensor, error) {
	req := &engine.Request{Tensors: in}
	q, err := m.question(req, in)
	if err != nil {
		return nil, err
	}
	var a *answer
	if m.streams {
		a, err = m.collect(ctx, req, q)
	} else {
		a, err = m.ask(ctx, req, q)
	}
	m.count(err)
	if err != nil {
		return nil, m.failure(err)
	}
	for i := range a.outputs {
		t := &a.outputs[i]
		if text, configured := m.asText[t.Name]; t.Datatype == engine.Bytes && (!configured || text) && isText(t) {
			t.ContentType = "str"
		}
	}
	return a.outputs, nil
}

// isText reports whether all elements of a checked tensor of BYTES are text.
func isText(t *engine.Tensor) bool {
	for rest := t.Data; len(rest) >= 4; {
		n := 4 + int(binary.LittleEndian.Uint32(rest))
		if !utf8.Valid(rest[4:n]) {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// stream answers a request to a decoupled model. The first piece is waited for, so that a failure has a status.
func (m *model) stream(ctx context.Context, req *engine.Request, q *question) (*engine.Response, error) {
	if req.Tensors != nil && !req.Streams {
		a, err := m.only(ctx, req, q)
		m.count(err)
		if err != nil {
			return nil, m.failure(err)
		}
		return m.respond(req, a), nil
	}
	s, err := m.open(ctx, req, q)
	if err == nil {
		if s.first, err = s.piece(ctx); errors.Is(err, io.EOF) {
			err, s.done = nil, true
		} else if err == nil {
			if err = s.first.refusal(); err != nil {
				s.end(err)
			}
		}
	}
	m.count(err)
	if err != nil {
		return m.answerOf(req, m.failure(err))
	}
	if req.Tensors != nil {
		return &engine.Response{Status: http.StatusOK, Stream: &tensorStream{s}, PieceTensors: pieceTensors}, nil
	}
	return &engine.Response{Status: http.StatusOK, ContentType: "application/x-ndjson", Stream: &lineStream{s}}, nil
}

// pieces are the answers to one request, as they come.
type pieces struct {
	m     *model
	use   remote.Use
	s     *answers
	first *piece // read ahead
	done  bool
	once  sync.Once
}

// open sends a request whose answers are streamed. ctx bounds the beginning only.
func (m *model) open(ctx context.Context, req *engine.Request, q *question) (*pieces, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	trace := ""
	if req.Span != nil {
		trace = req.Span.Later().Traceparent()
	}
	p := &pieces{m: m}
	lasting := context.WithoutCancel(ctx)
	err := m.pool.Do(ctx, func(ctx context.Context, use *remote.Use) (err error) {
		bounded, cancel := context.WithCancel(lasting)
		stop := context.AfterFunc(ctx, cancel)
		p.s, err = m.client.stream(bounded, use, q, trace)
		if !stop() && err == nil {
			p.s.cancel()
			err = context.Cause(ctx)
		}
		if err != nil {
			cancel()
			return err
		}
		inner := p.s.cancel
		p.s.cancel = func() { inner(); cancel() }
		use.Hold()
		p.use = *use
		return nil
	})
	if err != nil {
		m.leave()
		return nil, err
	}
	return p, nil
}

// piece is the next piece, or io.EOF. Any error ends the stream.
func (p *pieces) piece(ctx context.Context) (*piece, error) {
	if next := p.first; next != nil {
		p.first = nil
		return next, nil
	}
	if p.done {
		return nil, io.EOF
	}
	stop := context.AfterFunc(ctx, p.s.cancel)
	next, err := p.s.next()
	stop()
	switch {
	case err == nil:
		p.use.Progress()
		return next, nil
	case errors.Is(err, io.EOF):
		p.end(nil)
		return nil, io.EOF
	case ctx.Err() != nil:
		p.drop()
		return nil, context.Cause(ctx)
	}
	p.end(err)
	return nil, err
}

func (p *pieces) end(err error) {
	p.once.Do(func() {
		p.done = true
		p.s.cancel()
		p.use.End(err)
		p.m.leave()
	})
}

func (p *pieces) drop() {
	p.once.Do(func() {
		p.done = true
		p.s.cancel()
		p.use.Drop()
		p.m.leave()
	})
}

// read is the answer in a piece.
func read(next *piece) (answer, error) {
	a, failed, err := next.open()
	switch {
	case err != nil:
		return a, remote.Broken(&Garbage{err})
	case failed != "":
		return a, refusal(codes.Internal, failed)
	}
	return a, nil
}

// next is the next answer, or io.EOF.
func (p *pieces) next(ctx context.Context) (answer, error) {
	next, err := p.piece(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := read(next)
	if err != nil {
		p.end(err)
	}
	return a, err
}

// tensorStream yields the messages of the server.
type tensorStream struct{ *pieces }

// Next implements engine.Stream.
func (s *tensorStream) Next(ctx context.Context) ([]byte, error) {
	next, err := s.piece(ctx)
	if err == nil {
		if err = next.refusal(); err == nil {
			return next.message, nil
		}
		s.end(err)
	}
	if !errors.Is(err, io.EOF) {
		err = s.m.failure(err)
	}
	return nil, err
}

// Close implements engine.Stream.
func (p *pieces) Close() error {
	p.drop()
	return nil
}

func pieceTensors(message []byte) ([]engine.Tensor, error) {
	a, err := read(&piece{message})
	return a.outputs, err
}

// lineStream yields the answers as lines of JSON.
type lineStream struct{ *pieces }

// Next implements engine.Stream.
func (s *lineStream) Next(ctx context.Context) ([]byte, error) {
	a, err := s.next(ctx)
	if err == nil {
		s.m.arrange(&a, s.m.outputs)
		var line []byte
		if line, err = s.m.body(nil, a.outputs); err == nil {
			return append(line, '\n'), nil
		}
		s.drop()
		return nil, &engine.Error{Kind: engine.KindInternal, Endpoint: s.m.url, Text: err.Error()}
	}
	if !errors.Is(err, io.EOF) {
		err = s.m.failure(err)
	}
	return nil, err
}

// only is the one answer of a decoupled model to a request that has one.
func (m *model) only(ctx context.Context, req *engine.Request, q *question) (*answer, error) {
	all, err := m.all(ctx, req, q)
	if err != nil {
		return nil, err
	}
	switch len(all) {
	case 0:
		return &answer{}, nil
	case 1:
		m.arrange(&all[0], q.outputs)
		return &all[0], nil
	}
	return nil, &engine.Error{Kind: engine.KindBadRequest, Endpoint: m.url, Text: fmt.Sprintf("the model has answered with %d messages, and the request has one: ask with ModelStreamInfer", len(all))}
}

// all are the answers to a request, within the limit of one answer.
func (m *model) all(ctx context.Context, req *engine.Request, q *question) ([]answer, error) {
	p, err := m.open(ctx, req, q)
	if err != nil {
		return nil, err
	}
	defer p.drop()
	var all []answer
	size := int64(0)
	for {
		a, err := p.next(ctx)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range a.outputs {
			size += int64(len(a.outputs[i].Data))
		}
		if size += 64; size > m.e.o.MaxAnswer {
			return nil, &engine.Error{Kind: engine.KindTooLarge, Text: fmt.Sprintf("the engine's answers are larger than %d bytes", m.e.o.MaxAnswer)}
		}
		if len(a.outputs) > 0 {
			all = append(all, a)
		}
	}
}

// collect joins the answers of a decoupled model along their first dimension, for postprocess.
func (m *model) collect(ctx context.Context, req *engine.Request, q *question) (*answer, error) {
	all, err := m.all(ctx, req, q)
	if err != nil || len(all) == 0 {
		return &answer{}, err
	}
	whole := &all[0]
	m.arrange(whole, q.outputs)
	for i := range whole.outputs {
		t := &whole.outputs[i]
		if t.Shape, t.Data = slices.Clone(t.Shape), slices.Clone(t.Data); len(t.Shape) == 0 {
			t.Shape = []int64{1}
		}
	}
	for k := range all[1:] {
		next := &all[1+k]
		for i := range whole.outputs {
			t := &whole.outputs[i]
			at := slices.IndexFunc(next.outputs, func(o engine.Tensor) bool { return o.Name == t.Name })
			if at < 0 {
				return nil, &Garbage{fmt.Errorf("a message of the stream has no output '%s', as the first one has", t.Name)}
			}
			o := next.outputs[at]
			if len(o.Shape) == 0 {
				o.Shape = []int64{1}
			}
			if o.Datatype != t.Datatype || !slices.Equal(o.Shape[1:], t.Shape[1:]) {
				return nil, &Garbage{fmt.Errorf("output '%s' has the shape %s in a message of the stream, which cannot be joined to %s", t.Name, engine.Shape(o.Shape), engine.Shape(t.Shape))}
			}
			t.Shape[0] += o.Shape[0]
			t.Data = append(t.Data, o.Data...)
		}
	}
	return whole, nil
}
