package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// errSpent says that a Prepared was continued or dropped before.
var errSpent = errors.New("the prepared request was continued or dropped before")

// Prepared is a request whose preprocess is done. Its worker keeps the request's state
// until Post or Drop and executes other requests meanwhile.
type Prepared struct {
	// Data is what preprocess returned.
	Data Value

	w     *worker
	id    uint64 // of the kindPre at w
	req   Request
	stop  func() bool // of the Drop at the end of Pre's context
	spent bool        // guarded by Group.mu
}

// Pre executes the preprocess of a request, for an engine whose computation runs
// elsewhere. Either the Response is the answer, because preprocess failed, or the caller
// ends Prepared by Post or Drop; the end of ctx drops it too. Errors are those of Do.
func (g *Group) Pre(ctx context.Context, req *Request) (*Prepared, *Response, error) {
	if g.spec.Batch.On() {
		return nil, nil, fmt.Errorf("endpoint %q: requests that are batched here cannot be computed elsewhere", g.spec.Endpoint)
	}
	g.mu.Lock()
	held := g.prepared
	g.mu.Unlock()
	if held >= g.spec.Limits.MaxQueue {
		return nil, nil, fmt.Errorf("endpoint %q: the state of %d requests is kept already: %w", g.spec.Endpoint, held, ErrOverloaded)
	}
	r, err := g.do(ctx, req, kindPre)
	if err != nil || r.prepared == nil {
		return nil, r, err
	}
	p := r.prepared
	p.req = Request{ID: req.ID, Depth: req.Depth}
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
	g := p.w.g
	p.stop()
	p.req.ContentType, p.req.Body = data.encode(binary.LittleEndian.AppendUint64(nil, p.id))
	if size := len(p.req.Body) + requestHeadSize(p.req.ContentType, p.req.ID); size > g.o.maxFrame {
		p.Drop()
		return nil, fmt.Errorf("endpoint %q: %d bytes: %w (%d)", g.spec.Endpoint, size, ErrTooLarge, g.o.maxFrame)
	}
	deadline, _ := ctx.Deadline()
	f := g.flights.take(&p.req, deadline, kindPost)
	f.prepared = p.id
	if err := p.send(ctx, f); err != nil {
		g.flights.give(f)
		return nil, err
	}
	p.w.out.flush()
	return g.wait(ctx, f)
}

// send hands f, the rest of p, to p's worker.
func (p *Prepared) send(ctx context.Context, f *flight) error {
	g := p.w.g
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.w.state == dead:
		return &DiedError{Endpoint: g.spec.Endpoint, Death: p.w.death}
	case p.spent && ctx.Err() != nil:
		return g.contextError(ctx)
	case p.spent:
		return errSpent
	}
	g.pending++ // before p's own place is given up: Close must not see 0
	p.spend()
	g.send(p.w, f)
	return nil
}

// Drop has the worker forget the request's state. It may be called at any time.
func (p *Prepared) Drop() {
	g := p.w.g
	g.mu.Lock()
	if p.spent {
		g.mu.Unlock()
		return
	}
	p.spend()
	p.w.dropState(p.id)
	g.mu.Unlock()
	p.w.out.flush()
}

// spend ends p. g.mu is held.
func (p *Prepared) spend() {
	p.spent = true
	delete(p.w.prepared, p.id)
	p.w.g.prepared--
	p.w.g.finishFlight()
}

// keepState notes what the answer to a kindPre or kindPost means for the state that
// the worker keeps. g.mu is held.
func (w *worker) keepState(f *flight, fr *frame, meta *answerHead) {
	cancelled := fr.flags&flagCancelled != 0
	switch {
	case f.kind == kindPost:
		if cancelled { // perhaps it has not begun
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
		w.g.pending++ // until it is spent
		w.g.prepared++
	}
}

// dropState has the worker forget a state. g.mu is held; the caller flushes.
func (w *worker) dropState(id uint64) {
	w.out.add(appendHeader(make([]byte, 0, headerSize), header{kind: kindDrop, id: id}), nil, nil)
}

// dropPrepared ends all that a dead worker kept. g.mu is held.
func (w *worker) dropPrepared() {
	for _, p := range w.prepared {
		p.spend()
	}
}
