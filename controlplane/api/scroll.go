package api

import (
	"context"
	"errors"
	"time"

	"clearmlserving/controlplane/store"
)

// scrollLife is how long a scroll waits for its next call.
const scrollLife = time.Hour

// scroll is how far a client has read. As on a ClearML server the id stays the same, and
// each call with it goes on where the one before ended. The state is a document, so that
// several servers on one database share it.
type scroll struct {
	doc   store.Doc
	known bool // it is stored already
}

// scrollOf returns the scroll with an id. One that is unknown or too old begins anew, with
// an id of its own.
func (s *Server) scrollOf(ctx context.Context, id string) (scroll, error) {
	if id != "" {
		doc, err := s.store.Get(ctx, store.Scroll, id)
		if err == nil {
			seen, badTime := store.ParseTime(doc.Text("last_update"))
			if badTime == nil && s.now().Sub(seen).Abs() <= scrollLife {
				return scroll{doc: doc, known: true}, nil
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return scroll{}, err
		}
	}
	return scroll{doc: store.Doc{"id": newID()}}, nil
}

// keepScroll stores how far a scroll is. A new one removes those that are too old.
func (s *Server) keepScroll(ctx context.Context, of scroll) error {
	of.doc["last_update"] = s.timestamp()
	return s.store.Tx(ctx, func(tx store.Tx) error {
		if of.known {
			if err := tx.Put(ctx, store.Scroll, of.doc); !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		tooOld := store.Compare{Path: store.Path{"last_update"}, Op: store.Less, Value: store.FormatTime(s.now().Add(-scrollLife))}
		old, err := tx.Query(ctx, store.Scroll, store.Query{Where: tooOld, Limit: 100})
		if err != nil {
			return err
		}
		for _, doc := range old {
			if err := tx.Delete(ctx, store.Scroll, doc.ID()); err != nil {
				return err
			}
		}
		return tx.Insert(ctx, store.Scroll, of.doc)
	})
}

// window moves a window to where the scroll is. In an order that is behind the last
// document of the page before, so that what is written meanwhile moves no page.
func (of scroll) window(w window, order []store.Order, refresh bool) window {
	position := int(of.doc.Int("position"))
	if refresh { // once more what was read already
		delete(of.doc, "place")
		of.doc["position"] = number(0)
		w.limit = min(max(position, w.limit), maxPage)
		return w
	}
	place, _ := of.doc["place"].([]any)
	if n := len(order); n > 0 && len(place) == n+1 {
		w.from = &store.Place{Keys: place[:n], ID: asText(place[n])}
	} else {
		w.offset = position
	}
	return w
}

// move notes that a page was read.
func (of scroll) move(page []store.Doc, order []store.Order) {
	if len(page) == 0 {
		return
	}
	of.doc["position"] = number(of.doc.Int("position") + int64(len(page)))
	delete(of.doc, "place")
	if len(order) > 0 {
		last := store.PlaceOf(page[len(page)-1], order)
		of.doc["place"] = append(append([]any{}, last.Keys...), last.ID)
	}
}
