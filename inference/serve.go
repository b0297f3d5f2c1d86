package inference

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

const jsonType = "application/json"

// endpointOf finds the url that a path and its query name. The whole path is
// the url, however many parts it has; "?version=" is its last part unless the
// path already has one.
func (s *Service) endpointOf(path, query string) serving.EndpointURL {
	endpoint := serving.CleanURL(path)
	if query == "" {
		return endpoint
	}
	values, err := url.ParseQuery(query)
	if err != nil || values.Get("version") == "" {
		return endpoint
	}
	versioned := serving.JoinURL(string(endpoint), values.Get("version"))
	if strings.Contains(string(endpoint), "/") && !s.router.Knows(versioned) {
		return endpoint
	}
	return versioned
}

// serve answers one request by the model behind endpoint. Only a stream holds the
// model's reference until the last byte has been written: a client that reads a whole
// answer slowly keeps no model that has been replaced.
func (s *Service) serve(ctx context.Context, endpoint serving.EndpointURL, r *listener.Request) *listener.Response {
	live, err := s.router.Acquire(endpoint)
	if err != nil {
		return s.refuse(endpoint, err)
	}
	kept := false
	var answer *engine.Response
	defer func() { // also where user code, an engine or a tap panics
		if kept {
			return
		}
		if answer != nil && answer.Stream != nil {
			_ = answer.Stream.Close() // nobody reads it
		}
		live.Release()
	}()
	limit, err := allowance(r.Header(timeoutHeader), live.Timeout)
	if err != nil {
		return detail(http.StatusBadRequest, "Error processing request, "+err.Error())
	}
	req := engine.Request{ID: r.ID, Body: r.Body, ContentType: r.ContentType, Loan: r.Loan}
	answer, err = s.infer(ctx, live, &req, limit)
	if err != nil {
		resp := s.fail(ctx, live, r.ID, limit, err)
		if !left(ctx) { // a client that went away got no answer
			s.taps.see(endpoint, live, &req, &resp.Response)
		}
		return resp
	}
	s.taps.see(endpoint, live, &req, answer)
	resp := &listener.Response{Response: *answer}
	resp.Header = append(slices.Clip(live.Header), answer.Header...)
	if resp.Stream != nil {
		resp.Done, kept = live.Release, true
	}
	return resp
}

// left tells whether a request has ended because its client went away: a deadline
// ends it otherwise.
func left(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// statusClientLeft is the status of a request whose client has left before its answer,
// as with nginx: it is no error of the server.
const statusClientLeft = 499

// Lend finds memory for a large body of an admitted request: that of the model which
// answers it, most likely. A canary may draw another when the body is there, which
// then reads it as it reads any other.
func (s front) Lend(h *listener.Head, size int) engine.Loan {
	live, err := s.router.Acquire(serving.EndpointURL(h.Endpoint))
	if err != nil {
		return nil // the request itself is told why
	}
	defer live.Release()
	lender, ok := live.Model.(engine.Lender)
	if !ok {
		return nil
	}
	return lender.Lend(size)
}

// infer asks the model, within limit or what is left of the time of the request
// that calls, and counts the answer.
func (s *Service) infer(ctx context.Context, live *router.Live, req *engine.Request, limit time.Duration) (*engine.Response, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = listener.WithTimeout(ctx, limit)
		defer cancel()
	}
	share := 0.0
	if s.o.Recorder != nil {
		share = live.LogShare()
		req.Sampled = share >= 1 || (share > 0 && rand.Float64() < share) //nolint:gosec // a sample needs no secrecy
	}
	begun := time.Now()
	answer, err := live.Model.Infer(ctx, req)
	took := time.Since(begun)
	if err != nil && left(ctx) {
		return nil, err // neither answered nor failed: it is not counted
	}
	live.Stats.Requests.Add(1)
	live.Stats.Nanos.Add(uint64(took))
	if err != nil || answer.Status >= http.StatusInternalServerError {
		live.Stats.Errors.Add(1)
	}
	if req.Sampled && err == nil && answer.Status < http.StatusBadRequest {
		s.o.Recorder.Record(serving.Sample{URL: live.URL, Latency: took, Weight: 1 / share, Variables: answer.Stats})
	}
	return answer, err
}

