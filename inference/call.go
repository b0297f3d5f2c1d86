package inference

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// caller answers the calls between endpoints, such as send_request of user code, like clients' questions, but
// without a key. Only engines get it. It implements engine.Asker.
type caller struct{ s *Service }

// Call answers one send_request. A panic costs the call, not the process.
func (c caller) Call(ctx context.Context, call engine.Call) (resp *engine.Response, err error) {
	url := serving.JoinURL(call.Endpoint, call.Version)
	defer func() {
		if p := recover(); p != nil {
			c.s.o.Logger.Error("send_request panicked", "endpoint", url, "panic", p, "stack", string(debug.Stack()))
			resp, err = (&Failure{Kind: KindInternal, Text: "Internal Server Error"}).Response(), nil
		}
	}()
	if call.Depth > serving.MaxCallDepth {
		text := fmt.Sprintf("send_request to '%s' from '%s' is nested more than %d deep: do the endpoints call each other in a circle?", url, call.From, serving.MaxCallDepth)
		return (&Failure{Kind: KindLoopDetected, Text: text}).Response(), nil
	}
	var span *tracing.Span
	if c.s.o.Tracer != nil {
		span = c.s.o.Tracer.Start("send_request "+string(url), tracing.Client, call.Traceparent, "")
		defer span.End()
	}
	q := Question{Request: engine.Request{ID: call.ID, Body: call.Body, ContentType: call.ContentType, Depth: call.Depth, Span: span}}
	if route := openaiapi.RouteOf(call.Endpoint); route != "" && !c.s.router.Knows(url) {
		model, problem := openaiapi.ModelOf(call.ContentType, call.Body)
		if problem != nil {
			return (&Failure{Kind: KindBadRequest, Text: problem.Message}).Response(), nil
		}
		url, q.Route = serving.CleanURL(model), route
	}
	answer, failure := c.s.askWhole(ctx, url, &q)
	if failure != nil {
		span.Fail(failure.Text)
		c.s.nameVersions(failure, url, func(serving.EndpointURL) bool { return true })
		return failure.Response(), nil
	}
	return answer, nil
}

// Ask implements engine.Asker. A panic costs the call, not the process.
func (c caller) Ask(ctx context.Context, url serving.EndpointURL, req *engine.Request, whole bool) (resp *engine.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.s.o.Logger.Error("call panicked", "endpoint", url, "panic", p, "stack", string(debug.Stack()))
			resp, err = nil, &engine.Error{Endpoint: url, Text: "Internal Server Error"}
		}
	}()
	if req.Depth > serving.MaxCallDepth {
		return nil, &engine.Error{Kind: engine.KindLoop, Endpoint: url, Text: fmt.Sprintf("the call is nested more than %d deep: do the endpoints call each other in a circle?", serving.MaxCallDepth)}
	}
	q := Question{Request: *req}
	if deadline, ok := ctx.Deadline(); ok {
		q.Within = max(time.Until(deadline), 1)
	}
	var answer Answer
	var failure *Failure
	if whole {
		answer, failure = c.s.whole(ctx, url, &q)
	} else {
		answer, failure = c.s.ask(ctx, url, &q)
	}
	switch {
	case failure != nil && failure.Kind == KindClientLeft:
		return nil, &engine.Error{Endpoint: url, Text: failure.Text, Err: ctx.Err()}
	case failure != nil:
		return nil, &engine.Error{Kind: kindsOfCalls[failure.Kind], Endpoint: url, Text: failure.Text, RetryAfter: failure.RetryAfter}
	case answer.Stream != nil:
		held := *answer.Response
		held.Stream = &heldStream{answer}
		return &held, nil
	}
	return answer.Response, nil
}

// heldStream is a stream that holds its model until it is closed.
type heldStream struct{ answer Answer }

// Next implements engine.Stream.
func (s *heldStream) Next(ctx context.Context) ([]byte, error) { return s.answer.Stream.Next(ctx) }

// Close implements engine.Stream.
func (s *heldStream) Close() error {
	s.answer.Close()
	return nil
}

// kindsOfCalls are the kinds of the errors of calls that have failed. Who asked the caller did not ask for the endpoint
// that is missing.
var kindsOfCalls = map[FailureKind]engine.Kind{ //nolint:gochecknoglobals // a constant table
	KindUnknownEndpoint: engine.KindUnavailable,
	KindNotReady:        engine.KindUnavailable,
	KindBadRequest:      engine.KindBadRequest,
	KindOverloaded:      engine.KindOverloaded,
	KindDeadline:        engine.KindDeadline,
	KindTooLarge:        engine.KindTooLarge,
	KindDied:            engine.KindDied,
	KindLoopDetected:    engine.KindLoop,
}

// Signature implements engine.Asker.
func (c caller) Signature(url serving.EndpointURL, depth int) engine.Signature {
	snapshot := c.s.router.Snapshot()
	of := func(live *router.Live) engine.Signature {
		if live == nil || depth > serving.MaxCallDepth || !live.Hold() {
			return engine.Signature{Source: engine.SourceNone}
		}
		defer live.Release()
		if composed, ok := live.Model.(engine.Composed); ok {
			return composed.SignatureAt(depth)
		}
		signature, _ := live.Signature()
		return signature
	}
	if canary := snapshot.Canaries[url]; canary != nil {
		return common(slices.Sorted(maps.Keys(canary.Shares())), func(target serving.EndpointURL) engine.Signature { return of(snapshot.Models[target]) })
	}
	return of(snapshot.Models[url])
}

// Targets implements engine.Asker.
func (c caller) Targets(url serving.EndpointURL) []serving.EndpointURL {
	canary := c.s.router.Snapshot().Canaries[url]
	if canary == nil {
		return []serving.EndpointURL{url}
	}
	return slices.Sorted(maps.Keys(canary.Shares()))
}

// Obstacle implements engine.Asker.
func (c caller) Obstacle(url serving.EndpointURL) error {
	_, err := c.s.router.Check(url)
	return err
}
