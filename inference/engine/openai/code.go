package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
	"clearmlserving/worker"
	"clearmlserving/worker/host"
)

// code is a model with user code before and after: preprocess gets the request, postprocess the answer, or each event
// of a stream.
type code struct {
	m     *model
	group *host.Group
	// wrapped: preprocess gets {"request": ..., "raw_request": null}, as with the engine vllm of the original.
	wrapped   bool
	pre, post bool
}

// loadCode starts the workers of the endpoint's code.
func (e *Engine) loadCode(ctx context.Context, spec engine.Spec, m *model) (*code, error) {
	kind := serving.EngineCustom
	wrapped := spec.Endpoint.EngineType == serving.EngineVLLM
	if wrapped {
		kind = serving.EngineCustomAsync // its methods are coroutines, and its send_request too
	}
	group, err := e.o.Python.Start(ctx, spec, worker.Spec{Engine: kind, Extra: map[string]any{"tell_model": true}})
	if err != nil {
		return nil, err
	}
	c := &code{m: m, group: group, wrapped: wrapped, pre: group.HasMethod("preprocess"), post: group.HasMethod("postprocess")}
	return c, nil
}

// loaded is what the method load has returned, nil for nothing.
func (c *code) loaded() map[string]any {
	if c == nil {
		return nil
	}
	var told struct {
		Loaded map[string]any `json:"loaded"`
	}
	if json.Unmarshal(c.group.Signature(), &told) != nil { // there may be none
		return nil
	}
	return told.Loaded
}

// Speaks implements engine.Speaker.
func (c *code) Speaks() bool { return true }

// Infer implements engine.Model.
func (c *code) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if !c.pre && !c.post || req.Tensors != nil || !isJSON(req.ContentType) { // code gets no files
		return c.m.Infer(ctx, req)
	}
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	resp, err := c.infer(ctx, life, cancel, req)
	ended := !stop()
	if err == nil && resp.Stream != nil && ended {
		_ = resp.Stream.Close()
		resp, err = nil, c.m.failure(ctx, context.Cause(ctx))
	}
	if err != nil || resp.Stream == nil {
		cancel(nil)
	}
	return resp, err
}

func isJSON(contentType string) bool {
	return contentType == "" || bytes.HasPrefix([]byte(contentType), []byte(jsonType))
}

// infer is Infer within life, which lasts as long as a stream.
func (c *code) infer(ctx, life context.Context, cancel context.CancelCauseFunc, req *engine.Request) (*engine.Response, error) {
	question, _ := python.Question(req, c.group)
	question.Loan = nil // the body is not the client's
	question.ContentType = jsonType
	if c.wrapped {
		question.Body = slices.Concat([]byte(`{"request":`), req.Body, []byte(`,"raw_request":null}`))
	}
	p, answer, err := c.group.Pre(life, &question)
	switch {
	case err != nil:
		return nil, c.failure(ctx, err)
	case answer != nil:
		return python.ResponseOf(c.m.url, answer)
	}
	body, problem := c.unwrapped(&p.Data)
	var resp *engine.Response
	if problem == nil {
		changed := *req
		changed.Body, changed.ContentType, changed.Loan = body, jsonType, nil
		resp, err = c.m.Infer(ctx, &changed)
	} else {
		resp = refused(problem)
	}
	if err != nil || !c.post || resp.Status >= http.StatusBadRequest {
		p.Drop()
		if err == nil {
			resp.Queued = p.Queued
		}
		return resp, err
	}
	if resp.Stream != nil {
		resp.Stream = &codeStream{c: c, inner: resp.Stream, p: p, life: life, cancel: cancel}
		resp.Queued = p.Queued
		return resp, nil
	}
	answer, err = p.Post(life, worker.Value{ContentType: jsonType, Body: resp.Body})
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	answer.Queued = p.Queued
	return python.ResponseOf(c.m.url, answer)
}

// failure is an error of the workers. The end of a deadline ends life without saying so.
func (c *code) failure(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("%w", worker.ErrDeadline)
	}
	return python.Failure(c.m.url, err)
}

