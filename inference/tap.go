package inference

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// taps copy shares of the answered requests to recordings, shadow traffic and observers.
// They copy a request after its answer, never wait, and drop
// and count copies that do not fit.
type taps struct {
	table     atomic.Pointer[map[serving.EndpointURL]tap] // nil: nothing is copied
	tapes     *tapes                                      // nil: no folder for recordings
	shadows   *shadows
	observers []Observer
}

// tap is the copying of the requests to one url.
type tap struct {
	tape   *tape
	record serving.Record
	shadow *pair
	share  float64 // of the shadow traffic
	// observed has the share of each observer; nil: nothing is observed.
	observed []float64
}

// follow applies the options of a plan. It is called from one goroutine.
func (t *taps) follow(plan serving.Plan) {
	table := map[serving.EndpointURL]tap{}
	tapes, pairs := map[serving.EndpointURL]*tape{}, map[pairKey]*pair{}
	for url, o := range plan.Options {
		var next tap
		if o.Record != nil && t.tapes != nil {
			next.tape, next.record = t.tapes.of(url), *o.Record
			tapes[url] = next.tape
		}
		if o.Shadow != nil {
			key := pairKey{url, serving.CleanURL(o.Shadow.To)}
			next.shadow, next.share = t.shadows.of(key, o.Shadow), o.Shadow.Share
			pairs[key] = next.shadow
		}
		for i, observer := range t.observers {
			if share := observer.Share(o); share > 0 {
				if next.observed == nil {
					next.observed = make([]float64, len(t.observers))
				}
				next.observed[i] = share
			}
		}
		if next.tape != nil || next.shadow != nil || next.observed != nil {
			table[url] = next
		}
	}
	if t.tapes != nil {
		t.tapes.keep(tapes)
	}
	t.shadows.keep(pairs)
	if len(table) == 0 {
		t.table.Store(nil)
		return
	}
	t.table.Store(&table)
}

// see copies one answered request if a tap requires it. The options of the
// requested url (such as a canary's) take precedence over those of the endpoint that
// answered. The caller may reuse the arguments afterwards.
func (t *taps) see(asked serving.EndpointURL, live *router.Live, req *engine.Request, answer *engine.Response, took time.Duration) {
	table := t.table.Load()
	if table == nil {
		return
	}
	tap, below := (*table)[asked], []float64(nil)
	if asked != live.URL {
		other := (*table)[live.URL]
		tap, below = tap.over(other), other.observed
	}
	keep := tap.tape != nil && drawn(tap.record.Share)
	shadow := tap.shadow != nil && drawn(tap.share)
	watch := draw(tap.observed, below)
	if !keep && !shadow && watch == 0 {
		return
	}
	body, contentType, answered, answerType := req.Body, req.ContentType, answer.Body, answer.ContentType
	var tensors *engine.Request // a copy, for the shadow
	if req.Tensors != nil {
		if keep { // they would be asked again as bodies, whose answers may have another form
			tap.tape.skipped.Add(1)
			keep = false
		}
		least := leastSize(req.Tensors, answer.Tensors) // before JSON is written that nobody takes
		shadow = shadow && tap.shadow.admits(least)
		if watch = t.admitted(watch, live.URL, least); !shadow && watch == 0 {
			return
		}
		var ok bool
		if body, answered, ok = plainForms(live.Model, req, answer); !ok {
			if shadow {
				tap.shadow.dropped.Add(1)
			}
			return
		}
		contentType, answerType = jsonType, jsonType
	}
	size := int64(len(body) + len(answered) + sizeOf(req.Tensors))
	keep = keep && tap.tape.admits(size, answer)
	shadow = shadow && tap.shadow.admits(size)
	watch = t.admitted(watch, live.URL, size)
	if !keep && !shadow && watch == 0 {
		return
	}
	e := serving.Exchange{ // copies, because the listener reuses its buffer
		Time: time.Now().UTC(), Endpoint: serving.EndpointURL(strings.Clone(string(asked))), ModelID: live.ModelID,
		Route: strings.Clone(req.Route), ContentType: strings.Clone(contentType), Body: body, Status: answer.Status, AnswerType: answerType, Answer: answered,
	}
	if req.Tensors == nil {
		e.Body, e.Answer = bytes.Clone(body), bytes.Clone(answered)
	} else if shadow {
		tensors = cloneTensors(req)
	}
	if live.URL != asked {
		e.AnsweredBy = live.URL
	}
	if keep {
		t.tapes.put(taped{tap.tape, tap.record, live, e})
	}
	if watch != 0 {
		observed := serving.Observed{Exchange: e, ID: strings.Clone(req.ID), Latency: took, Streamed: answer.Stream != nil}
		for i, observer := range t.observers {
			if watch&(1<<i) != 0 {
				observer.Observe(observed)
			}
		}
	}
	if shadow {
		c := copied{exchange: e, tensors: tensors, id: strings.Clone(req.ID), depth: req.Depth, streamed: answer.Stream != nil}
		if req.Client != nil {
			client := req.Client().Clone()
			c.client = func() engine.Client { return client }
		}
		tap.shadow.put(c)
	}
}

// admitted are those of the observers in watch that take a copy of this size; the others count it.
func (t *taps) admitted(watch uint, url serving.EndpointURL, size int64) uint {
	for i, observer := range t.observers {
		if watch&(1<<i) != 0 && !observer.Admits(url, size) {
			watch &^= 1 << i
		}
	}
	return watch
}

// draw returns the observers that get a request, as bits. The shares of the endpoint below are for observers that the
// requested url names none for.
func draw(shares, below []float64) (watch uint) {
	for i := range max(len(shares), len(below)) {
		share := 0.0
		if shares != nil {
			share = shares[i]
		}
		if share == 0 && below != nil {
			share = below[i]
		}
		if share > 0 && drawn(share) {
			watch |= 1 << i
		}
	}
	return watch
}

// seeFailure copies a failed request, as see does an answered one.
func (t *taps) seeFailure(asked serving.EndpointURL, live *router.Live, req *engine.Request, f *Failure, took time.Duration) {
	table := t.table.Load()
	if table == nil {
		return
	}
	_, first := (*table)[asked]
	_, second := (*table)[live.URL]
	if first || second {
		t.see(asked, live, req, f.Response(), took)
	}
}

// over is t with what only the tap of the endpoint below has, except its observers.
func (t tap) over(below tap) tap {
	if t.tape == nil {
		t.tape, t.record = below.tape, below.record
	}
	if t.shadow == nil {
		t.shadow, t.share = below.shadow, below.share
	}
	return t
}

func drawn(share float64) bool {
	return share >= 1 || rand.Float64() < share //nolint:gosec // a sample needs no cryptographic randomness
}
