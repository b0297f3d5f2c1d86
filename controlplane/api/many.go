package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// archivedTag marks what is hidden from people's lists; no call leaves it out by itself.
const archivedTag = "archived"

// manyAnswer is the answer of a call on several documents: each succeeds or fails by
// itself, and the call succeeds even when all have failed.
type manyAnswer struct {
	Succeeded []map[string]any `json:"succeeded"`
	Failed    []failure        `json:"failed"`
}

type failure struct {
	ID    string       `json:"id"`
	Error failureError `json:"error"`
}

type failureError struct {
	Codes [2]int `json:"codes"`
	Msg   string `json:"msg"`
}

// many runs one change for each id. Trouble of our own ends the call.
func many(ids []string, one func(id string) (map[string]any, error)) (manyAnswer, error) {
	answer := manyAnswer{Succeeded: []map[string]any{}, Failed: []failure{}}
	if len(ids) == 0 {
		return answer, documents.Missing("ids")
	}
	if err := documents.AtMost("ids", len(ids), maxEach); err != nil {
		return answer, err
	}
	for _, id := range ids {
		done, err := one(id)
		if err != nil {
			told, trouble := asError(err)
			if trouble {
				return answer, err
			}
			answer.Failed = append(answer.Failed, failure{id, failureError{[2]int{told.Code, told.Subcode}, told.Msg}})
			continue
		}
		done["id"] = id
		answer.Succeeded = append(answer.Succeeded, done)
	}
	return answer, nil
}

type manyRequest struct {
	IDs []string `json:"ids"`
}

// archive sets or takes away the system tag that hides a document.
func (s *Server) archive(ctx context.Context, c *Call, kind store.Kind, id string, on bool) (map[string]any, error) {
	err := s.write(ctx, c, func(w *work) error {
		return w.Change(ctx, kind, id, func(doc store.Doc) error {
			documents.SetSystemTag(doc, archivedTag, on)
			if kind != store.Task || !on || doc.Text("status") != "queued" {
				return nil
			}
			if err := w.leaveQueue(ctx, doc); err != nil {
				return err
			}
			return moveTo(doc, "created", true, w.Now)
		})
	})
	if on {
		return map[string]any{"archived": true}, err
	}
	return map[string]any{"unarchived": true}, err
}

// archiveManyTasks hides tasks.
func (s *Server) archiveManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Task, id, true) })
}

// unarchiveManyTasks brings hidden tasks back.
func (s *Server) unarchiveManyTasks(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Task, id, false) })
}

// archiveManyModels hides models.
func (s *Server) archiveManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Model, id, true) })
}

// unarchiveManyModels brings hidden models back.
func (s *Server) unarchiveManyModels(ctx context.Context, c *Call, req manyRequest) (manyAnswer, error) {
	return many(req.IDs, func(id string) (map[string]any, error) { return s.archive(ctx, c, store.Model, id, false) })
}
