package grpcfront

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/tracing"
)

const inferMethod = "/" + inferenceService + "/ModelInfer"

// infer answers ModelInfer.
func (f *Front) infer(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) {
	if err := f.enter(ctx); err != nil {
		return nil, err
	}
	r, _ := requests.Get().(*request)
	if err := f.receive(ctx, receive, r, r.giveBack); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil { // r may be in use: it is not returned to the pool
			r.abandon()
			reply, err = nil, f.panicked(inferMethod, p)
			return
		}
		r.giveBack()
	}()
	span := f.span(ctx, inferMethod, r)
	defer endSpan(span, &err)
	r.question.Span = span
	answer, failure := f.ask(ctx, r, f.core.AskTensors)
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	f.tell(ctx, &answer)
	begun := time.Now()
	resp, failed := f.reply(r, &answer)
	if failed != nil {
		return nil, failed.Err()
	}
	m := &encoded{resp.marshal(r.holds, f.watched(ctx))}
	answer.Encoded(time.Since(begun))
	return m, nil
}

// asker is Ask of the core, or AskTensors.
type asker func(ctx context.Context, t inference.Ticket, q *inference.Question) (inference.Answer, *inference.Failure)

// admit reads a large message, once it is known that its endpoint may be asked, and returns the ticket.
func (f *Front) admit(ctx context.Context, r *request) (inference.Ticket, *inference.Failure) {
	head := f.head(ctx, r.ID)
	if r.pieces == nil {
		head.Endpoint = f.core.Named(r.model, r.version)
		return f.core.Admit(head)
	}
	model, version := nameIn(r.pieces[0].ReadOnlyData())
	var ticket inference.Ticket
	var loan engine.Loan
	if model != "" {
		head.Endpoint = f.core.Named(model, version)
		var failure *inference.Failure
		if ticket, failure = f.core.Admit(head); failure != nil {
			return ticket, failure
		}
		loan = f.core.Lend(ticket, int(r.size))
	}
	r.join(loan)
	if r.model == model && r.version == version && model != "" {
		return ticket, nil
	}
	head.Endpoint = f.core.Named(r.model, r.version) // it came later in the message
	return f.core.Admit(head)
}

// ask asks for the answer to one request.
func (f *Front) ask(ctx context.Context, r *request, ask asker) (inference.Answer, *inference.Failure) {
	ticket, failure := f.admit(ctx, r)
	if failure != nil && (r.broken == nil || failure.Kind != inference.KindUnknownEndpoint) { // the name may be broken too
		return inference.Answer{}, failure
	}
	if r.broken != nil {
		kind := inference.KindOf(r.broken)
		f.core.Reject(ticket, kind)
		return inference.Answer{}, &inference.Failure{Kind: kind, Text: r.broken.Error()}
	}
	if r.ID = cmp.Or(r.ID, first(ctx, "x-request-id")); r.ID == "" {
		r.ID = makeRequestID()
	}
	q := &r.question
	q.Request = engine.Request{
		ID: loggable(r.ID), Tensors: r.Inputs, TensorsAs: r.ContentType, Parameters: r.Parameters, Outputs: r.Names(), Client: f.client(ctx), Loan: r.loan, Span: q.Span, Streams: q.Streams,
	}
	q.Within, q.Decoded = r.Timeout, r.took
	if deadline, ok := ctx.Deadline(); ok {
		if left := max(time.Until(deadline), 1); q.Within <= 0 || left < q.Within {
			q.Within = left
		}
	}
	return ask(ctx, ticket, q)
}

