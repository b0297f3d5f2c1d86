package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"clearmlserving/serving"
)

// openCall is a send_request of user code that is not answered yet.
type openCall struct {
	parent uint64
	cancel context.CancelFunc
}

// Called starts to answer a send_request of user code.
func (w *worker) Called(ctx context.Context, fr *frame) error {
	head, err := parseCallHead(fr.meta)
	if err != nil {
		return err
	}
	d := w.d
	body := fr.body
	if !fr.owned {
		body = append([]byte(nil), body...)
	}
	c := CallRequest{From: d.endpoint, Depth: 1, URL: head.url, Version: head.version, Body: body, ContentType: head.contentType}
	id := fr.id

	d.mu.Lock()
	if len(w.calls) >= maxCalls {
		d.mu.Unlock()
		w.answerCall(id, refusedCall(503, fmt.Sprintf("%d calls of this worker are not answered yet", maxCalls)))
		return nil
	}
	if w.calls[id] != nil {
		d.mu.Unlock()
		return fmt.Errorf("%w: call %d twice", errFrame, id)
	}
	deadline := time.Time{}
	if parent := w.flights[head.parent]; parent != nil {
		c.Depth, c.RequestID, deadline = parent.req.Depth+1, strings.Clone(parent.req.ID), parent.deadline
		c.Traceparent = cmp.Or(head.traceparent, parent.req.Traceparent)
	}
	var cancel context.CancelFunc
	if deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, deadline)
	}
	w.calls[id] = &openCall{parent: head.parent, cancel: cancel}
	d.mu.Unlock()

	w.background(func() {
		defer cancel()
		response := w.call(ctx, c)
		d.mu.Lock()
		delete(w.calls, id)
		d.mu.Unlock()
		w.answerCall(id, response)
	})
	return nil
}

// call calls the Caller; each failure becomes an answer.
func (w *worker) call(ctx context.Context, c CallRequest) CallResponse {
	if w.o.Caller == nil {
		return refusedCall(501, "this service does not answer send_request")
	}
	response, err := w.o.Caller.Call(ctx, c)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refusedCall(504, "the deadline of the request that calls has passed")
	case err != nil:
		return refusedCall(500, err.Error())
	case len(response.Body)+len(response.ContentType) > w.o.maxFrame:
		return refusedCall(500, fmt.Sprintf("the answer has %d bytes, more than the limit of %d", len(response.Body), w.o.maxFrame))
	}
	return response
}

func (w *worker) answerCall(id uint64, r CallResponse) {
	h := header{
		kind: kindCallAnswer, id: id, code: uint16(r.Status),
		head: uint32(len(r.ContentType)), length: uint32(len(r.ContentType) + len(r.Body)),
	}
	w.out.add(append(appendHeader(make([]byte, 0, headerSize+len(r.ContentType)), h), r.ContentType...), r.Body, nil)
	w.out.flush()
}

func refusedCall(status int, text string) CallResponse {
	return CallResponse{Status: status, ContentType: "application/json", Body: serving.Detail(text)}
}
