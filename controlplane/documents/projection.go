package documents

import (
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// projection is the content of only_fields: paths to keep and paths to drop. The zero value
// keeps all.
type projection struct {
	keep, drop [][]string
}

// projection reads only_fields, or projection, its other name. Fields below a reference need
// expand.
func (e Entity) projection(req Fields, expand bool) (projection, error) {
	value := req["only_fields"]
	if value == nil {
		value = req["projection"]
	}
	var p projection
	for _, item := range ListOf(value) {
		name, ok := item.(string)
		if !ok {
			return projection{}, Invalid("only_fields must be a list of field names")
		}
		name, leaveOut := strings.CutPrefix(strings.TrimSpace(name), "-")
		name = strings.TrimSuffix(name, ".*")
		if name == "" || name == "*" {
			continue
		}
		path := strings.Split(name, ".")
		if err := e.knows(path, expand); err != nil {
			return projection{}, err
		}
		if leaveOut {
			p.drop = append(p.drop, path)
		} else {
			p.keep = append(p.keep, path)
		}
	}
	return p, nil
}

// withIDs also keeps the ids of the references with projected fields.
func (p projection) withIDs(references []reference) projection {
	for _, ref := range references {
		if len(p.asks(ref.path)) > 0 {
			p.keep = append(p.keep, append(slices.Clone(ref.path), "id"))
		}
	}
	return p
}

// asks returns the paths of the projection below a path, such as name for project.name.
func (p projection) asks(path store.Path) [][]string {
	var below [][]string
	for _, keep := range p.keep {
		if len(keep) > len(path) && slices.Equal(keep[:len(path)], path) {
			below = append(below, keep[len(path):])
		}
	}
	return below
}

// apply returns the projection of a document. The id is always kept. The result may share
// parts with the document.
func (p projection) apply(doc store.Doc) map[string]any {
	out := map[string]any(doc)
	if len(p.keep) > 0 {
		out = pick(doc, p.keep)
		out["id"] = doc.ID()
	}
	for _, path := range p.drop {
		if !slices.Equal(path, []string{"id"}) {
			out = without(out, path)
		}
	}
	return out
}

// pick keeps the values at the paths, nested as before. Of keys with dots the longest
// matching one is meant.
func pick(object map[string]any, paths [][]string) map[string]any {
	rests := map[string][][]string{}
	for _, path := range paths {
		if key, n := longestKey(object, path); n > 0 {
			rests[key] = append(rests[key], path[n:])
		}
	}
	out := make(map[string]any, len(rests))
	for key, below := range rests {
		if kept, ok := pickBelow(object[key], below); ok {
			out[key] = kept
		}
	}
	return out
}

func pickBelow(v any, paths [][]string) (any, bool) {
	if slices.ContainsFunc(paths, func(path []string) bool { return len(path) == 0 }) {
		return v, v != nil
	}
	switch v := v.(type) {
	case map[string]any:
		return pick(v, paths), true
	case []any:
		out := make([]any, 0, len(v))
		for _, item := range v {
			if kept, ok := pickBelow(item, paths); ok {
				out = append(out, kept)
			}
		}
		return out, true
	}
	return nil, false
}

// without returns a copy that lacks the value at the path.
func without(object map[string]any, path []string) map[string]any {
	key, n := longestKey(object, path)
	if n == 0 {
		return object
	}
	out := maps.Clone(object)
	rest := path[n:]
	if len(rest) == 0 {
		delete(out, key)
		return out
	}
	switch v := object[key].(type) {
	case map[string]any:
		out[key] = without(v, rest)
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			if inner, ok := item.(map[string]any); ok {
				item = without(inner, rest)
			}
			items[i] = item
		}
		out[key] = items
	}
	return out
}

// longestKey finds the key of an object that equals the most leading elements of a path,
// joined by dots, and returns their number; 0 if there is none.
func longestKey(object map[string]any, path []string) (string, int) {
	for n := len(path); n > 0; n-- {
		key := strings.Join(path[:n], ".")
		if _, ok := object[key]; ok {
			return key, n
		}
	}
	return "", 0
}

// eachAt replaces each non-empty text at a path, going into lists.
func eachAt(at any, path store.Path, replace func(string) any) {
	switch at := at.(type) {
	case []any:
		for _, item := range at {
			eachAt(item, path, replace)
		}
	case map[string]any:
		if len(path) > 1 {
			eachAt(at[path[0]], path[1:], replace)
			return
		}
		if text, ok := at[path[0]].(string); ok && text != "" {
			at[path[0]] = replace(text)
		}
	}
}
