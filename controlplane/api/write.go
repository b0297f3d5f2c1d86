package api

import (
	"context"
	"slices"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// Bounds of one call. The database runs one writing transaction at a time.
const (
	// maxTogether is how many documents one transaction changes.
	maxTogether = 1000
	// maxEach is how many documents a call changes one after the other, each in its own transaction.
	maxEach = 10_000
	// eventsTogether is how many events one transaction stores.
	eventsTogether = 5000
	// maxMetric is the length of the names of a metric and its variant together: they are
	// entries of indexes, and stored in the task.
	maxMetric = 64 << 10
)

// work is the transaction of one call. Its methods are the steps that calls share.
type work struct{ documents.Writer }

// write runs a call's changes in one transaction and then rings the change feed. do may
// run again, see store.Store.
func (s *Server) write(ctx context.Context, c *Call, do func(w *work) error) error {
	var rings []documents.Touched
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		w := &work{documents.Writer{Tx: tx, Who: c.author(), Now: s.timestamp()}}
		err := do(w)
		rings = w.Touched
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range rings {
		s.opts.OnChange(t.Kind, t.ID)
	}
	return nil
}

// change changes one document.
func (s *Server) change(ctx context.Context, c *Call, kind store.Kind, id string, do func(w *work, doc store.Doc) error) error {
	return s.write(ctx, c, func(w *work) error {
		return w.Change(ctx, kind, id, func(doc store.Doc) error { return do(w, doc) })
	})
}

// counts is the answer of a call that says how many documents or entries it changed.
type counts map[string]int

// changeContent is change for what a document holds, which moves its last_update.
func (s *Server) changeContent(ctx context.Context, c *Call, kind store.Kind, id string, do func(w *work, doc store.Doc) error) (counts, error) {
	return counts{"updated": 1}, s.change(ctx, c, kind, id, func(w *work, doc store.Doc) error {
		doc["last_update"] = w.Now
		return do(w, doc)
	})
}

// changeRun is changeContent for the inputs and outputs of a task, see guardRunning.
func (s *Server) changeRun(ctx context.Context, c *Call, task string, force bool, do func(w *work, doc store.Doc) error) (counts, error) {
	return s.changeContent(ctx, c, store.Task, task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, force); err != nil {
			return err
		}
		return do(w, doc)
	})
}

// find reads a document, or returns the refusal of its kind.
func (s *Server) find(ctx context.Context, kind store.Kind, id string) (store.Doc, error) {
	return documents.Find(ctx, s.store, kind, id)
}

// refuseTaken refuses a name that a document of the kind has.
func refuseTaken(ctx context.Context, from store.Reader, kind store.Kind, name any) error {
	taken, err := from.Count(ctx, kind, documents.Is(name, "name"))
	if err == nil && taken > 0 {
		return documents.Refuse(subUniqueData, "Value combination already exists (unique field already contains this value): name=%s", name)
	}
	return err
}

// byID answers a call that returns one document in full.
func (s *Server) byID(kind store.Kind) handler {
	return typed(func(ctx context.Context, _ *Call, req struct {
		Task    string `json:"task"`
		Model   string `json:"model"`
		Project string `json:"project"`
		Queue   string `json:"queue"`
	},
	) (map[string]store.Doc, error) {
		id := map[store.Kind]string{store.Task: req.Task, store.Model: req.Model, store.Project: req.Project, store.Queue: req.Queue}[kind]
		doc, err := s.find(ctx, kind, id)
		return map[string]store.Doc{string(kind): doc}, err
	})
}

// list answers a call that returns a page of documents. With expand, references become objects.
func (s *Server) list(e documents.Entity, expand bool) handler {
	return typed(func(ctx context.Context, _ *Call, req documents.Fields) (map[string]any, error) {
		req, err := s.withSubprojects(ctx, req)
		if err != nil {
			return nil, err
		}
		return s.lists.List(ctx, e, req, nil, expand)
	})
}

