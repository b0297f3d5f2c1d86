package documents

import (
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// MaxPage is the maximal number of documents in one answer. The SDK takes a page with fewer
// than requested for the last one.
const MaxPage = 500

// Entity says how the documents of one kind are listed: which keys of a request are
// filters, and of which class. Keys that end in ".*" match all paths below.
type Entity struct {
	kind store.Kind
	// name is the key of the answer.
	name      string
	patterns  []string
	lists     []string
	ranges    []string
	datetimes []string
	exact     []string
	// searched are the fields of search_text.
	searched []string
	// references are the fields that hold ids of other documents.
	references []reference
	// hides: documents with the system tag "hidden" are left out by default.
	hides bool
}

// reference is a field with the id of a document of another kind.
type reference struct {
	path store.Path
	kind store.Kind
}

// TaskEntity is how tasks are listed.
var TaskEntity = Entity{
	kind:      store.Task,
	name:      "tasks",
	patterns:  []string{"name", "comment", "report"},
	lists:     []string{"id", "user", "tags", "system_tags", "type", "status", "project", "parent", "hyperparams.*", "execution.queue", "models.input.model", "models.output.model"},
	ranges:    []string{"created", "started", "active_duration", "last_metrics.*", "last_iteration"},
	datetimes: []string{"status_changed", "last_update", "last_change"},
	exact:     []string{"runtime.*"},
	searched:  []string{"name", "id", "comment"},
	references: []reference{
		{store.Path{"project"}, store.Project},
		{store.Path{"parent"}, store.Task},
		{store.Path{"user"}, store.User},
		{store.Path{"company"}, store.Company},
		{store.Path{"execution", "queue"}, store.Queue},
		{store.Path{"models", "input", "model"}, store.Model},
		{store.Path{"models", "output", "model"}, store.Model},
	},
	hides: true,
}

// ModelEntity is how models are listed.
var ModelEntity = Entity{
	kind:      store.Model,
	name:      "models",
	patterns:  []string{"name", "comment"},
	lists:     []string{"tags", "system_tags", "framework", "uri", "id", "user", "project", "task", "parent", "metadata.*"},
	ranges:    []string{"created", "last_metrics.*", "last_iteration"},
	datetimes: []string{"last_update", "last_change"},
	exact:     []string{"ready"},
	searched:  []string{"name", "id", "comment"},
	references: []reference{
		{store.Path{"project"}, store.Project},
		{store.Path{"parent"}, store.Model},
		{store.Path{"task"}, store.Task},
		{store.Path{"user"}, store.User},
		{store.Path{"company"}, store.Company},
	},
}

// ProjectEntity is how projects are listed.
var ProjectEntity = Entity{
	kind:      store.Project,
	name:      "projects",
	patterns:  []string{"name", "basename", "description"},
	lists:     []string{"tags", "system_tags", "id", "parent", "user"},
	datetimes: []string{"last_update", "created"},
	searched:  []string{"name", "id", "description"},
	references: []reference{
		{store.Path{"parent"}, store.Project},
		{store.Path{"user"}, store.User},
		{store.Path{"company"}, store.Company},
	},
	hides: true,
}

// QueueEntity is how queues are listed.
var QueueEntity = Entity{
	kind:       store.Queue,
	name:       "queues",
	patterns:   []string{"name"},
	lists:      []string{"tags", "system_tags", "id"},
	datetimes:  []string{"last_update", "created"},
	searched:   []string{"name", "id"},
	references: []reference{{store.Path{"user"}, store.User}, {store.Path{"company"}, store.Company}},
	hides:      true,
}

// where builds the filter of a request: the conjunction of its conditions.
func (e Entity) where(req Fields) (store.And, error) {
	var all store.And
	for _, key := range slices.Sorted(maps.Keys(req)) { // the first mistake that is named is the same each time
		value := req[key]
		if value == nil {
			continue
		}
		var cond store.Expr
		var err error
		switch {
		case key == "_any_" || key == "_or_":
			cond, err = multiField(key, value, func(parts []store.Expr) store.Expr { return store.Or(parts) })
		case key == "_all_" || key == "_and_":
			cond, err = multiField(key, value, func(parts []store.Expr) store.Expr { return store.And(parts) })
		case key == "search_text":
			cond, err = searchText(e.searched, value)
		case key == "filters":
			err = Invalid("filters is a form of ClearML's web application: name the fields themselves, with operators such as __$all and __$not among their values")
		case contains(e.patterns, key):
			cond, err = patternFilter(key, value)
		case contains(e.lists, key):
			cond, err = ListFilter(key, value)
		case contains(e.ranges, key):
			cond, err = rangeFilter(key, value)
		case contains(e.datetimes, key):
			cond, err = datetimeFilter(key, value)
		case contains(e.exact, key):
			cond, err = exactFilter(key, value)
		}
		if err != nil {
			return nil, err
		}
		if cond != nil {
			all = append(all, cond)
		}
	}
	if e.hides && !Truth(req["search_hidden"]) && len(ListOf(req["id"])) == 0 {
		all = append(all, store.Not{Expr: store.In{Path: store.Path{"system_tags"}, Values: []any{"hidden"}}})
	}
	switch n, values := conditions(all); {
	case n > maxConditions:
		return nil, Invalid("the filter has %d conditions, more than %d: ask for several values of one field as a list of which any will do", n, maxConditions)
	case values > MaxValues:
		return nil, Invalid("the filter names %d values, more than %d: ask in several calls", values, MaxValues)
	}
	return all, nil
}

const (
	// maxConditions bounds the conditions of a filter; a list of alternative values is one
	// condition.
	maxConditions = 500
	// MaxValues bounds the values of a filter; databases accept some 32,000 parameters, and a
	// value may be needed twice.
	MaxValues = 10_000
	// maxOrders bounds the fields of an order.
	maxOrders = 50
)

// conditions counts the conditions of a filter, and their values.
func conditions(e store.Expr) (n, values int) {
	add := func(part store.Expr) {
		more, named := conditions(part)
		n, values = n+more, values+named
	}
	switch e := e.(type) {
	case store.And:
		for _, part := range e {
			add(part)
		}
	case store.Or:
		for _, part := range e {
			add(part)
		}
	case store.Not:
		add(e.Expr)
	case store.In:
		return 1, len(e.Values)
	default:
		return 1, 1
	}
	return n, values
}

// contains says whether a key is in a class of keys.
func contains(class []string, key string) bool {
	for _, known := range class {
		if below, ok := strings.CutSuffix(known, "*"); ok {
			if strings.HasPrefix(key, below) && len(key) > len(below) {
				return true
			}
		} else if known == key {
			return true
		}
	}
	return false
}

// order reads order_by. By default the oldest come first: the serving CLI uses the first
// service that it finds.
func (e Entity) order(req Fields) ([]store.Order, error) {
	keys := ListOf(req["order_by"])
	if len(keys) > maxOrders {
		return nil, Invalid("order_by names %d fields, more than %d", len(keys), maxOrders)
	}
	var order []store.Order
	for _, key := range keys {
		name, ok := key.(string)
		if !ok {
			return nil, Invalid("order_by must be the name of a field or a list of names")
		}
		name, desc := strings.CutPrefix(strings.TrimSpace(name), "-")
		name = strings.TrimPrefix(name, "+")
		if name == "@text_score" {
			if req["search_text"] == nil {
				return nil, Refuse(SubFieldsValue, "Invalid field values: order_by @text_score needs search_text")
			}
			continue // all matches have the same score
		}
		if name == "" {
			return nil, Invalid("order_by holds an empty field name")
		}
		if err := e.knows(strings.Split(name, "."), false); err != nil {
			return nil, err
		}
		order = append(order, store.Order{Path: fieldPath(name), Desc: desc})
	}
	return order, nil
}

// Truth reads a flag; what isn't true is false.
func Truth(v any) bool {
	b, _ := v.(bool)
	return b
}

// fieldPath turns a dotted name into a path. Dots within keys that users choose, such as
// hyperparams.Args.lr.decay.value, stay in the key: the shape of these paths is known.
func fieldPath(name string) store.Path {
	parts := strings.Split(name, ".")
	rest := func(from, to int) string { return strings.Join(parts[from:to], ".") }
	last := len(parts) - 1
	attribute := func(names ...string) bool { return slices.Contains(names, parts[last]) }
	switch parts[0] {
	case "runtime", "container", "labels":
		if len(parts) > 2 {
			return store.Path{parts[0], rest(1, len(parts))}
		}
	case "hyperparams":
		switch {
		case len(parts) == 3:
			return store.Path{parts[0], parts[1], parts[2], "value"}
		case len(parts) > 3 && attribute("value", "type", "name", "section", "description"):
			return store.Path{parts[0], parts[1], rest(2, last), parts[last]}
		case len(parts) > 3:
			return store.Path{parts[0], parts[1], rest(2, len(parts)), "value"}
		}
	case "metadata", "configuration":
		switch {
		case len(parts) > 2 && attribute("value", "type", "key", "name", "description"):
			return store.Path{parts[0], rest(1, last), parts[last]}
		case len(parts) > 1:
			return store.Path{parts[0], rest(1, len(parts)), "value"}
		}
	}
	return parts
}

// ListOf is a list as it is, and any other value as a list of it.
func ListOf(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}
