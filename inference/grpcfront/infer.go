package grpcfront

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

const inferMethod = "/" + inferenceService + "/ModelInfer"

// infer answers ModelInfer.
func (f *Front) infer(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) {
	r, _ := requests.Get().(*request)
	defer func() {
		if p := recover(); p != nil { // r may be in use: it is not returned to the pool
			reply, err = nil, f.panicked(inferMethod, p)
			return
		}
		r.release()
		requests.Put(r)
	}()
	if err := receive(r); err != nil {
		return nil, f.unread(err)
	}
	answer, failure := f.ask(ctx, r, f.core.AskTensors)
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	resp, failed := f.reply(r, &answer)
	if failed != nil {
		return nil, failed.Err()
	}
	return &encoded{resp.marshal(r.holds)}, nil
}

// asker is Ask of the core, or AskTensors.
type asker func(ctx context.Context, t inference.Ticket, q *inference.Question) (inference.Answer, *inference.Failure)

// ask asks for the answer to one request.
func (f *Front) ask(ctx context.Context, r *request, ask asker) (inference.Answer, *inference.Failure) {
	head := f.head(ctx, r.ID)
	head.Endpoint = f.core.Named(r.model, r.version)
	ticket, failure := f.core.Admit(head)
	if failure != nil {
		return inference.Answer{}, failure
	}
	if r.broken != nil {
		kind := inference.KindOf(r.broken)
		f.core.Reject(ticket, kind)
		return inference.Answer{}, &inference.Failure{Kind: kind, Text: r.broken.Error()}
	}
	q := &r.question
	q.Request = engine.Request{
		ID: f.requestID(ctx, r.ID), Tensors: r.Inputs, TensorsAs: r.ContentType, Parameters: r.Parameters, Outputs: r.Names(), Client: f.client(ctx),
	}
	q.Within = r.Timeout
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
	return &response{model: r.model, version: f.version(r, answer), id: r.ID, contentType: answer.TensorsAs, outputs: outputs, typed: r.typed}, nil
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

// holds reports whether data lies in the message of the request.
func (r *request) holds(data []byte) bool {
	if r.message == nil || len(data) == 0 {
		return false
	}
	whole := r.message.ReadOnlyData()
	if len(whole) == 0 {
		return false
	}
	begin, at := uintptr(unsafe.Pointer(unsafe.SliceData(whole))), uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	return at >= begin && at < begin+uintptr(len(whole))
}

// maxRequestID bounds the length of clients' ids that are kept.
const maxRequestID = 128

// requestID keeps the client's id if it can be logged, else makes one: unique, not secret.
func (f *Front) requestID(ctx context.Context, given string) string {
	if given == "" {
		given = first(ctx, "x-request-id")
	}
	if given != "" && len(given) <= maxRequestID && printable(given) {
		return given
	}
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
