package documents

import (
	"context"
	"errors"
	"time"

	"clearmlserving/controlplane/store"
)

// scrollLife is how long a scroll waits for its next call.
const scrollLife = time.Hour

// Scroll is how far a client has read. As on a ClearML server the id stays the same, and
// each call with it goes on where the one before ended. The state is a document, so that
// several servers on one database share it.
type Scroll struct {
	Doc   store.Doc
	known bool // it is stored already
}

// ScrollOf returns the scroll with an id. One that is unknown or too old begins anew, with
// an id of its own.
func (s Lists) ScrollOf(ctx context.Context, id string) (Scroll, error) {
	if id != "" {
		doc, err := store.IfThere(s.store.Get(ctx, store.Scroll, id))
		if err != nil {
			return Scroll{}, err
		}
		if seen, err := store.ParseTime(doc.Text("last_update")); err == nil && s.now().Sub(seen).Abs() <= scrollLife {
			return Scroll{Doc: doc, known: true}, nil
		}
	}
	return Scroll{Doc: store.Doc{"id": NewID()}}, nil
}

// KeepScroll stores how far a scroll is. A new one removes those that are too old.
func (s Lists) KeepScroll(ctx context.Context, of Scroll) error {
	of.Doc["last_update"] = store.FormatTime(s.now())
	return s.store.Tx(ctx, func(tx store.Tx) error {
		if of.known {
			if err := tx.Put(ctx, store.Scroll, of.Doc); !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		if err := store.Expire(ctx, tx, store.Scroll, s.now().Add(-scrollLife)); err != nil {
			return err
		}
		return tx.Insert(ctx, store.Scroll, of.Doc)
	})
}

// window moves a window to where the scroll is. In an order that is behind the last
// document of the page before, so that what is written meanwhile moves no page.
func (of Scroll) window(w window, order []store.Order, refresh bool) window {
	position := int(of.Doc.Int("position"))
	if refresh { // once more what was read already
		delete(of.Doc, "place")
		of.Doc["position"] = Number(0)
		w.limit = min(max(position, w.limit), MaxPage)
		return w
	}
	place, _ := of.Doc["place"].([]any)
	if n := len(order); n > 0 && len(place) == n+1 {
		w.from = &store.Place{Keys: place[:n], ID: AsText(place[n])}
	} else {
		w.offset = position
	}
	return w
}

// move notes that a page was read.
func (of Scroll) move(page []store.Doc, order []store.Order) {
	if len(page) == 0 {
		return
	}
	of.Doc["position"] = Number(of.Doc.Int("position") + int64(len(page)))
	delete(of.Doc, "place")
	if len(order) > 0 {
		last := store.PlaceOf(page[len(page)-1], order)
		of.Doc["place"] = append(append([]any{}, last.Keys...), last.ID)
	}
}
