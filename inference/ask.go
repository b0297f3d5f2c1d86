package inference

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/recurring"
	"clearmlserving/serving"
)

// Head is the part of a question before its content.
type Head struct {
	Endpoint serving.EndpointURL
	// Key is the client's key for this service, "" if it sent none.
	Key string
	// ID names the request in logs.
	ID string
}

// Ticket is the permission to ask one endpoint. Only Admit creates one; the zero value is
// refused. It is valid for one question. It is one word, so that it can be stored in an
// interface value without an allocation.
type Ticket struct{ url *serving.EndpointURL }

// Question is one question to an endpoint.
type Question struct {
	engine.Request
	// Within is the client's time limit, 0: the endpoint's.
	Within time.Duration
	// Decoded is the time in which the front read Tensors.
	Decoded time.Duration
}

// Answer is a model's answer, with a user's error as its status. Close ends it.
type Answer struct {
	*engine.Response
	// Origin names the endpoint and the model that answered. It is shared: copy it
	// before appending.
	Origin []engine.Header

	live  *router.Live  // held by a stream, else nil
	stats *router.Stats // of an answer with tensors, else nil
}

// Encoded counts the time in which a front made its answer of tensors.
func (a *Answer) Encoded(took time.Duration) { a.stats.Encoded(took) }

// Close ends a streamed answer, read or not, and releases its model. It must be called
// once after an answer with a Stream, and does nothing after any other.
func (a *Answer) Close() {
	if a.live == nil {
		return
	}
	if a.Stream != nil { // it has not been collected
		_ = a.Stream.Close() // Next has returned its error, if any
	}
	a.live.Release()
	a.live = nil
}

// Authorize returns nil if a question with this head is allowed. The failure depends
// only on the key, not on whether the endpoint exists.
func (s *Service) Authorize(h Head) *Failure { return s.gate.admit(h) }

// AuthorizeService returns nil if the head's key gives access to information about the whole
// service: a key for some endpoints is not enough.
func (s *Service) AuthorizeService(h Head) *Failure { return s.gate.admitToService(h) }

// Recognize returns nil if the head's key is valid for something: a front whose protocol names the
// endpoint in the content uses it before the content is read.
func (s *Service) Recognize(h Head) *Failure {
	return s.gate.check(h, func(*serving.AccessKey) bool { return true })
}

// Admit checks by the head whether the client is allowed to ask, and whether a model can
// answer. It takes no lock and does not allocate unless it refuses.
func (s *Service) Admit(h Head) (Ticket, *Failure) {
	ticket, failure := s.find(h)
	if failure != nil && failure.Kind != KindUnauthenticated && failure.Kind != KindForbidden {
		s.missed(h.Endpoint, router.Errors)
	}
	return ticket, failure
}

// find is Admit for a question about a model, which is not counted.
func (s *Service) find(h Head) (Ticket, *Failure) {
	if refused := s.gate.admit(h); refused != nil {
		return Ticket{}, refused
	}
	url, err := s.router.Check(h.Endpoint)
	if err != nil {
		failure := notAnswered(h.Endpoint, err)
		s.nameVersions(failure, h.Endpoint, s.gate.opener(h.Key))
		return Ticket{}, failure
	}
	return Ticket{url}, nil
}

// AdmitAbout checks by the head whether the client may tell or ask something about an endpoint, ready or
// not, or about all URLs one part below one, as the versions of a name.
func (s *Service) AdmitAbout(h Head) *Failure {
	if refused := s.gate.admit(h); refused != nil {
		return refused
	}
	_, err := s.router.Check(h.Endpoint)
	if err == nil || s.router.Knows(h.Endpoint) {
		return nil
	}
	if name, urls := s.router.Near(h.Endpoint); name == h.Endpoint && len(urls) > 0 {
		return nil
	}
	failure := notAnswered(h.Endpoint, err) // 503 before the configuration has been read
	s.nameVersions(failure, h.Endpoint, s.gate.opener(h.Key))
	return failure
}

