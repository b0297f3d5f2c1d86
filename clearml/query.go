package clearml

import (
	"context"
	"fmt"
	"maps"
	"strings"
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

// byID reads one document with a call such as "tasks.get_by_id".
func byID[T any](ctx context.Context, c *Client, call, id string, idOf func(T) string) (T, error) {
	kind, _, _ := strings.Cut(call, "s.")
	var data map[string]T
	err := c.Call(ctx, call, map[string]string{kind: id}, &data)
	if err == nil && idOf(data[kind]) == "" {
		err = fmt.Errorf("%s: the answer for %s %s has no %s", call, kind, id, kind)
	}
	if err != nil {
		var none T
		return none, err
	}
	return data[kind], nil
}

// getAll reads documents with a call such as "tasks.get_all", page by page, up to limit (0: all). It stops at a short page, and at
// one that brings nothing new, so that a server which ignores paging cannot keep it going. A
// document without an id is left out.
func getAll[T any](ctx context.Context, c *Client, call string, q query, limit int, idOf func(T) string) ([]T, error) {
	name, _, _ := strings.Cut(call, ".")
	var all []T
	seen := map[string]bool{}
	for page := 0; ; page++ {
		size := pageSize
		if limit > 0 {
			size = min(size, limit) // pages must stay of one size, so the last may bring too many
		}
		req := maps.Clone(q)
		req["page"], req["page_size"] = page, size
		var data map[string][]T
		if err := c.Call(ctx, call, req, &data); err != nil {
			return nil, err
		}
		got, fresh := data[name], false
		for _, item := range got {
			if key := idOf(item); key != "" && !seen[key] {
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