// unwrapped is the request that preprocess has returned.
func (c *code) unwrapped(v *worker.Value) ([]byte, *openaiapi.Problem) {
	if v.Tensors != nil || v.ContentType != jsonType {
		return nil, &openaiapi.Problem{Status: http.StatusUnprocessableEntity, Type: openaiapi.InvalidRequest, Message: "preprocess returned no request: it has to return a dict"}
	}
	if !c.wrapped {
		return v.Body, nil
	}
	if o, err := openaiapi.ParseObject(v.Body); err == nil && o.Has("request") {
		return o.Get("request"), nil
	}
	return v.Body, nil
}

// Signature implements engine.Signed.
func (c *code) Signature() engine.Signature { return signature }

// SetVariables implements engine.VariableSetter.
func (c *code) SetVariables(names []string) error { return c.group.SetVariables(names) }

// Status implements engine.Model: the workers', and what the servers add.
func (c *code) Status() serving.ModelReport {
	r := c.group.Status()
	if r.State == serving.StateLoading { // for a few milliseconds, in which requests wait
		r.State = serving.StateDegraded
	}
	c.m.report(&r)
	return r
}

// Close implements engine.Model.
func (c *code) Close(ctx context.Context) error {
	return errors.Join(c.group.Close(ctx), c.m.Close(ctx))
}

// codeStream has postprocess change the events of a stream.
type codeStream struct {
	c      *code
	inner  engine.Stream
	p      *worker.Prepared
	life   context.Context //nolint:containedctx // of the request, which is longer than a call of Next
	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // that of the last call
	unhook func() bool
	out    []byte
	stats  []byte // what the code has collected so far, nil if not sampled
	failed error
}

// Next implements engine.Stream.
func (s *codeStream) Next(ctx context.Context) ([]byte, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	if s.ctx != ctx {
		if s.unhook != nil {
			s.unhook()
		}
		s.ctx, s.unhook = ctx, context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	}
	s.out = s.out[:0]
	for len(s.out) == 0 {
		piece, err := s.inner.Next(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.change(piece); err != nil {
			s.c.m.e.o.Logger.Warn("postprocess failed in a stream", "endpoint", s.c.m.url, "err", err)
			s.failed = err
			p := openaiapi.ProblemOf(http.StatusInternalServerError, err.Error())
			s.out = append(append(append(s.out, "data: "...), p.Body()...), "\n\n"...)
		}
	}
	return s.out, nil
}

// Stats implements engine.LateStats.
func (s *codeStream) Stats() []byte { return s.stats }

// change appends the events of a piece, as postprocess returns them. An event for which it returns None is left out.
func (s *codeStream) change(piece []byte) error {
	events := splitter{buffer: piece}
	for {
		event, ok := events.cut()
		if !ok {
			s.out = append(s.out, events.buffer...) // of a stream without events there is a rest
			return nil
		}
		data := dataOf(event)
		if data == nil || bytes.Equal(bytes.TrimSpace(data), doneData) {
			s.out = append(s.out, event...)
			continue
		}
		answer, err := s.p.Piece(s.life, worker.Value{ContentType: jsonType, Body: data})
		if err != nil {
			return python.Failure(s.c.m.url, err)
		}
		if answer.Stream != nil {
			_ = answer.Stream.Close() // it would hold its worker
			return &engine.Error{Endpoint: s.c.m.url, Text: "postprocess failed: it returned a generator for an event"}
		}
		if answer.Status >= http.StatusBadRequest {
			return &engine.Error{Endpoint: s.c.m.url, Text: "postprocess failed: " + string(shortened(answer.Body))}
		}
		if answer.Stats != nil { // with those of the events before: they have one request's state
			s.stats = answer.Stats
		}
		if string(answer.Body) == "null" {
			continue
		}
		for line := range bytes.Lines(event) { // the name of the event stays
			if !bytes.HasPrefix(line, []byte("data:")) && len(bytes.TrimSpace(line)) > 0 {
				s.out = append(s.out, line...)
			}
		}
		s.out = append(append(append(s.out, "data: "...), answer.Body...), "\n\n"...)
	}
}

// Close implements engine.Stream.
func (s *codeStream) Close() error {
	if s.unhook != nil {
		s.unhook()
	}
	s.p.Drop()
	s.cancel(nil)
	return s.inner.Close()
}
