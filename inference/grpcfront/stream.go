package grpcfront

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

const streamMethod = "/" + inferenceService + "/ModelStreamInfer"

// errorsEnd is the metadata of clients that want an error to end the stream, with its code.
const errorsEnd = "triton_grpc_error"

// streamInfer answers ModelStreamInfer: the requests of a stream one after the other, each with one
// message, or with one for each piece of a streamed answer.
func (f *Front) streamInfer(_ any, s grpc.ServerStream) (err error) {
	if err := f.enter(s.Context()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	out := &outgoing{front: f, stream: s}
	defer out.end()
	var current *request // that is being answered
	defer func() {
		if p := recover(); p != nil {
			if current != nil {
				current.abandon()
			}
			err = f.panicked(streamMethod, p)
		}
	}()
	endsWithErrors := first(ctx, errorsEnd) == "true"
	refused := f.refusals(ctx)
	for next := f.requests(ctx, s); ; {
		var got received
		select {
		case got = <-next:
		case <-refused:
			return f.fail(ctx, errTooMany)
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-f.stopping:
			return status.Error(codes.Unavailable, "the instance is stopping")
		}
		if errors.Is(got.err, io.EOF) {
			return nil
		}
		if got.err != nil {
			return got.err // the client has been told
		}
		current = got.request
		failed, sent := f.answerOn(ctx, out, got.request)
		if sent == nil && failed != nil {
			if endsWithErrors {
				sent = failed.Err()
			} else {
				r := got.request
				resp := &response{model: r.model, version: r.version, id: r.ID, stream: true, final: true, failed: failed.Message()}
				sent = out.send(&encoded{resp.marshal(r.holds, f.watched(ctx))})
			}
		}
		current = nil
		got.request.giveBack()
		if sent != nil {
			return sent
		}
	}
}

// received is a request of a stream, or the end of the stream.
type received struct {
	request *request
	err     error
}

// requests reads the requests of a stream until it ends, or ctx. A request is read while the one before
// is answered, so that the end of the stream is seen.
func (f *Front) requests(ctx context.Context, s grpc.ServerStream) <-chan received {
	next := make(chan received)
	go func() { // ends with ctx, which ends with the handler
		for {
			r, _ := requests.Get().(*request)
			err := f.read(s.RecvMsg, r)
			if err != nil {
				r.abandon() // it may have been read in part
			}
			select {
			case next <- received{r, err}:
			case <-ctx.Done():
				if err == nil {
					r.release()
				}
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return next
}

// answerOn answers one request of a stream. failed is why the request has no answer; err ends the
// stream.
func (f *Front) answerOn(ctx context.Context, out *outgoing, r *request) (failed *status.Status, err error) {
	span := f.span(ctx, streamMethod, r)
	defer func() { // of a failure that the stream survives too
		told := err
		if told == nil && failed != nil {
			told = failed.Err()
		}
		endSpan(span, &told)
	}()
	r.question.Span, r.question.Streams = span, true
	answer, failure := f.ask(ctx, r, f.core.Ask)
	if failure != nil {
		return statusOf(failure), nil
	}
	defer answer.Close()
	if answer.Stream == nil {
		begun := time.Now()
		resp, failed := f.reply(r, &answer)
		if failed != nil {
			return failed, nil
		}
		resp.stream, resp.final = true, true
		m := &encoded{resp.marshal(r.holds, f.watched(ctx))}
		answer.Encoded(time.Since(begun))
		return nil, out.send(m)
	}
	resp := &response{model: r.model, version: f.version(r, &answer), id: r.ID, stream: true}
	for {
		piece, err := answer.Stream.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			failure := &inference.Failure{Kind: inference.KindOf(err), Text: "Error processing request: the answer has ended early: " + err.Error()}
			if ctx.Err() != nil {
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			return statusOf(failure), nil
		}
		resp.outputs = []engine.Tensor{v2.FreeAnswer(piece)}
		borrowed := r.holds
		if answer.PieceTensors != nil {
			borrowed = func([]byte) bool { return true } // the next piece may use its memory
			if resp.outputs, err = answer.PieceTensors(piece); err != nil {
				return status.New(codes.Internal, "Error processing request: "+err.Error()), nil
			}
		}
		if err := out.send(&encoded{resp.marshal(borrowed, f.watched(ctx))}); err != nil {
			return nil, err
		}
	}
	if r.emptyFinal {
		resp.outputs, resp.final = nil, true
		return nil, out.send(&encoded{resp.marshal(r.holds, f.watched(ctx))})
	}
	return nil, nil //nolint:nilnil // documented: it is answered
}

// outgoing is the direction of a stream to its client.
type outgoing struct {
	front  *Front
	stream grpc.ServerStream
	slow   *time.Timer
}

// send sends one message. A client that reads nothing is cut.
func (o *outgoing) send(m *encoded) error {
	if o.slow == nil {
		o.slow = time.AfterFunc(o.front.patience, func() { o.front.cut(o.stream.Context()) })
	} else {
		o.slow.Reset(o.front.patience)
	}
	defer o.slow.Stop()
	return o.stream.SendMsg(m)
}

func (o *outgoing) end() {
	if o.slow != nil {
		o.slow.Stop()
	}
}
