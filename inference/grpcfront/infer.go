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

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/v2"
	"clearmlserving/serving"
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
	resp, failed := f.answer(ctx, r)
	if failed != nil {
		return nil, failed
	}
	return &encoded{resp.marshal(r.holds)}, nil
}

// endpointOf is the endpoint of a model by its name and version.
func endpointOf(name, version string) serving.EndpointURL {
	if version == "" {
		return serving.CleanURL(name)
	}
	return serving.JoinURL(name, version)
}

// answer asks for the answer to one request. The error has a status.
func (f *Front) answer(ctx context.Context, r *request) (*response, error) {
	head := f.head(ctx, r.ID)
	head.Endpoint = endpointOf(r.model, r.version)
	ticket, failure := f.core.Admit(head)
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	if r.broken != nil {
		refused := f.refusal(r.broken)
		f.core.Reject(ticket, refused.Kind)
		return nil, f.fail(ctx, refused)
	}
	q := &r.question
	q.Request = engine.Request{ID: f.requestID(ctx, r.ID), Tensors: r.Inputs, TensorsAs: r.ContentType, Outputs: r.Names(), Client: f.client(ctx)}
	q.Within = 0
	if deadline, ok := ctx.Deadline(); ok {
		q.Within = max(time.Until(deadline), 1)
	}
	answer, failure := f.core.AskWhole(ctx, ticket, q)
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	if answer.Status >= http.StatusBadRequest {
		return nil, answerStatus(answer).Err()
	}
	outputs, err := r.Select(answer.Tensors)
	if err != nil {
		return nil, statusOf(f.refusal(err)).Err()
	}
	for i := range outputs {
		if err := v2.CheckData(&outputs[i]); err != nil {
			return nil, statusOf(&inference.Failure{Kind: inference.KindInternal, Text: "Error processing request: the model's output '" + outputs[i].Name + "': " + err.Error()}).Err()
		}
	}
	return &response{model: r.model, version: r.version, id: r.ID, contentType: answer.TensorsAs, outputs: outputs, typed: r.typed}, nil
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