// Reject counts an admitted question that its front does not ask, by the kind of failure
// in the answer to the client.
func (s *Service) Reject(t Ticket, kind FailureKind) {
	if t.url != nil {
		s.missed(*t.url, kind.outcome())
	}
}

// missed counts a request to a url that reached no model, if the url is in the table.
func (s *Service) missed(url serving.EndpointURL, o router.Outcome) {
	stats := s.router.Stats(url)
	if stats == nil {
		return
	}
	stats.Missed(o)
	if s.o.Recorder != nil {
		s.o.Recorder.Count(url, "", o)
	}
}

// Knows reports whether the url is configured, ready or not.
func (s *Service) Knows(url serving.EndpointURL) bool { return s.router.Knows(url) }

// Lend returns memory of a model for a large body of an admitted question, nil if there is
// none. A canary may draw another model after the body has arrived; that model then reads
// the body like any other.
func (s *Service) Lend(t Ticket, size int) engine.Loan {
	if t.url == nil {
		return nil
	}
	live, err := s.router.Acquire(*t.url)
	if err != nil {
		return nil // Ask returns the reason
	}
	defer live.Release()
	lender, ok := live.Model.(engine.Lender)
	if !ok {
		return nil
	}
	return lender.Lend(size)
}

// Signature describes the inputs and outputs of the model of an admitted endpoint, of a canary those of the target that
// gets most requests; known is false if nothing tells of them.
func (s *Service) Signature(t Ticket) (signature engine.Signature, known bool, failure *Failure) {
	if t.url == nil {
		return engine.Signature{}, false, notAdmitted()
	}
	live, err := s.router.Main(*t.url)
	if err != nil {
		return engine.Signature{}, false, notAnswered(*t.url, err)
	}
	defer live.Release()
	signature, known = live.Signature()
	return signature, known, nil
}

// Ask gets the answer of the model of an admitted endpoint. The arguments may be reused
// after it has returned. The caller closes the answer. Only a stream holds the model
// until then: a client that reads a whole answer slowly does not delay the close of a
// replaced model.
func (s *Service) Ask(ctx context.Context, t Ticket, q *Question) (Answer, *Failure) {
	if t.url == nil {
		return Answer{}, notAdmitted()
	}
	return s.ask(ctx, *t.url, q)
}

// AskWhole is Ask for callers that need whole answers: a stream is collected, up to
// MaxAnswer.
func (s *Service) AskWhole(ctx context.Context, t Ticket, q *Question) (*engine.Response, *Failure) {
	if t.url == nil {
		return nil, notAdmitted()
	}
	return s.askWhole(ctx, *t.url, q)
}

// AskTensors is AskWhole that also says who has answered. The answer to a question with tensors has tensors, unless
// its status is an error.
func (s *Service) AskTensors(ctx context.Context, t Ticket, q *Question) (Answer, *Failure) {
	if t.url == nil {
		return Answer{}, notAdmitted()
	}
	return s.whole(ctx, *t.url, q)
}

func notAdmitted() *Failure {
	return &Failure{Kind: KindInternal, Text: "Error processing request: it was not admitted"}
}

func (s *Service) askWhole(ctx context.Context, url serving.EndpointURL, q *Question) (*engine.Response, *Failure) {
	answer, failure := s.whole(ctx, url, q)
	return answer.Response, failure
}

// whole is ask without streams.
func (s *Service) whole(ctx context.Context, url serving.EndpointURL, q *Question) (Answer, *Failure) {
	tensors := q.Tensors != nil // ask may change them to a body
	answer, failure := s.ask(ctx, url, q)
	if failure != nil || answer.Stream == nil {
		return answer, failure
	}
	defer answer.Close()
	if err := collect(ctx, answer.Response, s.o.MaxAnswer); err != nil {
		return Answer{}, s.failed(ctx, answer.live, q.ID, answer.live.Timeout, err)
	}
	if tensors {
		toTensors(answer.Response)
	}
	return answer, nil
}

