// Package documents reads and writes the documents of the control plane for the calls of the
// ClearML API: filters, orders, pages, and projections of lists, the shapes of fields, and
// transactions that stamp and normalise documents.
//
// It owns the filter language and the refusals of requests for documents. It knows no calls,
// no HTTP, and no rules of one kind such as the status of a task.
package documents

import (
	"context"
	"time"

	"clearmlserving/controlplane/store"
)

// Lists answers requests for pages of documents.
type Lists struct {
	store store.Store
	now   func() time.Time
}

// NewLists makes Lists on a store; now is the clock of scrolls.
func NewLists(from store.Store, now func() time.Time) Lists { return Lists{from, now} }

// List answers a get_all call: one page of the matching documents, in order, with the
// requested fields. With expand, references become objects. also is a condition of the call
// beside those of the request, or nil.
func (s Lists) List(ctx context.Context, e Entity, req Fields, also store.Expr, expand bool) (map[string]any, error) {
	where, err := e.where(req)
	if err != nil {
		return nil, err
	}
	if also != nil {
		where = append(where, also)
	}
	q := store.Query{Where: where}
	if q.Order, err = e.order(req); err != nil {
		return nil, err
	}
	window, err := windowOf(req, q.Order)
	if err != nil {
		return nil, err
	}
	var at Scroll
	if window.scrolls {
		if at, err = s.ScrollOf(ctx, window.scroll); err != nil {
			return nil, err
		}
		window = at.window(window, q.Order, Truth(req["refresh_scroll"]))
	}
	q.Offset, q.Limit, q.From, q.Backwards = window.offset, window.limit, window.from, window.backwards
	fields, err := e.projection(req, expand)
	if err != nil {
		return nil, err
	}
	docs, err := s.store.Query(ctx, e.kind, q)
	if err != nil {
		return nil, err
	}
	if window.scrolls {
		at.move(docs, q.Order)
		if err := s.KeepScroll(ctx, at); err != nil {
			return nil, err
		}
	}
	if expand {
		if err := s.expand(ctx, docs, e.references, fields); err != nil {
			return nil, err
		}
		fields = fields.withIDs(e.references)
	}
	out := make([]map[string]any, len(docs))
	for i, doc := range docs {
		out[i] = fields.apply(doc)
	}
	answer := map[string]any{e.name: out}
	if window.scrolls {
		answer["scroll_id"] = at.Doc.ID()
	}
	return answer, nil
}

// expand turns the references of documents into objects: {"id": …} and the projected fields
// of the document referred to. A missing document keeps its id.
func (s Lists) expand(ctx context.Context, docs []store.Doc, references []reference, fields projection) error {
	for _, ref := range references {
		below := fields.asks(ref.path)
		known := map[string]store.Doc{}
		if len(below) > 0 {
			var ids []any
			for _, doc := range docs {
				eachAt(map[string]any(doc), ref.path, func(id string) any {
					ids = append(ids, id)
					return id
				})
			}
			found, err := s.store.Query(ctx, ref.kind, store.Query{Where: store.In{Path: store.Path{"id"}, Values: ids}})
			if err != nil {
				return err
			}
			for _, doc := range found {
				known[doc.ID()] = doc
			}
		}
		for _, doc := range docs {
			eachAt(map[string]any(doc), ref.path, func(id string) any {
				out := map[string]any{}
				if target, ok := known[id]; ok {
					out = pick(target, below)
				}
				out["id"] = id
				return out
			})
		}
	}
	return nil
}
