package worker

import (
	"bytes"
	"time"
)

// A worker gathers the answers of fast requests in shared memory and sends them
// together. The next request may turn out to be slow, to hang, or to kill the
// process: then those answers are taken from that memory.

// rescueAfter is how long a worker may work on one request before its earlier
// answers are looked for.
const rescueAfter = 5 * time.Millisecond

// expectAnswers has the memory looked at later. g.mu is held.
func (w *worker) expectAnswers() {
	if !w.armed && len(w.flights) > 1 && w.state != dead {
		w.armed = true
		w.lastSeen = w.served
		w.rescue.Reset(rescueAfter)
	}
}

// rescueAnswers delivers what a worker that has sent nothing for a while had
// answered before.
func (w *worker) rescueAnswers() {
	g := w.g
	g.mu.Lock()
	defer g.mu.Unlock()
	w.armed = false
	if w.state == dead {
		return
	}
	if w.served == w.lastSeen {
		w.takeUnsent(w.marks.unsent())
	}
	w.expectAnswers()
}

// takeUnsent delivers answers that the socket has not brought. g.mu is held.
func (w *worker) takeUnsent(answers []byte) {
	if len(answers) == 0 {
		return
	}
	frames := newFrameReader(bytes.NewReader(answers), w.g.o.maxFrame)
	for {
		fr, err := frames.next()
		if err != nil || fr.kind != kindAnswer {
			return // the end, or what it wrote at its last moment
		}
		f := w.flights[fr.id]
		if f == nil || f.state == streaming || fr.flags&^flagBatch != 0 {
			continue
		}
		meta, body, err := openAnswer(&fr)
		if err != nil || w.accept(&fr, &meta, body) != nil {
			return
		}
		if w.rescued == nil {
			w.rescued = make(map[uint64]bool)
		}
		w.rescued[fr.id] = true
	}
}
