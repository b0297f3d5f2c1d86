package api

import (
	"cmp"
	"context"
	"crypto/md5" // ClearML names metrics and events so; nothing is protected by it
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// eventCalls lists the calls of the events service; the reading ones are in eventlog.go and
// eventmetrics.go.
func (s *Server) eventCalls() []callEntry {
	return []callEntry{
		{"events.add", mayWrite, raw(s.addEvents)},
		{"events.add_batch", mayWrite, raw(s.addEvents)},
		{"events.get_task_log", mayRead, typed(s.taskLog)},
		{"events.get_task_events", mayRead, typed(s.taskEvents)},
		{"events.get_task_plots", mayRead, typed(s.taskPlots)},
		{"events.get_task_single_value_metrics", mayRead, typed(s.singleValues)},
		{"events.scalar_metrics_iter_histogram", mayRead, typed(s.scalarHistogram)},
		{"events.debug_images", mayRead, typed(s.debugImages)},
	}
}

// The types of events, in ClearML's words.
const (
	eventLog    = "log"
	eventScalar = "training_stats_scalar"
	eventVector = "training_stats_vector"
	eventImage  = "training_debug_image"
	eventPlot   = "plot"

	// allEvents requests events of every type.
	allEvents = "*"
)

var eventTypes = []string{eventLog, eventScalar, eventVector, eventImage, eventPlot}

// unknownWorker is the worker of events that name none.
const unknownWorker = "<unknown>"

// singleValueIter is the iteration of values that belong to none.
const singleValueIter = -1 << 31

type eventsAdded struct {
	Added      int            `json:"added"`
	Errors     int            `json:"errors"`
	ErrorsInfo map[string]int `json:"errors_info"`
}

// addEvents stores a batch. An event that cannot be stored is counted and does not affect the
// others; the call is refused only if none could be stored.
func (s *Server) addEvents(ctx context.Context, c *Call, body []byte) (eventsAdded, error) {
	docs, err := parseEvents(body)
	if err != nil {
		return eventsAdded{}, err
	}
	if len(docs) == 0 {
		return eventsAdded{}, documents.Refuse(subNoItems, "Batch contains no items")
	}
	if err := oneLocking(docs); err != nil {
		return eventsAdded{}, err
	}
	answer := eventsAdded{ErrorsInfo: map[string]int{}}
	for part := range slices.Chunk(docs, eventsTogether) {
		var stored int
		var problems map[string]int
		err = s.store.Tx(ctx, func(tx store.Tx) error {
			b := &batch{c: c, tx: tx, owners: map[ownerKey]*owner{}, now: s.now()}
			problems = map[string]int{}
			for _, doc := range part {
				switch problem, err := b.add(ctx, doc); {
				case err != nil:
					return err
				case problem != "":
					problems[problem]++
				}
			}
			stored = len(b.events)
			return b.write(ctx)
		})
		if err != nil && answer.Added == 0 {
			return eventsAdded{}, err
		}
		if err != nil { // earlier parts are stored
			told, _ := asError(err)
			s.log.Error("part of a batch of events not stored", "err", err)
			stored, problems = 0, map[string]int{told.Msg: len(part)}
		}
		answer.Added += stored
		answer.Errors += len(part) - stored
		for problem, n := range problems {
			answer.ErrorsInfo[problem] += n
		}
	}
	if answer.Added == 0 {
		reasons := strings.Join(slices.Sorted(maps.Keys(answer.ErrorsInfo)), "; ")
		return eventsAdded{}, documents.Refuse(subEventsNotAdded, "Events not added: %s", reasons)
	}
	return answer, nil
}

// batch is the work of one addEvents within its transaction.
type batch struct {
	c   *Call
	tx  store.Tx
	now time.Time

	owners map[ownerKey]*owner
	events []store.Event
}

// ownerKey identifies the task or model of an event.
type ownerKey struct {
	kind store.Kind
	id   string
}

// owner is a task or model with the changes that its events make to it.
type owner struct {
	doc     store.Doc
	problem string // why none of its events is stored, or ""
	locked  bool
	touched bool
	scalars map[[2]string]*lastScalar // by metric and variant
}

// ownerOf returns the type and the owner of an event, or its problem.
func ownerOf(doc store.Doc) (kind string, key ownerKey, problem string) {
	switch kind = doc.Text("type"); {
	case kind == "":
		return "", ownerKey{}, "Event must have a 'type' field"
	case !slices.Contains(eventTypes, kind):
		return "", ownerKey{}, "Invalid event type " + kind
	}
	key = ownerKey{store.Task, doc.Text("task")}
	if forModel, _ := doc["model_event"].(bool); forModel {
		key = ownerKey{store.Model, doc.Text("model")}
		key.id = cmp.Or(key.id, doc.Text("task"))
	}
	if key.id == "" {
		return "", ownerKey{}, "Event must have a 'task' field"
	}
	return kind, key, ""
}

// oneLocking refuses a batch with different values of allow_locked for one task or model.
func oneLocking(docs []store.Doc) error {
	first := map[ownerKey]bool{}
	for _, doc := range docs {
		_, key, problem := ownerOf(doc)
		if problem != "" {
			continue
		}
		allow, _ := doc["allow_locked"].(bool)
		if before, known := first[key]; known && before != allow {
			return documents.Invalid("different allow_locked in one batch for %s", key.id)
		}
		first[key] = allow
	}
	return nil
}

// add checks one event and prepares it. A problem is the event's, an error the batch's.
func (b *batch) add(ctx context.Context, doc store.Doc) (problem string, err error) {
	kind, key, problem := ownerOf(doc)
	if problem != "" {
		return problem, nil
	}
	o, err := b.owner(ctx, key)
	if err != nil {
		return "", err
	}
	allow, _ := doc["allow_locked"].(bool)
	if o.problem != "" {
		return o.problem, nil
	}
	if o.locked && !allow {
		return fmt.Sprintf("The %s is published: %s", key.kind, key.id), nil
	}
	event, problem := b.event(key, kind, doc)
	if problem != "" {
		return problem, nil
	}
	b.events = append(b.events, event)
	o.note(event, store.FormatTime(b.now))
	return "", nil
}

// owner reads the task or model of an event, once per batch.
func (b *batch) owner(ctx context.Context, key ownerKey) (*owner, error) {
	if o, ok := b.owners[key]; ok {
		return o, nil
	}
	doc, err := b.tx.Get(ctx, key.kind, key.id)
	o := &owner{doc: doc}
	switch {
	case errors.Is(err, store.ErrNotFound):
		o.problem = fmt.Sprintf("Invalid %s id %s", key.kind, key.id)
	case err != nil:
		return nil, err
	case key.kind == store.Task:
		status := doc.Text("status")
		o.locked = status == "published" || status == "publishing"
	}
	if o.problem == "" && b.c.mayChange(key.kind, doc) != nil {
		o.problem = fmt.Sprintf("No write permission for %s %s", key.kind, key.id)
	}
	b.owners[key] = o
	return o, nil
}

// event makes the stored form of an event.
func (b *batch) event(key ownerKey, kind string, doc store.Doc) (store.Event, string) {
	iter, ok := wholeNumber(doc["iter"])
	if !ok {
		return store.Event{}, "Event has an iteration that is no number"
	}
	at, ok := wholeNumber(doc["timestamp"])
	if !ok {
		return store.Event{}, "Event has a timestamp that is no number"
	}
	at = cmp.Or(at, b.now.UnixMilli())
	if len(doc.Text("metric"))+len(doc.Text("variant")) > maxMetric {
		return store.Event{}, "Event has a metric and a variant whose names are too long"
	}
	if kind == eventPlot && doc.Text("plot_str") == "" {
		return store.Event{}, "Plot event must have a 'plot_str' field"
	}
	if _, number := doc["value"].(json.Number); kind == eventScalar && !number && doc["value"] != nil {
		return store.Event{}, "Scalar event has a value that is no number"
	}
	doc = maps.Clone(doc) // the transaction may run again with the batch as it came
	// These only control the storing; newer SDKs add "method" to every request.
	for _, field := range []string{"allow_locked", "method", "skip_validation", "model"} {
		delete(doc, field)
	}
	doc["task"], doc["timestamp"] = key.id, documents.Number(at)
	doc["@timestamp"] = b.now.UTC().Format("2006-01-02T15:04:05.000Z") // when it was stored
	doc["model_event"] = key.kind == store.Model
	doc["metric"], doc["variant"] = doc.Text("metric"), doc.Text("variant")
	if kind == eventLog {
		delete(doc, "iter")
	} else {
		doc["iter"] = documents.Number(iter)
	}
	if kind == eventPlot {
		doc["plot_len"] = documents.Number(int64(utf8.RuneCountInString(doc.Text("plot_str"))))
	}
	if doc["worker"] == nil {
		doc["worker"] = cmp.Or(b.c.Worker, unknownWorker)
	}
	event := store.Event{
		ID: documents.NewID(), Task: key.id, Type: kind, Metric: doc.Text("metric"), Variant: doc.Text("variant"),
		Iter: iter, Timestamp: at, Body: doc,
	}
	if kind != eventLog {
		// A repeated report replaces the first.
		event.ID = md5Hex(strings.Join([]string{kind, key.id, event.Metric, event.Variant, doc.Text("key"), formatInt(iter)}, "\x00"))
	}
	return event, ""
}

// note stores on the task or model what its newest events say.
func (o *owner) note(e store.Event, now string) {
	o.touched = true
	o.doc["last_update"], o.doc["last_change"] = now, now
	if worker := e.Body.Text("worker"); worker != "" && worker != unknownWorker {
		o.doc["last_worker"], o.doc["last_worker_report"] = worker, now
	}
	if e.Type == eventLog {
		return
	}
	if _, known := o.doc["last_iteration"]; e.Iter != singleValueIter && (!known || e.Iter > o.doc.Int("last_iteration")) {
		o.doc["last_iteration"] = documents.Number(e.Iter)
	}
	if e.Type == eventScalar && e.Metric != "" && e.Variant != "" && e.Body["value"] != nil {
		o.noteScalar(e)
	}
}

// write stores the prepared events.
func (b *batch) write(ctx context.Context) error {
	if len(b.events) == 0 {
		return nil
	}
	if err := b.tx.AppendEvents(ctx, b.events); err != nil {
		return err
	}
	for key, o := range b.owners {
		if !o.touched {
			continue
		}
		for _, scalar := range o.scalars {
			scalar.note(o.doc)
		}
		if err := b.tx.Put(ctx, key.kind, o.doc); err != nil {
			return err
		}
	}
	return nil
}

// ownerKind is the kind of document that events belong to.
func ownerKind(model bool) store.Kind {
	if model {
		return store.Model
	}
	return store.Task
}

// wholeNumber reads a number that may be written as 3.0 or "3"; an absent one is 0.
func wholeNumber(v any) (int64, bool) {
	var text string
	switch v := v.(type) {
	case nil:
		return 0, true
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return 0, false
	}
	if n, err := json.Number(text).Int64(); err == nil {
		return n, true
	}
	f, err := json.Number(text).Float64()
	if err != nil || math.IsNaN(f) || f < -1<<62 || f > 1<<62 {
		return 0, false
	}
	return int64(f), true
}

func asFloat(v any) float64 {
	f, _ := store.Number(v)
	return f
}

func md5Hex(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}