// reply is a model's answer in the protocol's form.
func (f *Front) reply(r *request, answer *inference.Answer) (*response, *status.Status) {
	if answer.Status >= http.StatusBadRequest {
		return nil, answerStatus(answer.Response)
	}
	outputs, err := r.Select(answer.Tensors)
	if err != nil {
		return nil, statusOf(&inference.Failure{Kind: inference.KindOf(err), Text: err.Error()})
	}
	for i := range outputs {
		if err := v2.CheckData(&outputs[i]); err != nil {
			return nil, statusOf(&inference.Failure{Kind: inference.KindInternal, Text: "Error processing request: the model's output '" + outputs[i].Name + "': " + err.Error()})
		}
	}
	return &response{model: r.model, version: f.version(r, answer), id: r.ID, contentType: answer.TensorsAs, outputs: outputs}, nil
}

// version is the version of the model that has answered.
func (f *Front) version(r *request, answer *inference.Answer) string {
	return inference.VersionOf(r.model, r.version, answer.Origin)
}

// fail is a failure's status, with what else the client is told in the metadata after the answer.
func (f *Front) fail(ctx context.Context, failure *inference.Failure) error {
	var more []string
	if failure.RetryAfter > 0 {
		more = append(more, "retry-after", strconv.Itoa(max(1, int(failure.RetryAfter.Round(time.Second)/time.Second))),
			"grpc-retry-pushback-ms", strconv.FormatInt(failure.RetryAfter.Milliseconds(), 10))
	}
	if failure.Challenge != "" {
		more = append(more, "www-authenticate", failure.Challenge)
	}
	if more != nil {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(more...)) // fails if the client has gone
	}
	return statusOf(failure).Err()
}

// tell sends the fields of an answer as metadata: who has answered, and those of user code that gRPC can
// carry.
func (f *Front) tell(ctx context.Context, answer *inference.Answer) {
	fields := make(metadata.MD, len(answer.Origin)+len(answer.Header))
	for _, list := range [2][]engine.Header{answer.Origin, answer.Header} {
		for _, h := range list {
			if name := strings.ToLower(h.Name); metadataName(name) && printableText(h.Value) {
				fields[name] = append(fields[name], h.Value)
			}
		}
	}
	if len(fields) > 0 {
		_ = grpc.SetHeader(ctx, fields) // fails if the client has gone
	}
}

// metadataName reports whether user code may set a field: not one of HTTP/2 or gRPC.
func metadataName(name string) bool {
	if name == "" || strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin") {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	switch name {
	case "content-type", "content-length", "content-encoding", "te", "trailer", "connection", "keep-alive", "transfer-encoding", "upgrade", "host", "user-agent":
		return false
	}
	return true
}

func printableText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// span begins the span of a request, nil if requests are not traced.
func (f *Front) span(ctx context.Context, method string, r *request) *tracing.Span {
	if f.o.Tracer == nil {
		return nil
	}
	span := f.o.Tracer.Start(method[1:], tracing.Server, first(ctx, "traceparent"), first(ctx, "tracestate"))
	if span.Sampled() {
		span.Set("rpc.system", "grpc")
		span.Set("clearml.model", r.model)
		span.Set("clearml.request_id", r.ID)
	}
	return span
}

// endSpan ends a span with the status of err, which is read then.
func endSpan(span *tracing.Span, err *error) {
	if span == nil {
		return
	}
	code := status.Code(*err)
	span.Set("rpc.grpc.status_code", int(code))
	if code == codes.Internal || code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Unknown {
		span.Fail(code.String())
	}
	span.End()
}

// holds reports whether data lies in the message of the request.
func (r *request) holds(data []byte) bool {
	if len(data) == 0 || len(r.whole) == 0 {
		return false
	}
	begin, at := uintptr(unsafe.Pointer(unsafe.SliceData(r.whole))), uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	return at >= begin && at < begin+uintptr(len(r.whole))
}

// maxRequestID bounds the length of clients' ids that are kept.
const maxRequestID = 128

// loggable is the client's id if it can be logged, else another.
func loggable(id string) string {
	if len(id) <= maxRequestID && printable(id) {
		return id
	}
	return makeRequestID()
}

// makeRequestID makes an id: unique, not secret.
func makeRequestID() string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], rand.Uint64()) //nolint:gosec // see above
	return hex.EncodeToString(b[:])
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
