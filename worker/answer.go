package worker

import (
	"fmt"
	"time"

	"clearmlserving/batching"
)

// How much work is sent ahead to a busy worker: as many requests as it executes
// in aheadTime, but at least two, so that its wake-up is hidden. The time is wall time: on
// a machine with more runnable processes than cores it must suffice for answers to be sent
// together.
const (
	aheadTime = 3 * time.Millisecond
	aheadMin  = 2
	aheadMax  = 64
)

// Answered ends the flight that fr answers.
func (w *worker) Answered(fr *frame, last bool) error {
	meta, body, err := openAnswer(fr)
	if err != nil {
		return err
	}
	d := w.d
	var report batching.Measured
	if fr.flags&flagBatch != 0 {
		if report, err = parseBatchReport(fr.meta); err != nil {
			return err
		}
	}
	d.mu.Lock()
	err = w.accept(fr, &meta, body)
	if d.policy != nil && fr.flags&flagBatch != 0 {
		d.policy.Note(report)
	}
	// An idle worker is fed even when more frames are at hand: they may not be answers.
	feed := last || len(w.flights) == 0
	if feed {
		w.pace()
		d.feed(w)
	}
	d.mu.Unlock()
	if feed {
		w.out.flush()
	}
	if string(meta.errorKind) == "fatal" {
		w.ReplaceBroken()
	}
	return err
}

// openAnswer parses an answer's metadata, and copies its body unless the frame owns it.
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

// accept delivers an answer.
func (w *worker) accept(fr *frame, meta *answerHead, body []byte) error {
	d := w.d
	f := w.flights[fr.id]
	if f == nil || f.state == streaming {
		if w.rescued[fr.id] { // taken from the shared memory before it was sent
			delete(w.rescued, fr.id)
			return nil
		}
		return fmt.Errorf("%w: an answer to request %d, which it does not have", errFrame, fr.id)
	}
	w.served++
	d.served++
	if !d.lostFirst.IsZero() {
		d.lostFirst = time.Time{}
	}
	if fr.flags&flagStream != 0 {
		w.stream(f, meta, int(fr.code))
		return nil
	}
	delete(w.flights, fr.id)
	if f.kind != kindRequest && f.kind != kindTensors {
		w.keepState(f, fr, meta)
	}
	switch {
	case fr.flags&flagCancelled != 0:
		d.deliver(f, nil, fmt.Errorf("endpoint %q: %w", d.endpoint, ErrDeadline))
	case f.state == abandoned:
		d.deliver(f, nil, nil)
	default:
		response := w.response(f, meta, int(fr.code))
		response.Body = body
		if f.kind == kindPre || f.kind == kindPreTensors {
			response.prepared = w.prepared[fr.id]
		}
		d.deliver(f, response, nil)
	}
	return nil
}

// response makes the caller's Response from an answer's metadata.
func (w *worker) response(f *flight, meta *answerHead, status int) *Response {
	r := &Response{Status: status, ContentType: w.text(meta.contentType), Headers: meta.headers, ErrorKind: w.text(meta.errorKind), Queued: f.queued}
	if len(meta.stats) > 0 {
		r.Stats = append([]byte(nil), meta.stats...)
	}
	return r
}

// text converts bytes that are nearly always the same to a string without allocation.
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

// pace measures the duration of the requests answered since the last call, which decides
// how many are sent ahead.
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
	// A request that was sent ahead cannot go to another worker if this one hangs.
	most := max(aheadMax/max(w.d.outlook.seats, 1), aheadMin)
	w.ahead = min(max(int(aheadTime/max(w.perOne, 1)), aheadMin), most)
}
