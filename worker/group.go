package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Group is the workers of one endpoint. Its methods may be called from any goroutine.
//
// seats starts processes and decides how many there are. It gives those that have loaded to
// dispatch, which gives them requests. link is the connection with one process. Locks are
// taken in the order template.mu, seats.mu, dispatch.mu.
type Group struct {
	pool     *Pool
	endpoint string
	arena    arena
	all      sync.WaitGroup // every goroutine of the group
	dispatch *dispatch
	seats    *seats
}

func newGroup(ctx context.Context, p *Pool, spec Spec) *Group {
	g := &Group{pool: p, endpoint: spec.Endpoint}
	g.seats = newSeats(ctx, p, spec, &g.arena, &g.all)
	g.dispatch = g.seats.d
	return g
}

// ShowsClient reports whether the endpoint's code wants to see Request.Client.
func (g *Group) ShowsClient() bool { return g.seats.showsClient.Load() }

// HasModel reports whether a model was loaded: by the engine, or by the method load of the code.
func (g *Group) HasModel() bool {
	g.seats.mu.Lock()
	defer g.seats.mu.Unlock()
	return g.seats.hasModel
}

// HasMethod reports whether the code has preprocess, process or postprocess.
func (g *Group) HasMethod(name string) bool {
	g.seats.mu.Lock()
	defer g.seats.mu.Unlock()
	return slices.Contains(g.seats.methods, name)
}

// Signature is what the first worker has reported of the endpoint's inputs and outputs, as JSON, nil for
// nothing.
func (g *Group) Signature() json.RawMessage {
	g.seats.mu.Lock()
	defer g.seats.mu.Unlock()
	return g.seats.signature
}

// Do has one request answered. Errors: ErrDeadline or ctx's own, ErrOverloaded,
// ErrTooLarge, ErrClosed, *DiedError, *UnavailableError. A user's error is a
// Response. The caller may reuse the request's body once Do has returned, and
// must close the response's Stream if there is one.
func (g *Group) Do(ctx context.Context, req *Request) (*Response, error) {
	return g.dispatch.Do(ctx, req, kindRequest, nil)
}

// DoTensors is Do with tensors instead of the request's body. The answer is in the
// Response's Tensors, unless its status is an error: then it has a body. Data that lies in the
// request's Loan is not copied here.
func (g *Group) DoTensors(ctx context.Context, req *Request, in *Value) (*Response, error) {
	r, err := g.ask(ctx, req, in, kindTensors)
	if err != nil {
		return nil, err
	}
	return r, r.takeTensors()
}

// LendFrom is the size of tensors from which they are copied to the memory that is shared with
// the workers, instead of being sent through a socket.
const LendFrom = 256 << 10

// ask is Do with tensors.
func (g *Group) ask(ctx context.Context, req *Request, in *Value, kind frameKind) (*Response, error) {
	if err := in.Check(); err != nil {
		return nil, fmt.Errorf("endpoint %q: %w: %w", g.endpoint, ErrTooLarge, err)
	}
	own := *req
	own.ContentType, own.Body = "", nil
	if own.Loan != nil && (own.Loan.a != &g.arena || !in.liesIn(own.Loan)) {
		own.Loan = nil
	}
	if size := in.dataSize(); own.Loan == nil && size >= LendFrom {
		if own.Loan = g.Lend(size); own.Loan != nil {
			defer own.Loan.Release()
			in = in.copyTo(own.Loan)
		}
	}
	if own.Loan != nil {
		own.Body = in.encodeLent(own.Loan)
	} else {
		_, own.Body = in.encode(nil)
	}
	return g.dispatch.Do(ctx, &own, kind, nil)
}

// Lend returns memory for a body of that many bytes, which Do then needs not send
// through a socket, nil if there is none. The caller releases it.
func (g *Group) Lend(size int) *Loan { return g.arena.lend(size) }

// SetVariables replaces the names of the statistics variables. Nothing is loaded
// again: the workers there are take them with the next request.
func (g *Group) SetVariables(names []string) error { return g.seats.SetVariables(names) }

// start loads the first worker; others follow in the background.
func (g *Group) start(ctx context.Context) error {
	err := g.seats.start(ctx)
	if err != nil {
		_ = g.Close(ctx) // nothing is under way that could be cut off
	}
	return err
}

// look is called ten times a second: it makes more or fewer workers, and replaces them. It
// returns the workers that the Pool then inspects.
func (g *Group) look(now time.Time) []*worker {
	wanted := g.dispatch.Look(now)
	if !g.seats.look(now, wanted) {
		return nil
	}
	g.arena.trim(now)
	return g.dispatch.Workers()
}

// Close stops the group: no new requests, those under way are finished as long as
// ctx allows, then the workers unload and end. When it returns no process and no
// goroutine of the group is left. The error says that something had to be cut off.
// It may be called more than once.
func (g *Group) Close(ctx context.Context) error {
	if first := g.dispatch.Stop(); !first {
		g.all.Wait()
		return nil
	}
	g.seats.Stop()
	var cut error
	select {
	case <-g.dispatch.drained:
	case <-ctx.Done():
		cut = fmt.Errorf("close endpoint %q: requests were cut off: %w", g.endpoint, context.Cause(ctx))
	}
	var ends sync.WaitGroup
	for _, w := range g.dispatch.Workers() {
		ends.Go(func() { w.stop(ctx) })
	}
	ends.Wait()
	g.seats.template.close()
	g.all.Wait()
	g.arena.close()
	g.dispatch.End()
	g.pool.forget(g)
	return cut
}
