package api

import (
	"encoding/json"
	"math"
	"strconv"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// lastScalar summarises the values that one batch reports of a metric's variant.
type lastScalar struct {
	metric, variant  string
	last, first      scalarAt
	least, largest   scalarAt
	count            int64
	total            float64
	lastAt, lastIter int64
}

// scalarAt is a value with the iteration that it was reported for.
type scalarAt struct {
	value any
	iter  int64
}

// noteScalar adds a value to the summary of its variant.
func (o *owner) noteScalar(e store.Event) {
	key := [2]string{e.Metric, e.Variant}
	now := scalarAt{e.Body["value"], e.Iter}
	l := o.scalars[key]
	if l == nil {
		if o.scalars == nil {
			o.scalars = map[[2]string]*lastScalar{}
		}
		l = &lastScalar{
			metric: e.Metric, variant: e.Variant, last: now, first: now, least: now, largest: now,
			lastAt: e.Timestamp, lastIter: e.Iter,
		}
		o.scalars[key] = l
	}
	value := asFloat(now.value)
	l.count++
	l.total += value
	if e.Iter > l.lastIter || e.Iter == l.lastIter && e.Timestamp >= l.lastAt {
		l.last, l.lastIter, l.lastAt = now, e.Iter, e.Timestamp
	}
	if e.Iter < l.first.iter {
		l.first = now
	}
	if value < asFloat(l.least.value) {
		l.least = now
	}
	if value > asFloat(l.largest.value) {
		l.largest = now
	}
}

// note updates last_metrics[md5 of metric][md5 of variant] of a task or model.
func (l *lastScalar) note(doc store.Doc) {
	variants := store.Doc(doc.Object("last_metrics")).Object(md5Hex(l.metric))
	stored := store.Doc(store.Doc(variants).Object(md5Hex(l.variant)))
	stored["metric"], stored["variant"], stored["value"] = l.metric, l.variant, l.last.value
	set := func(name string, v scalarAt) {
		stored[name], stored[name+"_iteration"] = v.value, documents.Number(v.iter)
	}
	if old, known := stored["min_value"]; !known || asFloat(l.least.value) < asFloat(old) {
		set("min_value", l.least)
	}
	if old, known := stored["max_value"]; !known || asFloat(l.largest.value) > asFloat(old) {
		set("max_value", l.largest)
	}
	if stored["first_value"] == nil {
		set("first_value", l.first)
	}
	before := stored.Int("count")
	mean := (asFloat(stored["mean_value"])*float64(before) + l.total) / float64(before+l.count)
	stored["count"] = documents.Number(before + l.count)
	if rounded := math.RoundToEven(mean*100) / 100; !math.IsInf(rounded, 0) && !math.IsNaN(rounded) {
		stored["mean_value"] = json.Number(strconv.FormatFloat(rounded, 'g', -1, 64))
	}
}