// ask answers one question of a client or of user code, and passes it to the taps.
func (s *Service) ask(ctx context.Context, url serving.EndpointURL, q *Question) (Answer, *Failure) {
	live, drawn, err := s.router.Choose(url)
	if err != nil {
		s.missed(url, router.Errors)
		return Answer{}, notAnswered(url, err)
	}
	kept, counted := false, false
	var resp *engine.Response
	defer func() { // also if an engine or a tap panics
		if !counted {
			live.Stats.Done(router.Errors, 0)
			if s.o.Recorder != nil {
				s.o.Recorder.Count(live.URL, drawn.Canary, router.Errors)
			}
			drawn.Arms.Done(live.URL, router.Errors, 0)
		}
		if kept {
			return
		}
		if resp != nil && resp.Stream != nil {
			_ = resp.Stream.Close() // it is not read
		}
		live.Release()
	}()
	tensors, begun := q.Tensors, time.Time{}
	if tensors != nil {
		begun = time.Now()
	}
	limit := live.Timeout
	if q.Within > 0 && (limit <= 0 || q.Within < limit) {
		limit = q.Within
	}
	var took time.Duration
	resp, took, err = s.count(ctx, live, drawn, &q.Request, limit)
	counted = true
	if err != nil {
		if other := fallbackOf(err); other != "" && q.Depth < serving.MaxCallDepth && !left(ctx) {
			s.o.Logger.Warn("fallback answers", "endpoint", live.URL, "fallback", other, "request_id", strings.Clone(q.ID), "err", err,
				"mark", recurring.Mark(fmt.Sprintf("fallback %s", live.URL)))
			q.Depth++ // endpoints that are each other's fallback end here
			if limit > 0 {
				q.Within = max(limit-took, 1)
			}
			return s.ask(ctx, other, q)
		}
		failure := s.failed(ctx, live, q.ID, limit, err)
		if !left(ctx) { // a disconnected client got no answer
			s.taps.seeFailure(url, live, &q.Request, failure, took)
		}
		return Answer{}, failure
	}
	s.taps.see(url, live, &q.Request, resp, took)
	if tensors != nil {
		toTensors(resp)
	}
	answer := Answer{Response: resp, Origin: live.Header}
	if tensors != nil && resp.Status < http.StatusBadRequest {
		live.Stats.Asked(begun, resp.Queued, q.Decoded, rowsOf(live.Model, tensors))
		answer.stats = live.Stats
	}
	if resp.Stream != nil {
		answer.live, kept = live, true
	}
	return answer, nil
}

// fallbackOf is the endpoint that answers instead of a model that failed with err, "" for none.
func fallbackOf(err error) serving.EndpointURL {
	if failed, ok := errors.AsType[*engine.Error](err); ok {
		return failed.Fallback
	}
	return ""
}

// left reports whether a request has ended because its client has disconnected, and not
// because of a deadline.
func left(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// limiter is a context, such as that of a front's request, that creates a context with a
// deadline without the cost of package context.
type limiter interface {
	WithTimeout(d time.Duration) (context.Context, context.CancelFunc)
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if own, ok := ctx.(limiter); ok {
		return own.WithTimeout(d)
	}
	return context.WithTimeout(ctx, d)
}

// infer asks the model, within limit or the remaining time of the calling request.
func (s *Service) infer(ctx context.Context, live *router.Live, req *engine.Request, limit time.Duration) (*engine.Response, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = withTimeout(ctx, limit)
		defer cancel()
	}
	if req.Tensors != nil {
		return inferTensors(ctx, live.Model, req)
	}
	return live.Model.Infer(ctx, req)
}

