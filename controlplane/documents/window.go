package documents

import (
	"cmp"
	"encoding/json"

	"clearmlserving/controlplane/store"
)

// window is the returned part of the matches.
type window struct {
	offset, limit int
	// from and backwards are those of store.Query.
	from      *store.Place
	backwards bool
	// scrolls: the answer has a scroll id. scroll is the one of the request, if any.
	scrolls bool
	scroll  string
}

// windowOf reads page and page_size, start and size, or scroll_id and size. search_after or
// search_before may replace the begin of these.
func windowOf(req Fields, order []store.Order) (window, error) {
	w, err := countedWindow(req)
	if err != nil {
		return window{}, err
	}
	for _, key := range []string{"search_after", "search_before"} {
		value := req[key]
		switch {
		case value == nil:
			continue
		case w.offset > 0 || w.scroll != "" || w.backwards || w.from != nil:
			return window{}, Invalid("%s is given beside another place to begin at: leave out page, start, scroll_id, and the other of search_after and search_before", key)
		}
		if w.from, err = placeOf(key, value, order); err != nil {
			return window{}, err
		}
		w.backwards, w.scrolls = key == "search_before", false
	}
	return w, nil
}

// placeOf reads a place in an order: the values of the fields of order_by, then the id. An
// empty list is the begin for search_after, and the end for search_before.
func placeOf(key string, value any, order []store.Order) (*store.Place, error) {
	values, ok := value.([]any)
	if ok && len(values) == 0 {
		return nil, nil
	}
	var id string
	if ok && len(values) == len(order)+1 {
		id, _ = values[len(order)].(string)
	}
	if id == "" || len(order) == 0 {
		return nil, Invalid("%s must be a list: the value of each field of order_by, of which there must be one, and then the id", key)
	}
	for _, v := range values[:len(order)] {
		if v != nil && !plain(v) {
			return nil, Invalid("%s holds what no list is sorted by: give texts, numbers, flags, or null", key)
		}
	}
	return &store.Place{Keys: values[:len(order)], ID: id}, nil
}

// countedWindow is windowOf without search_after and search_before.
func countedWindow(req Fields) (window, error) {
	numbers := map[string]int64{}
	for _, f := range []struct {
		key   string
		least int64
	}{{"page", 0}, {"page_size", 1}, {"size", 1}, {"start", 0}} {
		n, err := IntField(req, f.key)
		switch {
		case err != nil:
			return window{}, err
		case n == nil:
			continue
		case *n < f.least:
			return window{}, Invalid("%s must be %d or more, not %d", f.key, f.least, *n)
		case f.least == 0 && *n > 1<<40:
			return window{}, Invalid("%s is too large", f.key)
		}
		numbers[f.key] = *n
	}
	_, hasStart := numbers["start"]
	size, hasSize := numbers["size"]
	scroll, scrolls := req["scroll_id"].(string)
	switch {
	case !hasSize && (scrolls || hasStart):
		return window{}, Invalid("size, a whole number of 1 or more, is required with scroll_id and start")
	case hasSize:
		return window{offset: int(numbers["start"]), limit: int(min(size, MaxPage)), scrolls: !hasStart, scroll: scroll}, nil
	}
	limit := min(cmp.Or(numbers["page_size"], MaxPage), MaxPage)
	return window{offset: int(numbers["page"] * limit), limit: int(limit)}, nil
}

// IntField reads a whole number, nil when it is absent.
func IntField(req Fields, key string) (*int64, error) {
	switch v := req[key].(type) {
	case nil:
		return nil, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return &n, nil
		}
	}
	return nil, Invalid("%s must be a whole number", key)
}