// Call answers a send_request of user code: the same way as a client's request
// without HTTP. It fulfils engine.Caller.
func (s *Service) Call(ctx context.Context, c engine.Call) (*engine.Response, error) {
	endpoint := serving.JoinURL(c.Endpoint, c.Version)
	if c.Depth > s.o.MaxDepth {
		text := fmt.Sprintf("send_request to '%s' from '%s' is nested more than %d deep: do the endpoints call each other in a circle?", endpoint, c.From, s.o.MaxDepth)
		return &engine.Response{Status: http.StatusLoopDetected, ContentType: jsonType, Body: engine.Detail(text)}, nil
	}
	live, err := s.router.Acquire(endpoint)
	if err != nil {
		resp := s.refuse(endpoint, err).Response
		return &resp, nil
	}
	defer live.Release()
	req := engine.Request{ID: c.ID, Body: c.Body, ContentType: c.ContentType, Depth: c.Depth}
	answer, err := s.infer(ctx, live, &req, live.Timeout)
	if err != nil {
		resp := s.fail(ctx, live, c.ID, live.Timeout, err).Response
		if !left(ctx) {
			s.taps.see(endpoint, live, &req, &resp)
		}
		return &resp, nil
	}
	s.taps.see(endpoint, live, &req, answer)
	if answer.Stream != nil { // user code gets whole answers
		if err := collect(ctx, answer, s.o.MaxBody); err != nil {
			resp := s.fail(ctx, live, c.ID, live.Timeout, err).Response
			return &resp, nil
		}
	}
	return answer, nil
}

// collect turns a streamed answer into a whole one of at most limit bytes.
func collect(ctx context.Context, answer *engine.Response, limit int64) (err error) {
	answer.Body, err = engine.ReadAll(ctx, answer.Stream, limit)
	answer.Stream = nil
	return err
}

// refuse answers for a url that no model answers. The texts are the original's
// where it has one.
func (s *Service) refuse(endpoint serving.EndpointURL, err error) *listener.Response {
	var notReady *router.NotReadyError
	switch {
	case !errors.As(err, &notReady):
		text := fmt.Sprintf("Error processing request, endpoint was not found: Model inference endpoint '%s' not found", endpoint)
		return detail(http.StatusNotFound, text)
	case notReady.Code != "":
		begin := fmt.Sprintf("Failed loading preprocess code for '%s': ", notReady.Code)
		text := "Error [<class 'ValueError'>] processing request: Error: " + begin + strings.TrimPrefix(notReady.Reason, begin)
		return detail(http.StatusUnprocessableEntity, text)
	default:
		resp := detail(http.StatusServiceUnavailable, "Error processing request, "+notReady.Error())
		if notReady.Loading {
			resp.Header = []engine.Header{{Name: "Retry-After", Value: "1"}}
		}
		return resp
	}
}

// statusOf is the one table from an engine's failure to a status.
func statusOf(kind engine.Kind) int {
	switch kind {
	case engine.KindOverloaded:
		return http.StatusTooManyRequests
	case engine.KindDeadline:
		return http.StatusGatewayTimeout
	case engine.KindUnavailable:
		return http.StatusServiceUnavailable
	case engine.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case engine.KindInternal, engine.KindDied:
	}
	return http.StatusInternalServerError
}

// fail answers for an engine that could not within limit. What happened is logged
// once here.
func (s *Service) fail(ctx context.Context, live *router.Live, id string, limit time.Duration, err error) *listener.Response {
	var engineErr *engine.Error
	if !errors.As(err, &engineErr) {
		engineErr = &engine.Error{Kind: engine.KindInternal, Endpoint: live.URL, Text: "Error processing request", Err: err}
		if errors.Is(err, context.DeadlineExceeded) {
			engineErr.Kind = engine.KindDeadline
		}
	}
	status := statusOf(engineErr.Kind)
	if left(ctx) && engineErr.Kind != engine.KindDeadline {
		status = statusClientLeft
		s.o.Logger.Debug("client went away", "endpoint", live.URL, "request_id", id)
	} else {
		s.o.Logger.Warn("request failed", "endpoint", live.URL, "request_id", id, "err", err)
	}
	text := engineErr.Error()
	if engineErr.Kind == engine.KindDeadline && limit > 0 {
		text += fmt.Sprintf(" (its limit is %s)", limit)
	}
	resp := detail(status, text)
	resp.Header = slices.Clip(live.Header)
	if wait := engineErr.RetryAfter; wait > 0 || engineErr.Kind == engine.KindOverloaded {
		seconds := max(1, int(wait.Round(time.Second)/time.Second))
		resp.Header = append(resp.Header, engine.Header{Name: "Retry-After", Value: strconv.Itoa(seconds)})
	}
	return resp
}

func detail(status int, text string) *listener.Response {
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: engine.Detail(text)}}
}
