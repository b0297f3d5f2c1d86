package documents

import (
	"context"
	"time"

	"clearmlserving/controlplane/store"
)

// scrollLife is how long a scroll is kept after its last call.
const scrollLife = time.Hour

// Scroll is a client's position in a list. As on a ClearML server the id stays the same, and
// each call continues where the one before ended. The state is a document, so that several
// servers on one database share it.
type Scroll struct{ Doc store.Doc }

// ScrollOf returns the scroll with an id. For an unknown or expired one it returns a new
// scroll, with a new id.
func (s Lists) ScrollOf(ctx context.Context, id string) (Scroll, error) {
	if id != "" {
		doc, err := store.IfThere(s.store.Get(ctx, store.Scroll, id))
		if err != nil {
			return Scroll{}, err
		}
		if seen, err := store.ParseTime(doc.Text("last_update")); err == nil && s.now().Sub(seen).Abs() <= scrollLife {
			return Scroll{doc}, nil
		}
	}
	return Scroll{store.Doc{"id": NewID()}}, nil
}

// KeepScroll stores the position of a scroll. A new one removes expired ones.
func (s Lists) KeepScroll(ctx context.Context, of Scroll) error {
	of.Doc["last_update"] = store.FormatTime(s.now())
	return s.store.Tx(ctx, func(tx store.Tx) error {
		return store.Keep(ctx, tx, store.Scroll, of.Doc, s.now().Add(-scrollLife))
	})
}

// window moves a window to the position of the scroll. In an order that is after the last
// document of the page before, so that writes in between move no page.
func (of Scroll) window(w window, order []store.Order, refresh bool) window {
	position := int(of.Doc.Int("position"))
	if refresh { // repeat what was read already
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

// move advances the position by a page.
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
