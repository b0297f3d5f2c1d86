package worker

import (
	"fmt"
	"time"
)

// How much work is sent ahead to a busy worker: as many requests as it executes
// in aheadTime, but at least two, so that its wake-up is hidden. The time is that
// of the clock: on a machine with more to do than cores a worker gets less ahead,
// and it is there that it has to be enough for answers to be sent together.
const (
	aheadTime = 3 * time.Millisecond
	aheadMin  = 2
	aheadMax  = 64
)

// answered ends the flight that fr answers.
func (w *worker) answered(fr *frame, last bool) error {
	meta, body, err := openAnswer(fr)
	if err != nil {
		return err
	}
	g := w.g
	var report batchReport
	if fr.flags&flagBatch != 0 {
		if report, err = parseBatchReport(fr.meta); err != nil {
			return err
		}
	}
	g.mu.Lock()
	err = w.accept(fr, &meta, body)
	if g.batch != nil && fr.flags&flagBatch != 0 {
		g.batch.note(report)
	}
	// An idle worker is fed even when more is at hand: that may be no answer.
	feed := last || len(w.flights) == 0
	if feed {
		w.pace()
		g.feed(w)
	}
	g.mu.Unlock()
	if feed {
		w.out.flush()
	}
	if string(meta.errorKind) == "fatal" {
		w.replaceBroken()
	}
	return err
}

// openAnswer parses an answer's metadata and makes its body one that stays.
func openAnswer(fr *frame) (meta answerHead, body []byte, err error) {
	if fr.flags&flagCancelled != 0 {
		return meta, nil, nil
	}
	if meta, err = parseAnswerHead(fr.meta); err != nil {
		return meta, nil, err
	}
	if fr.owned {
		return meta, fr.body, nil
	}
	if len(fr.body) > 0 {
		body = append(make([]byte, 0, len(fr.body)), fr.body...)
	}
	return meta, body, nil
}

// accept delivers an answer. g.mu is held.
func (w *worker) accept(fr *frame, meta *answerHead, body []byte) error {
	g := w.g
	f := w.flights[fr.id]
	if f == nil || f.state == streaming {
		if w.rescued[fr.id] { // taken from the shared memory before it was sent
			delete(w.rescued, fr.id)
			return nil
		}
		return fmt.Errorf("%w: an answer to request %d, which is not under way", errFrame, fr.id)
	}
	w.served++
	g.served++
	if !g.lostFirst.IsZero() {
		g.lostFirst = time.Time{}
	}
	if fr.flags&flagStream != 0 {
		w.stream(f, meta, int(fr.code))
		return nil
	}
	delete(w.flights, fr.id)
	if f.kind != kindRequest {
		w.keepState(f, fr, meta)
	}
	switch {
	case fr.flags&flagCancelled != 0:
		g.deliver(f, nil, fmt.Errorf("endpoint %q: %w", g.spec.Endpoint, ErrDeadline))
	case f.state == abandoned:
		g.deliver(f, nil, nil)
	default:
		response := w.response(meta, int(fr.code))
		response.Body = body
		if f.kind == kindPre {
			response.prepared = w.prepared[fr.id]
		}
		g.deliver(f, response, nil)
	}
	return nil
}

// response makes the caller's answer of an answer's metadata. g.mu is held.
func (w *worker) response(meta *answerHead, status int) *Response {
	r := &Response{Status: status, ContentType: w.text(meta.contentType), Headers: meta.headers, ErrorKind: w.text(meta.errorKind)}
	if len(meta.stats) > 0 {
		r.Stats = append([]byte(nil), meta.stats...)
	}
	return r
}

// text makes a string of bytes that are nearly always the same. g.mu is held.
func (w *worker) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := w.types[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(w.types) < 64 {
		w.types[s] = s
	}
	return s
}

// pace notes how long the requests answered since the last call took, which decides
// how many are sent ahead. g.mu is held.
func (w *worker) pace() {
	n := w.served - w.paced
	if n == 0 {
		return
	}
	now := time.Now()
	one := now.Sub(w.busySince) / time.Duration(n)
	w.busySince, w.paced = now, w.served
	if w.perOne == 0 {
		w.perOne = one
	} else {
		w.perOne += (one - w.perOne) / 8
	}
	// What is sent ahead cannot go to another worker if this one hangs.
	most := max(aheadMax/max(len(w.g.seats), 1), aheadMin)
	w.ahead = min(max(int(aheadTime/max(w.perOne, 1)), aheadMin), most)
}
