package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// errSpent says that a Prepared was continued or dropped before.
var errSpent = errors.New("the prepared request was continued or dropped before")

// Prepared is a request whose preprocess is done. Its worker keeps the request's state
// until Post or Drop and executes other requests meanwhile.
type Prepared struct {
	// Data is what preprocess returned.
	Data Value
	// Queued is how long the request waited before it was sent to the worker.
	Queued time.Duration

	w       *worker
	id      uint64 // of the kindPre at w
	tensors bool   // the request had tensors
	req     Request
	stop    func() bool // of the Drop at the end of Pre's context
	spent   bool        // guarded by dispatch.mu
}

// Pre executes the preprocess of a request, for an engine whose computation runs
// elsewhere, perhaps together with that of other requests. Either the Response is the
// answer, because preprocess failed, or the caller ends Prepared by Post or Drop; the end
// of ctx drops it too. Errors are those of Do.
func (g *Group) Pre(ctx context.Context, req *Request) (*Prepared, *Response, error) {
	if err := g.keepsMore(); err != nil {
		return nil, nil, err
	}
	r, err := g.dispatch.Do(ctx, req, kindPre, nil)
	return prepared(ctx, req, r, err)
}

// PreTensors is Pre with tensors instead of the request's body. The answer of Post is then
// that of DoTensors.
func (g *Group) PreTensors(ctx context.Context, req *Request, in *Value) (*Prepared, *Response, error) {
	if err := g.keepsMore(); err != nil {
		return nil, nil, err
	}
	r, err := g.ask(ctx, req, in, kindPreTensors)
	if err == nil && r.prepared != nil {
		r.prepared.tensors = true
	}
	return prepared(ctx, req, r, err)
}

// keepsMore returns an error if the state of too many requests is kept.
func (g *Group) keepsMore() error {
	d := g.dispatch
	d.mu.Lock()
	held := d.prepared
	d.mu.Unlock()
	if held >= d.maxQueue {
		return fmt.Errorf("endpoint %q: the state of %d requests is kept already: %w", d.endpoint, held, ErrOverloaded)
	}
	return nil
}

// prepared completes the Prepared of an answer.
func prepared(ctx context.Context, req *Request, r *Response, err error) (*Prepared, *Response, error) {
	if err != nil || r.prepared == nil {
		return nil, r, err
	}
	p := r.prepared
	p.Queued = r.Queued
	p.req = Request{ID: req.ID, Depth: req.Depth, Traceparent: req.Traceparent, Spans: req.Spans}
	p.stop = context.AfterFunc(ctx, p.Drop)
	if p.Data, err = parseValue(r.ContentType, r.Body); err != nil {
		p.Drop()
		return nil, nil, err
	}
	return p, nil, nil
}

// Post executes the postprocess of a request on what was computed. Errors are those of
// Do; a *DiedError also says that the worker died with the request's state.
func (p *Prepared) Post(ctx context.Context, data Value) (*Response, error) {
	p.stop()
	p.req.ContentType, p.req.Body = data.encode(binary.LittleEndian.AppendUint64(nil, p.id))
	r, err := p.w.d.Do(ctx, &p.req, kindPost, p)
	if err != nil {
		p.Drop() // unless it was sent
		return nil, err
	}
	if p.tensors {
		err = r.takeTensors()
	}
	return r, err
}

// Piece executes the postprocess of a request on a part of what was computed. The worker keeps the
// request's state for the next part: the caller ends p by Post or Drop. Its errors are those of Post.
func (p *Prepared) Piece(ctx context.Context, data Value) (*Response, error) {
	req := p.req
	req.ContentType, req.Body = data.encode(binary.LittleEndian.AppendUint64(nil, p.id))
	return p.w.d.Do(ctx, &req, kindPiece, p)
}

// Send hands f, the rest of p, to p's worker.
func (p *Prepared) Send(ctx context.Context, f *flight) error {
	f.prepared = p.id
	d := p.w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case p.w.state == dead:
		return &DiedError{Endpoint: d.endpoint, Death: p.w.death}
	case p.spent && ctx.Err() != nil:
		return d.contextError(ctx)
	case p.spent:
		return errSpent
	}
	d.pending++ // before p's own place is given up: Close must not see 0
	if f.kind != kindPiece {
		p.spend()
	}
	d.send(p.w, f)
	return nil
}

// Drop has the worker forget the request's state. It may be called at any time.
func (p *Prepared) Drop() {
	d := p.w.d
	d.mu.Lock()
	if p.spent {
		d.mu.Unlock()
		return
	}
	p.spend()
	p.w.dropState(p.id)
	d.mu.Unlock()
	p.w.out.flush()
}

// spend ends p.
func (p *Prepared) spend() {
	p.spent = true
	delete(p.w.prepared, p.id)
	p.w.d.prepared--
	p.w.d.finishFlight()
}

// keepState updates the states that the worker keeps after the answer to a kindPre or
// kindPost.
func (w *worker) keepState(f *flight, fr *frame, meta *answerHead) {
	cancelled := fr.flags&flagCancelled != 0
	switch {
	case f.kind == kindPiece: // p is still there
	case f.kind == kindPost:
		if cancelled { // it may not have begun
			w.dropState(f.prepared)
		}
	case cancelled || len(meta.errorKind) > 0: // no state is kept
	case f.state == abandoned:
		w.dropState(fr.id)
	default:
		if w.prepared == nil {
			w.prepared = make(map[uint64]*Prepared)
		}
		w.prepared[fr.id] = &Prepared{w: w, id: fr.id}
		w.d.pending++ // until it is spent
		w.d.prepared++
	}
}

// dropState has the worker forget a state.
func (w *worker) dropState(id uint64) {
	w.post(header{kind: kindDrop, id: id}, nil)
}
