package worker

import (
	"bytes"
	"time"
)

// A worker collects the answers of fast requests in shared memory and sends them
// together. If the next request is slow, hangs, or kills the process, those answers are
// taken from that memory.

// rescueAfter is how long a worker may send nothing before its earlier answers are looked
// for.
const rescueAfter = 5 * time.Millisecond

// expectAnswers schedules a look at the memory.
func (w *worker) expectAnswers() {
	if !w.armed && len(w.flights) > 1 && w.state != dead {
		w.armed = true
		w.lastSeen = w.served
		w.rescue.Reset(rescueAfter)
	}
}

// RescueAnswers delivers the answers of a worker that has sent nothing for a while.
func (w *worker) RescueAnswers() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.armed = false
	if w.state == dead {
		return
	}
	if w.served == w.lastSeen {
		w.takeUnsent(w.marks.unsent())
	}
	w.expectAnswers()
}

// takeUnsent delivers answers that were not sent.
func (w *worker) takeUnsent(answers []byte) {
	if len(answers) == 0 {
		return
	}
	frames := newFrameReader(bytes.NewReader(answers), w.o.maxFrame)
	for {
		fr, err := frames.next()
		if err != nil || fr.kind != kindAnswer {
			return // the end, or a frame that was being written when it died
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
