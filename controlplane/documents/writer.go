package documents

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"clearmlserving/controlplane/store"
)

// Author is the writer of documents.
type Author struct {
	// User and Company are ids.
	User, Company string
	// Limited: an account of one serving service. Service is that service's id.
	Limited bool
	Service string
}

// MayChange refuses a document that an author may not write. A service account may write
// only the task of its service and that task's children.
func (who Author) MayChange(kind store.Kind, doc store.Doc) error {
	if !who.Limited {
		return nil
	}
	if kind == store.Task && (doc.ID() == who.Service || doc.Text("parent") == who.Service) {
		return nil
	}
	return OutOfService(kind, doc.ID())
}

// OutOfService is the refusal of a document that an account of one service may not write.
func OutOfService(kind store.Kind, id string) error {
	return &Error{
		Code: http.StatusForbidden, Subcode: subNoWritePermission,
		Msg: "No write permission: these credentials are limited to one serving service, and " + string(kind) + " " + id + " does not belong to it",
	}
}

// Writer is a transaction of one author. It records the writes, to be announced after the
// commit.
type Writer struct {
	store.Tx
	// Who is the author, and Now the time, in the form of documents.
	Who Author
	Now string
	// Touched are the written documents of the kinds that concern serving.
	Touched []Touched
}

// Touched identifies a written document.
type Touched struct {
	Kind store.Kind
	ID   string
}

// touch records a write.
func (w *Writer) touch(kind store.Kind, id string) {
	switch kind {
	case store.Task, store.Model, store.Project:
		w.Touched = append(w.Touched, Touched{kind, id})
	}
}

// Find reads a document, or returns the refusal of its kind.
func Find(ctx context.Context, from store.Reader, kind store.Kind, id string) (store.Doc, error) {
	if id == "" {
		return nil, Missing(string(kind))
	}
	doc, err := from.Get(ctx, kind, id)
	return doc, NotFound(err, kind, id)
}

// Find is Find within the transaction.
func (w *Writer) Find(ctx context.Context, kind store.Kind, id string) (store.Doc, error) {
	return Find(ctx, w, kind, id)
}

// Add stores a new document with an id, an owner, and its times, and returns the id.
func (w *Writer) Add(ctx context.Context, kind store.Kind, doc store.Doc) (string, error) {
	id := NewID()
	doc["id"], doc["user"], doc["company"] = id, w.Who.User, w.Who.Company
	for _, key := range []string{"created", "last_update", "last_change"} {
		if doc[key] == nil {
			doc[key] = w.Now
		}
	}
	doc["last_changed_by"] = w.Who.User
	if err := w.Who.MayChange(kind, doc); err != nil {
		return "", err
	}
	w.touch(kind, id)
	return id, w.Insert(ctx, kind, Tidy(kind, doc))
}

// Save stores a changed document.
func (w *Writer) Save(ctx context.Context, kind store.Kind, doc store.Doc) error {
	doc["last_change"], doc["last_changed_by"] = w.Now, w.Who.User
	if err := w.Who.MayChange(kind, doc); err != nil {
		return err
	}
	w.touch(kind, doc.ID())
	return w.Put(ctx, kind, Tidy(kind, doc))
}

// Remove deletes a document.
func (w *Writer) Remove(ctx context.Context, kind store.Kind, id string) error {
	if w.Who.Limited {
		return OutOfService(kind, id)
	}
	w.touch(kind, id)
	return w.Delete(ctx, kind, id)
}

// ChangedBy are the fields that every write of a task or model changes.
func (w *Writer) ChangedBy() map[string]any {
	return map[string]any{"last_change": w.Now, "last_changed_by": w.Who.User}
}

// Change reads, changes, and stores one document.
func (w *Writer) Change(ctx context.Context, kind store.Kind, id string, change func(store.Doc) error) error {
	doc, err := w.Find(ctx, kind, id)
	if err != nil {
		return err
	}
	if err := w.Who.MayChange(kind, doc); err != nil {
		return err // before the change, which could make it the author's
	}
	if err := change(doc); err != nil {
		return err
	}
	return w.Save(ctx, kind, doc)
}

// All reads every document of a kind that matches.
func (w *Writer) All(ctx context.Context, kind store.Kind, where store.Expr) ([]store.Doc, error) {
	return w.Query(ctx, kind, store.Query{Where: where})
}

// Each changes and saves every document of a kind that matches, and returns how many there were.
func (w *Writer) Each(ctx context.Context, kind store.Kind, where store.Expr, change func(store.Doc) error) (int, error) {
	docs, err := w.All(ctx, kind, where)
	if err != nil {
		return 0, err
	}
	for _, doc := range docs {
		if err := change(doc); err != nil {
			return 0, err
		}
		if err := w.Save(ctx, kind, doc); err != nil {
			return 0, err
		}
	}
	return len(docs), nil
}

// Tidy normalises a document for clients: sorted tags without repetition, and in tasks the
// objects and lists that the SDK reads without checking.
func Tidy(kind store.Kind, doc store.Doc) store.Doc {
	for _, key := range []string{"tags", "system_tags"} {
		doc[key] = SortedTexts(doc.Strings(key))
	}
	if kind != store.Task {
		return doc
	}
	for _, key := range []string{"output", "execution", "script", "runtime", "hyperparams", "configuration", "container"} {
		doc.Object(key)
	}
	if execution := doc.Object("execution"); execution["artifacts"] == nil {
		execution["artifacts"] = []any{} // pipelines of the SDK iterate over it
	}
	models := doc.Object("models")
	for _, direction := range []string{"input", "output"} {
		if _, ok := models[direction].([]any); !ok {
			models[direction] = []any{}
		}
	}
	return doc
}

// SortedTexts is a list of texts in the form of tags: sorted, each once.
func SortedTexts(texts []string) []any {
	texts = slices.Clone(texts)
	slices.Sort(texts)
	out := make([]any, 0, len(texts))
	for _, text := range slices.Compact(texts) {
		out = append(out, text)
	}
	return out
}

// HasTag says whether a document has a tag in one of its lists.
func HasTag(doc store.Doc, list, tag string) bool { return slices.Contains(doc.Strings(list), tag) }

// SetSystemTag adds a system tag to a document, or takes it away.
func SetSystemTag(doc store.Doc, tag string, on bool) {
	kept := slices.DeleteFunc(doc.Strings("system_tags"), func(t string) bool { return t == tag })
	if on {
		kept = append(kept, tag)
	}
	doc["system_tags"] = SortedTexts(kept)
}

// Is makes the filter that a field has a value.
func Is(value any, path ...string) store.Expr { return store.In{Path: path, Values: []any{value}} }

// NewID makes an id as ClearML does: a random UUID without dashes.
func NewID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }

// Number turns a Go integer into a document's number.
func Number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
