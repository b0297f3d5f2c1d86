package api

import (
	"context"

	"clearmlserving/controlplane/store"
)

// updateTasks is tasks.update for many, one JSON object a line: all or none.
func (s *Server) updateTasks(ctx context.Context, c *Call, body []byte, _ bool) (countAnswer, error) {
	requests, err := parseEvents(body)
	if err != nil {
		return countAnswer{}, err
	}
	if len(requests) == 0 {
		return countAnswer{}, refuse(subNoItems, "Batch contains no items")
	}
	err = s.write(ctx, c, func(w *work) error {
		for _, req := range requests {
			fields, err := takeTask(Fields(req), updateShapes)
			if err != nil {
				return err
			}
			if err := w.checkTaskLinks(ctx, fields); err != nil {
				return err
			}
			err = w.change(ctx, store.Task, req.Text("task"), func(doc store.Doc) error {
				if status := asText(fields["status"]); status != "" {
					if err := moveTo(doc, status, truth(req["force"]), w.now); err != nil {
						return err
					}
				}
				applyTaskFields(doc, fields)
				doc["last_update"] = w.now
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return countAnswer{len(requests)}, err
}

// There is one company here, so what is its own and what is public are seen by the same
// people: these calls check what they are given and change nothing.

func (s *Server) makePublicTasks(ctx context.Context, _ *Call, req manyRequest) (countAnswer, error) {
	return s.known(ctx, store.Task, req.IDs)
}

func (s *Server) makePrivateTasks(ctx context.Context, _ *Call, req manyRequest) (countAnswer, error) {
	return s.known(ctx, store.Task, req.IDs)
}

func (s *Server) makePublicModels(ctx context.Context, _ *Call, req manyRequest) (countAnswer, error) {
	return s.known(ctx, store.Model, req.IDs)
}

func (s *Server) makePrivateModels(ctx context.Context, _ *Call, req manyRequest) (countAnswer, error) {
	return s.known(ctx, store.Model, req.IDs)
}

// known refuses ids that no document has.
func (s *Server) known(ctx context.Context, kind store.Kind, ids []string) (countAnswer, error) {
	if len(ids) == 0 {
		return countAnswer{}, missing("ids")
	}
	for _, id := range ids {
		if _, err := s.store.Get(ctx, kind, id); err != nil {
			return countAnswer{}, notFound(err, kind, id)
		}
	}
	return countAnswer{len(ids)}, nil
}
