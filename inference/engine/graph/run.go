package graph

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// run is the work for one request.
type run struct {
	m   *Model
	req *engine.Request
}

// fault is why a graph has no answer: a step that has answered with an error, or an error.
type fault struct {
	text       string
	answer     *engine.Response // of a step, nil: an error
	kind       engine.Kind
	retryAfter time.Duration
	cause      error
}

func (f *fault) Error() string { return f.text }

// badRequest is the fault of a request that the graph cannot use.
func badRequest(n *serving.GraphNode, format string, args ...any) error {
	text := fmt.Sprintf("node '%s': ", n.Name) + fmt.Sprintf(format, args...)
	return &fault{text: text, answer: &engine.Response{Status: http.StatusUnprocessableEntity}}
}

// unusable is the fault of the answer of a step that the graph cannot use.
func unusable(n *serving.GraphNode, format string, args ...any) error {
	return &fault{text: fmt.Sprintf("node '%s': ", n.Name) + fmt.Sprintf(format, args...)}
}

// stepFault is the fault of a step.
func stepFault(n *serving.GraphNode, s *serving.GraphStep, answer *engine.Response, err error) error {
	f := &fault{text: fmt.Sprintf("step '%s' of node '%s' (endpoint '%s'): ", s.Name, n.Name, s.Endpoint), answer: answer}
	if answer != nil {
		f.text += v2.ErrorText(answer.Body)
		return f
	}
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok {
		failed = &engine.Error{Text: "the call failed", Err: err}
		if errors.Is(err, context.DeadlineExceeded) {
			failed = &engine.Error{Kind: engine.KindDeadline, Text: "the deadline has passed", Err: err}
		}
	}
	f.text, f.kind, f.retryAfter, f.cause = f.text+failed.Text, failed.Kind, failed.RetryAfter, failed.Err
	return f
}

// node asks the steps of a node. tail says that its answer is the one of the graph, which may be a stream.
func (r *run) node(ctx context.Context, n *serving.GraphNode, in payload, tail bool) (payload, error) {
	switch n.Type {
	case serving.GraphSequence:
		return r.sequence(ctx, n, in, tail)
	case serving.GraphSwitch:
		s, err := r.choose(n, &in)
		if err != nil {
			return payload{}, err
		}
		return r.step(ctx, n, s, sources{request: in}, tail)
	case serving.GraphSplitter:
		return r.step(ctx, n, draw(n), sources{request: in}, tail)
	case serving.GraphEnsemble:
		return r.ensemble(ctx, n, in)
	}
	return payload{}, unusable(n, "the type %s is unknown", n.Type)
}

func (r *run) sequence(ctx context.Context, n *serving.GraphNode, in payload, tail bool) (payload, error) {
	from := sources{request: in, response: in, answers: make([]*payload, len(n.Steps))}
	for i := range n.Steps {
		s := &n.Steps[i]
		if s.Condition != "" {
			fits, err := exists(n, &from.response, s.Condition)
			if err != nil {
				return payload{}, err
			}
			if !fits { // the answer is that of the step before
				break
			}
		}
		out, err := r.step(ctx, n, s, from, tail && i == len(n.Steps)-1 && n.Response == nil)
		switch {
		case err != nil && s.Soft && ctx.Err() == nil:
			continue
		case err != nil:
			return payload{}, err
		}
		from.answers[i], from.response = &out, out
	}
	if n.Response == nil {
		return from.response, nil
	}
	return from.make(n, n.Response)
}

// step asks a step.
func (r *run) step(ctx context.Context, n *serving.GraphNode, s *serving.GraphStep, from sources, tail bool) (payload, error) {
	in := from.request
	if s.Data != nil {
		var err error
		if in, err = from.make(n, s.Data); err != nil {
			return payload{}, err
		}
	}
	if s.Node != "" {
		return r.node(ctx, r.m.g.Nodes[s.Node], in, tail)
	}
	req := engine.Request{
		ID: r.req.ID, Body: in.body, ContentType: in.contentType, Tensors: in.tensors, TensorsAs: in.as, Renames: in.answer,
		Client: r.req.Client, Depth: r.req.Depth + 1, Span: r.req.Span,
	}
	if in.tensors != nil {
		req.Parameters = r.req.Parameters
	}
	if tail {
		req.Outputs, req.Streams = r.req.Outputs, r.req.Streams
	}
	resp, err := r.m.asker.Ask(ctx, s.Endpoint, &req, !tail)
	switch {
	case err != nil:
		return payload{}, stepFault(n, s, nil, err)
	case resp.Status >= http.StatusBadRequest:
		if resp.Stream != nil {
			_ = resp.Stream.Close() // an error has no stream
			resp.Stream = nil
		}
		return payload{}, stepFault(n, s, resp, nil)
	case tail:
		return payload{last: resp}, nil
	}
	out := payload{tensors: resp.Tensors, as: resp.TensorsAs, body: resp.Body, contentType: resp.ContentType, answer: true}
	if len(out.tensors) == 1 && out.tensors[0].Name == v2.FreeOutput { // the answer of a model that knows no tensors
		if body, ok := freeAnswer(&out.tensors[0]); ok {
			out.tensors, out.as, out.body, out.contentType = nil, "", body, jsonType
		}
	}
	return out, nil
}

