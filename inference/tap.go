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

// taps copy shares of the answered requests to recordings and shadow traffic.
// They look at a request after its answer has been made, never wait, and drop
// and count what cannot be taken.
type taps struct {
	table   atomic.Pointer[map[serving.EndpointURL]tap] // nil: nothing is copied
	tapes   *tapes                                      // nil: there is no folder for recordings
	shadows *shadows
}

// tap is what is copied of the requests to one url.
type tap struct {
	tape   *tape
	record serving.Record
	shadow *pair
	share  float64 // of the shadow traffic
}

// follow takes in the options of a plan. It is called from one goroutine.
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
		if next.tape != nil || next.shadow != nil {
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

// see copies one answered request where a tap asks for it. The options of the
// url as it was asked (a canary's, say) win over those of the endpoint that
// answered. What it is given may be reused by the caller afterwards.
func (t *taps) see(asked serving.EndpointURL, live *router.Live, req *engine.Request, answer *engine.Response) {
	table := t.table.Load()
	if table == nil {
		return
	}
	tap := (*table)[asked]
	if asked != live.URL {
		tap = tap.over((*table)[live.URL])
	}
	keep := tap.tape != nil && drawn(tap.record.Share)
	shadow := tap.shadow != nil && drawn(tap.share)
	if !keep && !shadow {
		return
	}
	if req.Tensors != nil { // recordings and copies hold bodies
		if keep {
			tap.tape.skipped.Add(1)
		}
		if shadow {
			tap.shadow.dropped.Add(1)
		}
		return
	}
	size := int64(len(req.Body) + len(answer.Body))
	keep = keep && tap.tape.admits(size, answer)
	shadow = shadow && tap.shadow.admits(size)
	if !keep && !shadow {
		return
	}
	e := serving.Exchange{ // the listener's texts lie in a buffer that it reads into again
		Time: time.Now().UTC(), Endpoint: serving.EndpointURL(strings.Clone(string(asked))), ModelID: live.ModelID,
		ContentType: strings.Clone(req.ContentType), Body: bytes.Clone(req.Body),
		Status: answer.Status, AnswerType: answer.ContentType, Answer: bytes.Clone(answer.Body),
	}
	if live.URL != asked {
		e.AnsweredBy = live.URL
	}
	if keep {
		t.tapes.put(taped{tap.tape, tap.record, e})
	}
	if shadow {
		c := copied{exchange: e, id: strings.Clone(req.ID), depth: req.Depth, streamed: answer.Stream != nil}
		if req.Client != nil {
			client := req.Client().Clone()
			c.client = func() engine.Client { return client }
		}
		tap.shadow.put(c)
	}
}

// seeFailure copies a request that failed, as see does one that was answered.
func (t *taps) seeFailure(asked serving.EndpointURL, live *router.Live, req *engine.Request, f *Failure) {
	if t.table.Load() == nil {
		return
	}
	t.see(asked, live, req, f.Response())
}

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
	return share >= 1 || rand.Float64() < share //nolint:gosec // a sample needs no secrecy
}
