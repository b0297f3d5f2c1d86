package inference

import (
	"context"
	"fmt"
	"runtime/debug"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// maxDepth bounds how many send_request calls may be nested.
const maxDepth = 16

// caller answers the send_request calls of user code like clients' questions, but
// without a key. Only engines get it. It implements engine.Caller.
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
	if call.Depth > maxDepth {
		text := fmt.Sprintf("send_request to '%s' from '%s' is nested more than %d deep: do the endpoints call each other in a circle?", url, call.From, maxDepth)
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
