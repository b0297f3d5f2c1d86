package store

import (
	"cmp"
	"slices"
)

// Sort sorts documents as a Query with this Order does, and so defines the meaning of an
// order for adapters. Without an order the documents keep theirs.
func Sort(docs []Doc, order []Order) {
	if len(order) == 0 {
		return
	}
	slices.SortStableFunc(docs, func(a, b Doc) int { return comparePlaces(PlaceOf(a, order), PlaceOf(b, order), order) })
}

// PlaceOf is the place of a document in an order.
func PlaceOf(doc Doc, order []Order) Place {
	p := Place{ID: doc.ID(), Keys: make([]any, len(order))}
	for i, by := range order {
		if key := sortKey(doc, by.Path); keyRank(key) != rankMissing {
			p.Keys[i] = key
		}
	}
	return p
}

// Beyond says whether a Query with this place as its From may return a document.
func (p Place) Beyond(doc Doc, order []Order, backwards bool) bool {
	c := comparePlaces(PlaceOf(doc, order), p, order)
	return (c > 0 && !backwards) || (c < 0 && backwards)
}

// comparePlaces compares two places, each with a key for every part of the order.
func comparePlaces(a, b Place, order []Order) int {
	for i, by := range order {
		if c := compareKeys(a.Keys[i], b.Keys[i], by.Desc); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.ID, b.ID)
}

// compareKeys compares two values of a field. Missing values come last in both directions, and
// values of different types are ordered by type: booleans, numbers, texts.
func compareKeys(a, b any, desc bool) int {
	x, y := keyRank(a), keyRank(b)
	c := cmp.Compare(x, y)
	if x == rankMissing || y == rankMissing {
		return c
	}
	if c == 0 {
		c, _ = compare(a, b)
	}
	if desc {
		return -c
	}
	return c
}

// The ranks of types in an order.
const (
	rankFalse = iota
	rankTrue
	rankNumber
	rankText
	rankMissing
)

func keyRank(v any) int {
	switch _, number := Number(v); {
	case number:
		return rankNumber
	case v == false:
		return rankFalse
	case v == true:
		return rankTrue
	}
	if _, ok := v.(string); ok {
		return rankText
	}
	return rankMissing
}

// sortKey returns the value to sort by: the first element of a list.
func sortKey(d Doc, path Path) any {
	v := d.At(path...)
	for {
		list, ok := v.([]any)
		if !ok {
			return v
		}
		if len(list) == 0 {
			return nil
		}
		v = list[0]
	}
}
