package hocon

import (
	"encoding/json"
	"strconv"
	"strings"
)

// The limits of substitution. Without them a short text could refer to itself so often that the
// result exhausts the memory.
const (
	maxChain  = 500      // depth of substitutions in substitutions
	maxLayers = 5000     // values of one key on top of each other
	maxCopied = 16 << 20 // approximate bytes that substitutions may copy
)

// resolver replaces substitutions by their values. It resolves each node once, on first use.
type resolver struct {
	src    string
	root   *objectNode
	env    func(string) (string, bool)
	done   map[node]resolved
	active map[node]bool
	self   []node // values that "key +=" adds to, innermost last
	chain  int
	layers int
	copied int
}

// resolved is a value, or its absence (${?name} without a value).
type resolved struct {
	value   any
	present bool
}

func newResolver(src string, root *objectNode, env func(string) (string, bool)) *resolver {
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	return &resolver{src: src, root: root, env: env, done: map[node]resolved{}, active: map[node]bool{}}
}

func (r *resolver) document() (*Object, error) {
	v, err := r.resolve(r.root)
	if err != nil {
		return nil, err
	}
	return v.value.(*Object), nil
}

func (r *resolver) resolve(n node) (resolved, error) {
	if s, ok := n.(*singleNode); ok {
		return resolved{s.value, true}, nil
	}
	if v, ok := r.done[n]; ok {
		return v, nil
	}
	r.active[n] = true
	v, err := r.compute(n)
	delete(r.active, n)
	if err != nil {
		return resolved{}, err
	}
	r.done[n] = v
	return v, nil
}

func (r *resolver) compute(n node) (resolved, error) {
	switch n := n.(type) {
	case *objectNode:
		o := &Object{values: make(map[string]any, len(n.keys))}
		for _, key := range n.keys {
			v, err := r.resolve(n.fields[key])
			if err != nil {
				return v, err
			}
			if v.present {
				o.put(key, v.value)
			}
		}
		return resolved{o, true}, nil
	case *listNode:
		list := make([]any, 0, len(n.items))
		for _, item := range n.items {
			v, err := r.resolve(item)
			if err != nil {
				return v, err
			}
			if v.present {
				list = append(list, v.value)
			}
		}
		return resolved{list, true}, nil
	case *overrideNode:
		return r.override(n)
	case *concatNode:
		return r.concat(n)
	case *substitutionNode:
		return r.substitute(n)
	default: // *selfNode
		if len(r.self) == 0 || r.self[len(r.self)-1] == nil {
			return resolved{}, nil
		}
		return r.resolve(r.self[len(r.self)-1])
	}
}

func (r *resolver) override(n *overrideNode) (resolved, error) {
	if r.layers++; r.layers > maxLayers {
		return resolved{}, syntaxError(r.src, n.at, "more than %d values are added to one key", maxLayers)
	}
	defer func() { r.layers-- }()
	r.self = append(r.self, n.below)
	above, err := r.resolve(n.above)
	r.self = r.self[:len(r.self)-1]
	if err != nil {
		return above, err
	}
	over, isObject := above.value.(*Object)
	if above.present && !isObject {
		return above, nil
	}
	below, err := r.resolve(n.below)
	if err != nil || !above.present {
		return below, err
	}
	if under, ok := below.value.(*Object); ok {
		return resolved{Merge(under, over), true}, nil
	}
	return above, nil
}

func (r *resolver) concat(n *concatNode) (resolved, error) {
	var values []any
	var spaces []string
	for _, piece := range n.pieces {
		v, err := r.resolve(piece.node)
		if err != nil {
			return v, err
		}
		if v.present {
			values, spaces = append(values, v.value), append(spaces, piece.space)
		}
	}
	switch len(values) {
	case 0:
		return resolved{}, nil
	case 1:
		return resolved{values[0], true}, nil
	}
	switch values[0].(type) {
	case *Object:
		var merged *Object
		for _, v := range values {
			o, ok := v.(*Object)
			if !ok {
				return resolved{}, syntaxError(r.src, n.at, mixed)
			}
			merged = Merge(merged, o)
		}
		return resolved{merged, true}, nil
	case []any:
		all := []any{}
		for _, v := range values {
			list, ok := v.([]any)
			if !ok {
				return resolved{}, syntaxError(r.src, n.at, mixed)
			}
			all = append(all, list...)
		}
		return resolved{all, true}, nil
	}
	var b strings.Builder
	for i, v := range values {
		text, ok := textOf(v)
		if !ok {
			return resolved{}, syntaxError(r.src, n.at, mixed)
		}
		b.WriteString(text)
		if i < len(values)-1 {
			b.WriteString(spaces[i])
		}
	}
	return resolved{b.String(), true}, nil
}

// textOf formats a single value for a text of several pieces.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	default:
		return "", false
	}
}

// substitute looks a name up: in the text first, then in the environment.
func (r *resolver) substitute(n *substitutionNode) (resolved, error) {
	if r.chain++; r.chain > maxChain {
		return resolved{}, syntaxError(r.src, n.at, "${%s}: more than %d substitutions lead to each other", n.name, maxChain)
	}
	defer func() { r.chain-- }()
	v, cycle, err := r.lookup(n.name)
	if err != nil {
		return v, err
	}
	if !v.present {
		if text, ok := r.env(n.name); ok {
			v = resolved{text, true}
		}
	}
	switch {
	case v.present:
		if r.count(v.value); r.copied > maxCopied {
			return resolved{}, syntaxError(r.src, n.at, "${%s}: substitutions make the text too big", n.name)
		}
	case n.optional:
	case cycle:
		return resolved{}, syntaxError(r.src, n.at, "${%s} refers to itself", n.name)
	default:
		return resolved{}, syntaxError(r.src, n.at, "${%s} is neither a key of this text nor a variable of the environment; write ${?%s} if it may be absent", n.name, n.name)
	}
	return v, nil
}

// lookup walks a path from the root. Objects on the way need not be resolved, so an object may
// refer to its own fields. A value that is being resolved has its value from before that
// assignment.
func (r *resolver) lookup(name string) (found resolved, cycle bool, err error) {
	var at node = r.root
	path := splitPath(name)
	for i, key := range path {
		raw, isRaw := at.(*objectNode)
		if !isRaw {
			v, err := r.resolve(at)
			if err != nil {
				return resolved{}, false, err
			}
			o, _ := v.value.(*Object)
			value, ok := o.get(path[i:])
			return resolved{value, ok}, false, nil
		}
		field, ok := raw.fields[key]
		if !ok {
			return resolved{}, false, nil
		}
		for r.active[field] {
			over, ok := field.(*overrideNode)
			if !ok {
				// A path through an unresolved object is allowed, its use as a whole is not.
				if _, isObject := field.(*objectNode); isObject && i < len(path)-1 {
					break
				}
				return resolved{}, true, nil
			}
			field = over.below
		}
		at = field
	}
	found, err = r.resolve(at)
	return found, false, err
}

// count adds the size of a copied value to the total, and stops at the limit.
func (r *resolver) count(v any) {
	r.copied += 16
	switch v := v.(type) {
	case string:
		r.copied += len(v)
	case []any:
		for _, item := range v {
			if r.copied <= maxCopied {
				r.count(item)
			}
		}
	case *Object:
		for _, key := range v.keys {
			if r.copied <= maxCopied {
				r.copied += len(key)
				r.count(v.values[key])
			}
		}
	}
}
