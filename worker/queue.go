package worker

import (
	"cmp"
	"slices"
	"time"
)

// fifo holds items in the order in which they came. It reuses its memory.
type fifo[T any] struct {
	items []T // from first on
	first int
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }

// all lists the items.
func (q *fifo[T]) all() []T { return q.items[q.first:] }

func (q *fifo[T]) push(item T) {
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 {
		n := copy(q.items, q.all())
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// pop removes the first item. There is one.
func (q *fifo[T]) pop() (item T) {
	item, q.items[q.first] = q.items[q.first], item // no reference is left behind
	if q.first++; q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
	return item
}

// queue holds the flights that wait for a worker, oldest first. dispatch.mu guards it.
type queue struct{ fifo[*flight] }

// oldest is the first flight, nil when there is none.
func (q *queue) oldest() *flight {
	if q.len() == 0 {
		return nil
	}
	return q.items[q.first]
}

// remove removes a flight.
func (q *queue) remove(f *flight) {
	if i := slices.Index(q.items, f); i >= 0 {
		q.items = slices.Delete(q.items, i, i+1)
	}
}

// pushFront puts flights that a worker had before all others, in their order.
func (q *queue) pushFront(again []*flight) {
	slices.SortFunc(again, func(a, b *flight) int { return cmp.Compare(a.id, b.id) })
	now := time.Now()
	for _, f := range again {
		f.state, f.w, f.id = waiting, nil, 0
		if f.since.IsZero() { // it was sent at once
			f.since = now
		}
	}
	q.fifo = fifo[*flight]{items: append(again, q.all()...)}
}

// clear removes and returns all flights.
func (q *queue) clear() []*flight {
	left := q.all()
	q.fifo = fifo[*flight]{}
	return left
}