// count is infer for a client's request, with statistics. It returns the time that the answer took.
func (s *Service) count(ctx context.Context, live *router.Live, drawn router.Drawn, req *engine.Request, limit time.Duration) (*engine.Response, time.Duration, error) {
	share := 0.0
	if s.o.Recorder != nil {
		share = live.LogShare()
		req.Sampled = share >= 1 || (share > 0 && rand.Float64() < share) //nolint:gosec // a sample needs no secrecy
	}
	if req.Span != nil {
		outer := req.Span
		span := outer.Child("infer " + string(live.URL))
		span.Set("clearml.model_id", string(live.ModelID))
		req.Span = span
		defer func() { // a stream is computed after it
			req.Span = outer
			span.End()
		}()
	}
	begun := time.Now()
	answer, err := s.infer(ctx, live, req, limit)
	took := time.Since(begun)
	if err != nil && req.Span != nil {
		req.Span.Fail(err.Error())
	}
	if err != nil && left(ctx) {
		return nil, took, err // neither answered nor failed, so it is not counted
	}
	outcome := outcomeOf(answer, err)
	live.Stats.Done(outcome, took)
	if drawn.Arms != nil {
		waited := time.Duration(0)
		if err == nil {
			waited = answer.Queued
		}
		drawn.Arms.Done(live.URL, outcome, took-waited) // the arms have queues of different lengths
	}
	var late *serving.Sample
	if s.o.Recorder != nil {
		sample := sampleOf(live.URL, req, answer, err, took, share)
		sample.Canary, sample.Outcome = drawn.Canary, outcome
		if _, ok := streamOf(answer).(engine.LateStats); ok && sample.Sampled {
			late = &sample
		} else {
			s.o.Recorder.Record(sample)
		}
	}
	if err == nil && answer.Stream != nil {
		answer.Stream = &countedStream{Stream: answer.Stream, stats: live.Stats, recorder: s.o.Recorder, url: live.URL, drawn: drawn, outcome: outcome, late: late, begun: begun}
	}
	return answer, took, err
}

// sampleOf is the statistics sample of a request that reached a model.
func sampleOf(url serving.EndpointURL, req *engine.Request, answer *engine.Response, err error, took time.Duration, share float64) serving.Sample {
	s := serving.Sample{URL: url, Latency: took, RequestBytes: len(req.Body), AnswerBytes: -1, Trace: req.Span.TraceID()}
	if req.Tensors != nil {
		s.RequestBytes = -1
	}
	if err != nil {
		return s
	}
	s.Answered, s.Queued, s.Streamed = true, answer.Queued, answer.Stream != nil
	if answer.Stream == nil && answer.Tensors == nil {
		s.AnswerBytes = len(answer.Body)
	}
	if req.Sampled && answer.Status < http.StatusBadRequest {
		s.Sampled, s.Weight, s.Variables = true, 1/share, answer.Stats
	}
	return s
}

// outcomeOf is the outcome of a request that reached a model.
func outcomeOf(answer *engine.Response, err error) router.Outcome {
	switch {
	case err != nil:
		return kindOfError(err).outcome()
	case answer.Status < http.StatusBadRequest:
		return router.Answered
	case answer.Status >= http.StatusInternalServerError:
		return router.Errors
	case answer.Unread:
		return router.BadRequests
	}
	return router.ClientErrors
}

// countedStream counts the outcome of a stream at its end: an error, if it fails.
type countedStream struct {
	engine.Stream

	stats    *router.Stats // nil after the end of the stream
	recorder Recorder      // nil: it is not recorded
	url      serving.EndpointURL
	drawn    router.Drawn
	outcome  router.Outcome  // as it has begun
	late     *serving.Sample // recorded at the end of the stream, nil: it has been recorded
	begun    time.Time
	bytes    int
}

// Next implements engine.Stream.
func (s *countedStream) Next(ctx context.Context) ([]byte, error) {
	piece, err := s.Stream.Next(ctx)
	s.bytes += len(piece)
	if err == nil || s.stats == nil {
		return piece, err
	}
	whole := errors.Is(err, io.EOF)
	if !whole && !left(ctx) {
		s.stats.Broken()
		s.drawn.Arms.Broken(s.url)
		s.outcome = router.Errors
	}
	s.end(whole)
	return piece, err
}

// Close implements engine.Stream.
func (s *countedStream) Close() error {
	if s.stats != nil { // nobody has read the rest
		s.end(false)
	}
	return s.Stream.Close()
}