// freeAnswer is the answer in the tensor of a model that has none.
func freeAnswer(t *engine.Tensor) ([]byte, bool) {
	free := *t
	free.Name = v2.FreeInput
	body, ok := v2.FreeBody([]engine.Tensor{free})
	return body, ok && v2.IsJSON(body)
}

// choose finds the step of a Switch.
func (r *run) choose(n *serving.GraphNode, in *payload) (*serving.GraphStep, error) {
	var value any
	var known bool
	if n.Field != nil {
		var err error
		if value, known, err = in.scalar(n.Field, r.req.Parameters); err != nil {
			return nil, badRequest(n, "the field '%s' %v", joined(n.Field), err)
		}
	}
	for i := range n.Steps {
		s := &n.Steps[i]
		switch {
		case s.Values != nil:
			if known && slices.Contains(s.Values, value) {
				return s, nil
			}
		case s.Condition == "":
			return s, nil
		default:
			fits, err := exists(n, in, s.Condition)
			if err != nil {
				return nil, err
			}
			if fits {
				return s, nil
			}
		}
	}
	if n.Field == nil {
		return nil, badRequest(n, "no step has a condition that fits the request, and there is no default")
	}
	if !known {
		return nil, badRequest(n, "the request has no field '%s', and there is no default", joined(n.Field))
	}
	return nil, badRequest(n, "no step is for the value of the field '%s', and there is no default", joined(n.Field))
}

// exists evaluates a condition.
func exists(n *serving.GraphNode, in *payload, condition string) (bool, error) {
	text, err := in.json()
	if err == nil && !v2.IsJSON(text) {
		err = errors.New("it is no JSON")
	}
	if err != nil && in.answer {
		return false, unusable(n, "the condition %s cannot be asked of the answer: %v", condition, err)
	}
	if err != nil {
		return false, badRequest(n, "the condition %s cannot be asked of the request: %v", condition, err)
	}
	return gjson.GetBytes(text, condition).Exists(), nil
}

// draw chooses a step of a Splitter. Draws are independent.
func draw(n *serving.GraphNode) *serving.GraphStep {
	sum := 0.0
	for i := range n.Steps {
		sum += n.Steps[i].Weight
	}
	at, last := rand.Float64()*sum, 0 //nolint:gosec // a split of requests needs no cryptographic randomness
	for i := range n.Steps {
		if n.Steps[i].Weight <= 0 {
			continue
		}
		last = i
		if at -= n.Steps[i].Weight; at < 0 {
			break
		}
	}
	return &n.Steps[last]
}

// errEnough is the cause of the end of the steps of an Ensemble that has its answer.
var errEnough = errors.New("the ensemble has its answer")

// ensemble asks all steps at the same time. It ends when all of them have ended: they use the request.
func (r *run) ensemble(ctx context.Context, n *serving.GraphNode, in payload) (payload, error) {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	type result struct {
		step int
		out  payload
		err  error
	}
	results := make(chan result, len(n.Steps))
	var steps sync.WaitGroup
	for i := range n.Steps {
		steps.Go(func() {
			one := result{step: i}
			defer func() { // a panic costs the request, not the process
				if p := recover(); p != nil {
					r.m.e.log.Error("step of a graph panicked", "endpoint", r.m.url, "node", n.Name, "step", n.Steps[i].Name, "panic", p, "stack", string(debug.Stack()))
					one.err = unusable(n, "step '%s': Internal Server Error", n.Steps[i].Name)
				}
				results <- one
			}()
			one.out, one.err = r.step(within, n, &n.Steps[i], sources{request: in}, false)
		})
	}
	outs := make([]*payload, len(n.Steps))
	answers := 0
	var failed, last error // that of the first step without which there is no answer, and of any
	for range n.Steps {
		one := <-results
		switch {
		case one.err == nil && n.Combiner == serving.CombineFirst:
			stop(errEnough)
			steps.Wait()
			return one.out, nil
		case one.err == nil:
			outs[one.step] = &one.out
			answers++
			continue
		case n.Combiner != serving.CombineFirst && !n.Steps[one.step].Soft && failed == nil:
			failed = one.err
			stop(one.err)
		}
		last = one.err
	}
	switch {
	case failed != nil:
		return payload{}, failed
	case answers == 0:
		return payload{}, last
	}
	return combine(n, outs)
}
