package store

import (
	"cmp"
	"slices"
)

// Sort orders documents as a Query with this Order does: the meaning that adapters
// keep to. Without an order the documents are left as they are.
func Sort(docs []Doc, order []Order) {
	if len(order) == 0 {
		return
	}
	slices.SortStableFunc(docs, func(a, b Doc) int {
		for _, by := range order {
			if c := compareKeys(sortKey(a, by.Path), sortKey(b, by.Path), by.Desc); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.ID(), b.ID())
	})
}

// compareKeys orders two values of a field; what is missing comes last either way, and
// values of different types go by type: booleans, numbers, texts.
func compareKeys(a, b any, desc bool) int {
	x, y := keyRank(a), keyRank(b)
	switch {
	case x == rankMissing || y == rankMissing:
		return cmp.Compare(x, y)
	case x != y:
		if desc {
			x, y = y, x
		}
		return cmp.Compare(x, y)
	}
	c, _ := compare(a, b)
	if x == rankBool {
		c = compareBools(a == true, b == true)
	}
	if desc {
		return -c
	}
	return c
}

const (
	rankBool = iota
	rankNumber
	rankText
	rankMissing
)

func keyRank(v any) int {
	if _, ok := asNumber(v); ok {
		return rankNumber
	}
	switch v.(type) {
	case bool:
		return rankBool
	case string:
		return rankText
	}
	return rankMissing
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// sortKey returns the value to sort by: of a list its first element.
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