// archivedTag marks documents that are hidden from people's lists. No call filters by it.
const archivedTag = "archived"

// manyAnswer is the answer of a call on several documents. Each succeeds or fails by
// itself; the call succeeds even if all fail.
type manyAnswer struct {
	Succeeded []map[string]any `json:"succeeded"`
	Failed    []failure        `json:"failed"`
}

type failure struct {
	ID    string `json:"id"`
	Error struct {
		Codes [2]int `json:"codes"`
		Msg   string `json:"msg"`
	} `json:"error"`
}

// archiveMany answers a call that hides documents, or shows them again. Trouble of our own
// ends the call.
func (s *Server) archiveMany(kind store.Kind, on bool) handler {
	done := "unarchived"
	if on {
		done = "archived"
	}
	return typed(func(ctx context.Context, c *Call, req struct {
		IDs []string `json:"ids" required:"true"`
	},
	) (manyAnswer, error) {
		answer := manyAnswer{Succeeded: []map[string]any{}, Failed: []failure{}}
		if err := documents.AtMost("ids", len(req.IDs), maxEach); err != nil {
			return answer, err
		}
		for _, id := range req.IDs {
			err := s.archive(ctx, c, kind, id, on)
			if err == nil {
				answer.Succeeded = append(answer.Succeeded, map[string]any{"id": id, done: true})
				continue
			}
			told, trouble := asError(err)
			if trouble {
				return answer, err
			}
			f := failure{ID: id}
			f.Error.Codes, f.Error.Msg = [2]int{told.Code, told.Subcode}, told.Msg
			answer.Failed = append(answer.Failed, f)
		}
		return answer, nil
	})
}

// archive sets or removes the system tag that hides a document. A hidden task leaves its queue.
func (s *Server) archive(ctx context.Context, c *Call, kind store.Kind, id string, on bool) error {
	return s.change(ctx, c, kind, id, func(w *work, doc store.Doc) error {
		documents.SetSystemTag(doc, archivedTag, on)
		if kind != store.Task || !on || doc.Text("status") != "queued" {
			return nil
		}
		if err := w.leaveQueue(ctx, doc); err != nil {
			return err
		}
		return moveTo(doc, "created", true, w.Now)
	})
}

// updateTags answers a call that adds tags to documents and removes others, for all in one
// transaction.
func (s *Server) updateTags(kind store.Kind) handler {
	return typed(func(ctx context.Context, c *Call, req struct {
		IDs        []string `json:"ids" required:"true"`
		AddTags    []string `json:"add_tags"`
		RemoveTags []string `json:"remove_tags"`
	},
	) (updated, error) {
		if err := documents.AtMost("ids", len(req.IDs), maxTogether); err != nil {
			return updated{}, err
		}
		if _, err := documents.CheckTexts("add_tags", anyTexts(req.AddTags), true); err != nil {
			return updated{}, err
		}
		gone := setOf(req.RemoveTags)
		err := s.write(ctx, c, func(w *work) error {
			for _, id := range req.IDs {
				err := w.Change(ctx, kind, id, func(doc store.Doc) error {
					tags := slices.Concat(doc.Strings("tags"), req.AddTags)
					doc["tags"] = documents.SortedTexts(slices.DeleteFunc(tags, func(tag string) bool { return gone[tag] }))
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		return updated{Updated: len(req.IDs), Fields: map[string]any{}}, err
	})
}

// setOf is for lists that are searched many times.
func setOf(texts []string) map[string]bool {
	set := make(map[string]bool, len(texts))
	for _, text := range texts {
		set[text] = true
	}
	return set
}

// anyTexts makes filter values of texts.
func anyTexts(texts []string) []any {
	out := make([]any, len(texts))
	for i, text := range texts {
		out[i] = text
	}
	return out
}

// docIDs returns the ids of documents, sorted.
func docIDs(docs []store.Doc) []string {
	ids := make([]string, len(docs))
	for i, doc := range docs {
		ids[i] = doc.ID()
	}
	slices.Sort(ids)
	return ids
}