func (s *countedStream) end(whole bool) {
	s.stats = nil
	if s.recorder == nil {
		return
	}
	if stream, ok := s.Stream.(engine.LateStats); ok && s.late != nil {
		if s.late.Sampled = s.outcome != router.Errors; s.late.Sampled {
			s.late.Variables = stream.Stats()
		}
		s.recorder.Record(*s.late)
	}
	s.recorder.Count(s.url, s.drawn.Canary, s.outcome)
	if whole {
		s.recorder.RecordStream(s.url, s.bytes, time.Since(s.begun))
	}
}

// streamOf is the stream of an answer, nil for none.
func streamOf(answer *engine.Response) engine.Stream {
	if answer == nil {
		return nil
	}
	return answer.Stream
}

// collect converts a streamed answer to a whole one of at most limit bytes.
func collect(ctx context.Context, answer *engine.Response, limit int64) (err error) {
	answer.Body, err = engine.ReadAll(ctx, answer.Stream, limit)
	answer.Stream = nil
	return err
}

// notAnswered is the failure of a url without a model that can answer. The texts are the
// original's, if it has one.
func notAnswered(url serving.EndpointURL, err error) *Failure {
	notReady, ok := errors.AsType[*router.NotReadyError](err)
	switch {
	case !ok:
		return &Failure{Kind: KindUnknownEndpoint, Text: fmt.Sprintf("Error processing request, endpoint was not found: Model inference endpoint '%s' not found", url)}
	case notReady.Code != "":
		return &Failure{Kind: KindNotReady, Text: fmt.Sprintf(
			"Error [<class 'ValueError'>] processing request: Error: Failed loading preprocess code for '%s': %s", notReady.Code, notReady.Reason)}
	}
	f := &Failure{Kind: KindNotReady, Text: "Error processing request, " + notReady.Error()}
	if notReady.Loading {
		f.RetryAfter = time.Second
	}
	return f
}

// mostNamed bounds the urls that a failure names.
const mostNamed = 20

// nameVersions adds to the failure of an unknown url the urls of the same name that the client may
// ask.
func (s *Service) nameVersions(f *Failure, url serving.EndpointURL, opens func(serving.EndpointURL) bool) {
	if f.Kind != KindUnknownEndpoint {
		return
	}
	name, urls := s.router.Near(url)
	urls = slices.DeleteFunc(urls, func(u serving.EndpointURL) bool { return !opens(u) })
	if len(urls) == 0 {
		return
	}
	var names []string
	for _, u := range urls[:min(len(urls), mostNamed)] {
		names = append(names, "'"+string(u)+"'")
	}
	f.Text += fmt.Sprintf("; of '%s' there are: %s", name, strings.Join(names, ", "))
	if more := len(urls) - len(names); more > 0 {
		f.Text += fmt.Sprintf(" and %d more", more)
	}
}

// failed is the failure of a model that could not answer within limit. It is logged once,
// here.
func (s *Service) failed(ctx context.Context, live *router.Live, id string, limit time.Duration, err error) *Failure {
	engineErr, ok := errors.AsType[*engine.Error](err)
	if !ok {
		engineErr = &engine.Error{Kind: engine.KindInternal, Endpoint: live.URL, Text: "Error processing request", Err: err}
	}
	f := &Failure{Kind: kindOfError(err), Text: engineErr.Error(), RetryAfter: engineErr.RetryAfter, Origin: live.Header}
	if left(ctx) && f.Kind != KindDeadline {
		f.Kind = KindClientLeft
		s.o.Logger.Debug("client disconnected", "endpoint", live.URL, "request_id", id)
	} else {
		s.o.Logger.Warn("request failed", "endpoint", live.URL, "request_id", strings.Clone(id), "err", err, // it is kept to be summed up
			"mark", recurring.Mark(fmt.Sprintf("request failed %s %d", live.URL, f.Kind)))
	}
	if f.Kind == KindDeadline && limit > 0 {
		f.Text += fmt.Sprintf(" (its limit is %s)", limit)
	}
	if engineErr.Kind == engine.KindOverloaded && f.RetryAfter <= 0 {
		f.RetryAfter = time.Second
	}
	return f
}
