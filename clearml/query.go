package clearml

import (
	"context"
	"maps"
)

// pageSize is the most that servers give at once.
const pageSize = 500

// query is a request of a get_all call.
type query map[string]any

func (q query) list(key string, values []string) {
	if len(values) > 0 {
		q[key] = values
	}
}

func (q query) text(key, value string) {
	if value != "" {
		q[key] = value
	}
}

// pages reads a get_all call page by page, up to limit items (0: all). It stops
// at a short page, and at one that brings nothing new, so that a server which
// ignores paging cannot keep it going. An item without an id is left out.
func pages[D, T any](ctx context.Context, c *Client, call string, q query, limit int, id func(T) string, items func(D) []T) ([]T, error) {
	var all []T
	seen := map[string]bool{}
	for page := 0; ; page++ {
		size := pageSize
		if limit > 0 {
			size = min(size, limit) // pages must stay of one size, so the last may bring too many
		}
		req := maps.Clone(q)
		req["page"], req["page_size"] = page, size
		var data D
		if err := c.Call(ctx, call, req, &data); err != nil {
			return nil, err
		}
		got, fresh := items(data), false
		for _, item := range got {
			if key := id(item); key != "" && !seen[key] {
				seen[key], fresh = true, true
				all = append(all, item)
			}
		}
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if len(got) < size || !fresh {
			return all, nil
		}
	}
}
