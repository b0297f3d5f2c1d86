package worker

// queue holds the flights that wait for a worker, oldest first. Abandoned ones stay
// until their turn. Group.mu guards it.
type queue struct {
	flights []*flight // from first on
	first   int
	waiting int // of them, those that are not abandoned
	pool    *flightPool
}

func (q *queue) push(f *flight) {
	if len(q.flights) == cap(q.flights) {
		q.compact()
	}
	q.flights = append(q.flights, f)
	q.waiting++
}

// all lists the flights, abandoned ones too.
func (q *queue) all() []*flight { return q.flights[q.first:] }

// oldest is the first flight that is not abandoned, nil when there is none. It removes
// the abandoned ones before it.
func (q *queue) oldest() *flight {
	for q.first < len(q.flights) {
		if f := q.flights[q.first]; f.state == waiting {
			return f
		}
		q.pop()
	}
	return nil
}

// pop removes the first flight and returns it, nil if it is abandoned. There is one.
func (q *queue) pop() *flight {
	f := q.flights[q.first]
	q.flights[q.first] = nil
	if q.first++; q.first == len(q.flights) {
		q.flights, q.first = q.flights[:0], 0
	}
	if f.state != waiting {
		q.pool.give(f)
		return nil
	}
	q.waiting--
	return f
}

// pushFront puts flights before all others.
func (q *queue) pushFront(again []*flight) {
	q.flights, q.first = append(again, q.all()...), 0
	q.waiting += len(again)
}

// clear removes and returns all flights.
func (q *queue) clear() []*flight {
	left := q.all()
	q.flights, q.first, q.waiting = nil, 0, 0
	return left
}

// compact removes abandoned flights.
func (q *queue) compact() {
	kept := q.flights[:0]
	for _, f := range q.all() {
		if f.state == waiting {
			kept = append(kept, f)
		} else {
			q.pool.give(f)
		}
	}
	clear(q.flights[len(kept):])
	q.flights, q.first = kept, 0
}
