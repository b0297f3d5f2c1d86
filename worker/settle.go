package worker

import (
	"fmt"
	"slices"
)

// settle decides about each request of a worker that has died. g.mu is held.
func (w *worker) settle() {
	g := w.g
	var again []*flight
	for id, f := range w.flights {
		begun := w.marks.begun(id, f.nested)
		switch {
		case f.state == streaming:
			f.stream.end(&DiedError{Endpoint: g.spec.Endpoint, Death: w.death})
			g.finishFlight()
		case f.state == abandoned:
			g.lose(begun)
			g.deliver(f, nil, nil)
		case begun, f.kind == kindPost: // the state is lost with the process
			g.lose(begun)
			g.deliver(f, nil, &DiedError{Endpoint: g.spec.Endpoint, Death: w.death})
		case g.closed:
			g.deliver(f, nil, fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, ErrClosed))
		default:
			again = append(again, f)
		}
	}
	w.flights = nil
	if g.batch != nil {
		delete(g.batch.limits, w)
	}
	if len(again) == 0 {
		return
	}
	slices.SortFunc(again, func(a, b *flight) int { return int(a.id) - int(b.id) })
	for _, f := range again {
		f.state, f.w, f.id = waiting, nil, 0
	}
	g.queue.pushFront(again)
}

// drop takes a dead worker off the list. g.mu is held.
func (g *Group) drop(w *worker) {
	g.workers = slices.DeleteFunc(slices.Clone(g.workers), func(other *worker) bool { return other == w })
}

// feedAll gives what waits to the workers that can take it.
func (g *Group) feedAll() {
	g.mu.Lock()
	workers := g.workers
	for _, w := range workers {
		g.feed(w)
	}
	g.mu.Unlock()
	for _, w := range workers {
		w.out.flush()
	}
}
