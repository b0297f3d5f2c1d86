package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// work is one call's transaction. It remembers what was written, to be told of after
// the commit.
type work struct {
	store.Tx
	// who makes the call and when, in the form that documents hold.
	who Identity
	now string

	touched []touched
}

type touched struct {
	kind store.Kind
	id   string
}

// write runs a call's changes in one transaction and then rings the change feed. do may
// run again, see store.Store.
func (s *Server) write(ctx context.Context, c *Call, do func(w *work) error) error {
	var rings []touched
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		w := &work{Tx: tx, who: c.Identity, now: s.timestamp()}
		err := do(w)
		rings = w.touched
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range rings {
		s.changed(t.kind, t.id)
	}
	return nil
}

// touch remembers a write that can concern serving.
func (w *work) touch(kind store.Kind, id string) {
	switch kind {
	case store.Task, store.Model, store.Project:
		w.touched = append(w.touched, touched{kind, id})
	}
}

// get reads a document, or returns the refusal that fits its kind.
func (w *work) get(ctx context.Context, kind store.Kind, id string) (store.Doc, error) {
	if id == "" {
		return nil, missing(string(kind))
	}
	doc, err := w.Get(ctx, kind, id)
	return doc, notFound(err, kind, id)
}

// add stores a new document with an id, an owner, and its times, and returns the id.
func (w *work) add(ctx context.Context, kind store.Kind, doc store.Doc) (string, error) {
	id := newID()
	doc["id"], doc["user"], doc["company"] = id, w.who.User, w.who.Company
	for _, key := range []string{"created", "last_update", "last_change"} {
		if doc[key] == nil {
			doc[key] = w.now
		}
	}
	doc["last_changed_by"] = w.who.User
	if err := w.who.mayChange(kind, doc); err != nil {
		return "", err
	}
	w.touch(kind, id)
	return id, w.Insert(ctx, kind, tidy(kind, doc))
}

// put stores a changed document.
func (w *work) put(ctx context.Context, kind store.Kind, doc store.Doc) error {
	doc["last_change"], doc["last_changed_by"] = w.now, w.who.User
	if err := w.who.mayChange(kind, doc); err != nil {
		return err
	}
	w.touch(kind, doc.ID())
	return w.Put(ctx, kind, tidy(kind, doc))
}

// remove deletes a document.
func (w *work) remove(ctx context.Context, kind store.Kind, id string) error {
	if w.who.Role == RoleService {
		return outOfService(kind, id)
	}
	w.touch(kind, id)
	return w.Delete(ctx, kind, id)
}

// changedBy are the fields that every write of a task or model changes.
func (w *work) changedBy() map[string]any {
	return map[string]any{"last_change": w.now, "last_changed_by": w.who.User}
}

// change reads, changes, and stores one document.
func (w *work) change(ctx context.Context, kind store.Kind, id string, change func(store.Doc) error) error {
	doc, err := w.get(ctx, kind, id)
	if err != nil {
		return err
	}
	if err := w.who.mayChange(kind, doc); err != nil {
		return err // before the change: that could claim it
	}
	if err := change(doc); err != nil {
		return err
	}
	return w.put(ctx, kind, doc)
}

// all reads every document of a kind that matches.
func (w *work) all(ctx context.Context, kind store.Kind, where store.Expr) ([]store.Doc, error) {
	return w.Query(ctx, kind, store.Query{Where: where})
}

// tidy brings a document to the form that clients rely on: sorted tags without
// repetition, and in tasks the objects and lists that the SDK reads without looking.
func tidy(kind store.Kind, doc store.Doc) store.Doc {
	for _, key := range []string{"tags", "system_tags"} {
		doc[key] = sortedTexts(doc.Strings(key))
	}
	if kind != store.Task {
		return doc
	}
	for _, key := range []string{"output", "execution", "script", "runtime", "hyperparams", "configuration", "container"} {
		doc.Object(key)
	}
	if execution := doc.Object("execution"); execution["artifacts"] == nil {
		execution["artifacts"] = []any{} // pipelines of the SDK walk through it
	}
	models := doc.Object("models")
	for _, direction := range []string{"input", "output"} {
		if _, ok := models[direction].([]any); !ok {
			models[direction] = []any{}
		}
	}
	return doc
}

func sortedTexts(texts []string) []any {
	texts = slices.Clone(texts)
	slices.Sort(texts)
	out := make([]any, 0, len(texts))
	for _, text := range slices.Compact(texts) {
		out = append(out, text)
	}
	return out
}

// hasTag says whether a document has a tag in one of its lists.
func hasTag(doc store.Doc, list, tag string) bool { return slices.Contains(doc.Strings(list), tag) }

// setSystemTag adds a system tag to a document, or takes it away.
func setSystemTag(doc store.Doc, tag string, on bool) {
	kept := slices.DeleteFunc(doc.Strings("system_tags"), func(t string) bool { return t == tag })
	if on {
		kept = append(kept, tag)
	}
	doc["system_tags"] = sortedTexts(kept)
}

// is makes the filter that a field has a value.
func is(value any, path ...string) store.Expr { return store.In{Path: path, Values: []any{value}} }

// shape is what a field of a request must hold.
type shape int

const (
	aText shape = iota
	aName       // a text that people read: trimmed, three characters or more
	texts       // a list of texts
	tags        // a list of texts that filters can name
	anObject
	aNumber
	aFlag
	aTime // ISO 8601; stored in our own form
)

// take picks the known fields out of a request and checks what they hold; nulls and
// unknown keys are left out.
func take(req Fields, shapes map[string]shape) (Fields, error) {
	out := Fields{}
	keys := make([]string, 0, len(shapes))
	for key := range shapes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if req[key] == nil {
			continue
		}
		v, err := shapes[key].check(key, req[key])
		if err != nil {
			return nil, err
		}
		out[key] = v
	}
	return out, nil
}

func (s shape) check(key string, v any) (any, error) {
	var ok bool
	want := ""
	switch s {
	case aText:
		_, ok = v.(string)
		want = "a text"
	case aName:
		return checkName(key, v)
	case texts, tags:
		return checkTexts(key, v, s == tags)
	case anObject:
		_, ok = v.(map[string]any)
		want = "an object"
	case aNumber:
		_, ok = v.(json.Number)
		want = "a number"
	case aFlag:
		_, ok = v.(bool)
		want = "true or false"
	case aTime:
		return checkTime(key, v)
	}
	if !ok {
		return nil, invalid("%s must be %s", key, want)
	}
	return v, nil
}

// minName is the least number of characters of a name on every ClearML server.
const minName = 3

func checkName(key string, v any) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, invalid("%s must be a text", key)
	}
	if text = strings.TrimSpace(text); len([]rune(text)) < minName {
		return nil, refuse(subDataValidation, "Data validation error: %s %q is too short: it needs %d characters", key, text, minName)
	}
	return text, nil
}

func checkTexts(key string, v any, named bool) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, invalid("%s must be a list of texts", key)
	}
	if err := atMost(key, len(list), maxTags); err != nil {
		return nil, err
	}
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, invalid("%s must be a list of texts", key)
		}
		if named && strings.HasPrefix(text, opPrefix) {
			return nil, invalid("%s holds %q: what begins with %s is an operator of filters", key, text, opPrefix)
		}
	}
	return v, nil
}

func checkTime(key string, v any) (any, error) {
	text, ok := v.(string)
	if !ok {
		return nil, invalid("%s must be a time", key)
	}
	t, err := parseTime(text)
	if err != nil {
		return nil, invalid("%s: %v", key, err)
	}
	return store.FormatTime(t), nil
}
