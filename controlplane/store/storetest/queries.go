package storetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

// samples are documents with every kind of presence and absence of every kind of field.
func samples(t *testing.T) []store.Doc {
	t.Helper()
	var docs []store.Doc
	for i, text := range []string{
		`{"name":"alpha","project":"p1","status":"created","tags":["x","y"],"system_tags":[],"last_iteration":0}`,
		`{"name":"Alpha beta","project":"p1","status":"in_progress","tags":["y"],"system_tags":["archived"],"last_iteration":10,"ready":true}`,
		`{"name":"alphabet","status":"in_progress","tags":[],"comment":"about alpha","ready":false,"runtime":{"v":"1.10","n":2}}`,
		`{"name":"beta","project":"p2","tags":["-x","x y"],"last_iteration":2.5,"hyperparams":{"Args":{"l.r":{"value":"0.1"}}}}`,
		`{"name":"","project":"","status":null,"comment":"","runtime":{"v":1.1,"n":"2","b":true}}`,
		`{"project":"p3","system_tags":["hidden","x"],"models":{"input":[{"name":"a","model":"m1"},{"name":"b","model":"m2"}]}}`,
		`{"name":"al.pha","models":{"input":[]},"metadata":{"k":{"value":"v"}},"parent":"s0"}`,
		`{"name":"be\nta","models":{"input":[{"name":"a","model":"m2"}]},"metadata":{"k":{"value":"w"}},"parent":"s1","framework":"ONNX"}`,
		`{"name":"\u212a \u017f","comment":"k S"}`,
		`{"name":"50A% a_P \\","comment":"aXp"}`,
		`{"name":"é ü","uri":"http://f/é","tags":["é"],"ready":true,"last_iteration":-3}`,
		`{"name":"ALPHA","type":"service","uri":"http://f/x","runtime":{"v":"1.10"},"metadata":{}}`,
	} {
		doc := parse(t, text)
		doc["id"] = fmt.Sprint("s", i)
		if i%4 != 3 {
			doc["created"] = at(i * 7 % 10)
		}
		docs = append(docs, doc)
	}
	return docs
}

// conditions are filters of one condition each.
func conditions() []store.Expr {
	in := func(path store.Path, values ...any) store.Expr { return store.In{Path: path, Values: values} }
	compare := func(path store.Path, op store.Op, v any) store.Expr {
		return store.Compare{Path: path, Op: op, Value: v}
	}
	var out []store.Expr
	for _, pattern := range []string{
		"alpha", "^alpha", "^alpha$", "alpha$", "a.*a", "(?i)alpha", "(?i)ALPHA B", "(?i)k", "(?i)a%", "(?i)a_p", `(?i)\\`, "(?i)É", "(?i)al.pha", `(?i)al\.pha`, "(?i)^alpha$", "^(alpha|beta)$", `al\.pha`, "^$", "", `^é\ ü$`, "be.ta", `(?s)be.ta`, `\d`, "[[:upper:]]{2}", "^al", "e$", "(?i)s", "(?i)k s", "(?i)K.S", "(?i)é ü", "(?i)Ü", "(?i)A%", "(?i)模", `(?i)^al.*BE`, `\w+ \w`, `^al.*a\z`, `(?i)^\w.\w$`, "^a|b",
	} {
		re := regexp.MustCompile(pattern)
		out = append(out, store.Regexp{Path: store.Path{"name"}, Pattern: re}, store.Regexp{Path: store.Path{"comment"}, Pattern: re}, store.Regexp{Path: store.Path{"tags"}, Pattern: re})
	}
	for _, path := range []store.Path{
		{"name"},
		{"project"},
		{"status"},
		{"tags"},
		{"system_tags"},
		{"ready"},
		{"last_iteration"},
		{"comment"},
		{"created"},
		{"parent"},
		{"models", "input", "model"},
		{"models", "input"},
		{"runtime", "v"},
		{"metadata"},
		{"metadata", "k", "value"},
		{"hyperparams", "Args", "l.r", "value"},
		{"nothing"},
		{"id"},
	} {
		out = append(out, store.Missing{Path: path})
	}
	return append(out,
		in(store.Path{"id"}, "s1", "s3", "zz"), in(store.Path{"name"}, "alpha"), in(store.Path{"name"}, "alpha", ""), in(store.Path{"name"}, json.Number("5")),
		in(store.Path{"tags"}, "x"), in(store.Path{"tags"}, "x", "y"), in(store.Path{"tags"}, ""), in(store.Path{"tags"}, "é"), in(store.Path{"system_tags"}, "archived", "hidden"),
		in(store.Path{"ready"}, true), in(store.Path{"ready"}, false), in(store.Path{"ready"}, "true"), in(store.Path{"ready"}, json.Number("1")),
		in(store.Path{"last_iteration"}, json.Number("10.0")), in(store.Path{"last_iteration"}, "10"), in(store.Path{"project"}), in(store.Path{"project"}, ""),
		in(store.Path{"models", "input", "model"}, "m2"), in(store.Path{"runtime", "v"}, "1.10"), in(store.Path{"runtime", "v"}, json.Number("1.10")),
		in(store.Path{"runtime", "n"}, json.Number("2")), in(store.Path{"runtime", "b"}, true), in(store.Path{"metadata", "k", "value"}, "v"),
		in(store.Path{"hyperparams", "Args", "l.r", "value"}, "0.1"), in(store.Path{"created"}, at(4)),
		compare(store.Path{"created"}, store.GreaterEqual, at(4)), compare(store.Path{"created"}, store.Less, at(4)),
		compare(store.Path{"last_iteration"}, store.Greater, json.Number("0")), compare(store.Path{"last_iteration"}, store.LessEqual, json.Number("2.5")),
		compare(store.Path{"last_iteration"}, store.Less, "x"), compare(store.Path{"runtime", "n"}, store.Greater, json.Number("1")),
		compare(store.Path{"name"}, store.Op("="), "alpha"), compare(store.Path{"ready"}, store.Greater, false),
		store.And{}, store.Or{},
	)
}

// combined makes a filter of many conditions.
func combined(r *rand.Rand, parts []store.Expr, depth int) store.Expr {
	if depth == 0 {
		return parts[r.IntN(len(parts))]
	}
	switch r.IntN(4) {
	case 0:
		return store.And{combined(r, parts, depth-1), combined(r, parts, depth-1)}
	case 1:
		return store.Or{combined(r, parts, depth-1), combined(r, parts, depth-1)}
	case 2:
		return store.Not{Expr: combined(r, parts, depth-1)}
	}
	return combined(r, parts, depth-1)
}

func (c contract) filters() {
	t, s := c.t, c.s
	docs := samples(t)
	insert(t, s, store.Task, docs...)
	all := conditions()
	for _, cond := range all {
		all = append(all, store.Not{Expr: cond})
	}
	r := rand.New(rand.NewPCG(1, 2))
	single := len(all)
	for range 1500 {
		all = append(all, combined(r, all[:single], 3))
	}
	for _, where := range all {
		var want []string
		for _, doc := range docs {
			if where.Match(doc) {
				want = append(want, doc.ID())
			}
		}
		got, err := s.Query(t.Context(), store.Task, store.Query{Where: where})
		if err != nil {
			t.Fatalf("query %#v: %v", where, err)
		}
		if diff := cmp.Diff(want, ids(got)); diff != "" {
			t.Fatalf("filter %#v (-want +got):\n%s", where, diff)
		}
		n, err := s.Count(t.Context(), store.Task, where)
		if err != nil || n != len(want) {
			t.Fatalf("count of %#v: %d, %v, want %d", where, n, err, len(want))
		}
	}
}

func ids(docs []store.Doc) []string {
	var out []string
	for _, doc := range docs {
		out = append(out, doc.ID())
	}
	return out
}

func (c contract) ordering() {
	t, s := c.t, c.s
	docs := samples(t)
	insert(t, s, store.Task, docs...)
	for _, path := range []store.Path{
		{"name"},
		{"created"},
		{"last_iteration"},
		{"ready"},
		{"project"},
		{"comment"},
		{"tags"},
		{"id"},
		{"runtime", "v"},
		{"metadata", "k", "value"},
		{"nothing"},
	} {
		for _, desc := range []bool{false, true} {
			for _, order := range [][]store.Order{
				{{Path: path, Desc: desc}},
				{{Path: path, Desc: desc}, {Path: store.Path{"name"}, Desc: !desc}},
			} {
				want := slices.Clone(docs)
				store.Sort(want, order)
				got, err := s.Query(t.Context(), store.Task, store.Query{Order: order})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(ids(want), ids(got)); diff != "" {
					t.Errorf("order %v (-want +got):\n%s", order, diff)
				}
				if last := got[len(got)-1]; path[0] == "created" && last["created"] != nil {
					t.Errorf("order %v: a document without the field is not last", order)
				}
			}
		}
	}
}

func (c contract) insertionOrder() {
	t, s := c.t, c.s
	for _, id := range []string{"c", "a", "b"} {
		insert(t, s, store.Task, store.Doc{"id": id})
	}
	got, err := s.Query(t.Context(), store.Task, store.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c", "a", "b"}, ids(got)); diff != "" {
		t.Error(diff)
	}
}

func (c contract) paging() {
	t, s := c.t, c.s
	insert(t, s, store.Task, samples(t)...)
	for _, q := range []store.Query{
		{},
		{Order: []store.Order{{Path: store.Path{"created"}, Desc: true}}},
		{Order: []store.Order{{Path: store.Path{"runtime", "v"}}}},
		{Where: store.Not{Expr: store.In{Path: store.Path{"runtime", "n"}, Values: []any{"2"}}}},
		{Where: store.Missing{Path: store.Path{"comment"}}, Order: []store.Order{{Path: store.Path{"name"}}}},
	} {
		whole, err := s.Query(t.Context(), store.Task, q)
		if err != nil {
			t.Fatal(err)
		}
		for size := 1; size <= len(whole)+1; size++ {
			var got []string
			for page := 0; ; page++ {
				q.Offset, q.Limit = page*size, size
				docs, err := s.Query(t.Context(), store.Task, q)
				if err != nil {
					t.Fatal(err)
				}
				if len(docs) > size {
					t.Fatalf("page of %d holds %d", size, len(docs))
				}
				got = append(got, ids(docs)...)
				if len(docs) < size {
					break
				}
			}
			if diff := cmp.Diff(ids(whole), got); diff != "" {
				t.Errorf("pages of %d of %#v (-want +got):\n%s", size, q, diff)
			}
		}
	}
}

// orders are by fields that have a column, by others, and by both.
func orders() [][]store.Order {
	by := func(desc bool, path ...string) store.Order { return store.Order{Path: path, Desc: desc} }
	var out [][]store.Order
	for _, desc := range []bool{false, true} {
		out = append(out,
			[]store.Order{by(desc, "created")}, []store.Order{by(desc, "name")}, []store.Order{by(desc, "last_iteration")}, []store.Order{by(desc, "ready")},
			[]store.Order{by(desc, "id")}, []store.Order{by(desc, "tags")}, []store.Order{by(desc, "runtime", "v")}, []store.Order{by(desc, "nothing")},
			[]store.Order{by(desc, "project"), by(!desc, "created")}, []store.Order{by(desc, "status"), by(desc, "ready"), by(!desc, "name")},
			[]store.Order{by(desc, "project"), by(!desc, "runtime", "v")},
		)
	}
	return out
}

// places goes on from each document, and from where a document of another id would stand,
// to both sides.
func (c contract) places() {
	t, s := c.t, c.s
	docs := samples(t)
	insert(t, s, store.Task, docs...)
	from := slices.Clone(docs)
	for i := 0; i < len(docs); i += 3 {
		other := maps.Clone(docs[i])
		other["id"] = fmt.Sprintf("s%dx", i)
		from = append(from, other)
	}
	odd := parse(t, `{"id":"s5 odd","created":5,"name":false,"last_iteration":"x","ready":"true","project":1,"status":2}`)
	for _, order := range orders() {
		for _, at := range append(from, odd) {
			for _, where := range []store.Expr{store.Missing{Path: store.Path{"comment"}}, store.Not{Expr: store.In{Path: store.Path{"runtime", "n"}, Values: []any{"2"}}}} {
				before, behind := around(docs, at, order, where)
				for _, backwards := range []bool{false, true} {
					for _, cut := range [][2]int{{0, 0}, {0, 4}, {1, 3}} {
						want := ids(page(behind, cut[0], cut[1]))
						if backwards {
							want = ids(pageOfEnd(before, cut[0], cut[1]))
						}
						place := store.PlaceOf(at, order)
						got, err := s.Query(t.Context(), store.Task, store.Query{Where: where, Order: order, From: &place, Backwards: backwards, Offset: cut[0], Limit: cut[1]})
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(want, ids(got)); diff != "" {
							t.Fatalf("order %v, from %v, backwards %v, offset and limit %v, where %v (-want +got):\n%s", order, place, backwards, cut, where, diff)
						}
					}
				}
			}
		}
	}
	c.ends(docs)
}

// ends asks for the last pages, in an order and in that of insertion.
func (c contract) ends(docs []store.Doc) {
	t, s := c.t, c.s
	for _, order := range append(orders(), nil) {
		sorted := slices.Clone(docs)
		store.Sort(sorted, order)
		for _, cut := range [][2]int{{0, 3}, {3, 3}, {10, 5}, {0, 0}, {2, 0}, {20, 1}} {
			got, err := s.Query(t.Context(), store.Task, store.Query{Order: order, Backwards: true, Offset: cut[0], Limit: cut[1]})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ids(pageOfEnd(sorted, cut[0], cut[1])), ids(got)); diff != "" {
				t.Errorf("the end, order %v, offset and limit %v (-want +got):\n%s", order, cut, diff)
			}
		}
	}
	for _, q := range []store.Query{
		{From: &store.Place{ID: "s1"}},
		{From: &store.Place{ID: "s1"}, Order: []store.Order{{Path: store.Path{"name"}}}},
	} {
		if _, err := s.Query(t.Context(), store.Task, q); err == nil {
			t.Errorf("a place of %d keys in an order by %d fields was found", len(q.From.Keys), len(q.Order))
		}
	}
}

// around are the documents that match before and behind another in an order.
func around(docs []store.Doc, at store.Doc, order []store.Order, where store.Expr) (before, behind []store.Doc) {
	docs = slices.DeleteFunc(slices.Clone(docs), func(doc store.Doc) bool {
		return doc.ID() == at.ID() || (where != nil && !where.Match(doc))
	})
	docs = append(docs, at)
	store.Sort(docs, order)
	i := slices.IndexFunc(docs, func(doc store.Doc) bool { return doc.ID() == at.ID() })
	return docs[:i], docs[i+1:]
}

func page(docs []store.Doc, offset, limit int) []store.Doc {
	docs = docs[min(offset, len(docs)):]
	if limit > 0 {
		docs = docs[:min(limit, len(docs))]
	}
	return docs
}

// pageOfEnd is page counted from the end.
func pageOfEnd(docs []store.Doc, offset, limit int) []store.Doc {
	docs = docs[:max(len(docs)-offset, 0)]
	if limit > 0 {
		docs = docs[max(len(docs)-limit, 0):]
	}
	return docs
}

// manyAndFew asks for values that thousands of documents have, that some have, and that
// none has, alone and together: adapters find them in different ways.
func (c contract) manyAndFew() {
	t, s := c.t, c.s
	const many = 2100
	docs := make([]store.Doc, 0, 2*many)
	for i := range 2 * many {
		tag, status := "left", "done"
		if i >= many {
			tag = "right"
		}
		tags := []any{tag}
		if i%1000 == 7 {
			tags, status = []any{"left", "right"}, "failed"
		}
		docs = append(docs, store.Doc{"id": fmt.Sprintf("t%05d", i), "name": "one of many", "tags": tags, "status": status, "created": fmt.Sprintf("%05d", i)})
	}
	insert(t, s, store.Task, docs...)
	is := func(value string, path ...string) store.Expr { return store.In{Path: path, Values: []any{value}} }
	left, right := is("left", "tags"), is("right", "tags")
	for name, q := range map[string]struct {
		where store.Expr
		want  int // of all that match
	}{
		"one tag":            {left, many + 2},
		"both tags":          {store.And{left, right}, 5},
		"both, and a status": {store.And{is("done", "status"), left, right}, 0},
		"either tag":         {store.Or{left, right}, 2 * many},
		"a rare status":      {is("failed", "status"), 5},
		"a status of none":   {is("queued", "status"), 0},
		"not the other tag":  {store.And{left, store.Not{Expr: right}}, many - 3},
	} {
		n, err := s.Count(t.Context(), store.Task, q.where)
		if err != nil {
			t.Fatal(err)
		}
		page, err := s.Query(t.Context(), store.Task, store.Query{Where: q.where, Order: []store.Order{{Path: store.Path{"created"}, Desc: true}}, Limit: 50})
		if err != nil {
			t.Fatal(err)
		}
		if n != q.want || len(page) != min(q.want, 50) {
			t.Errorf("%s: %d counted, %d on a page; want %d", name, n, len(page), q.want)
		}
		for _, doc := range page {
			if !q.where.Match(doc) {
				t.Errorf("%s: %s does not match", name, doc.ID())
			}
		}
	}
}

// farBehind asks for pages of what lies together: at the begin, at the end, in the middle,
// and in all places alike, in an order that an index has, from everywhere.
func (c contract) farBehind() {
	t, s := c.t, c.s
	const all, block = 4600, 2300
	docs := make([]store.Doc, 0, all)
	for i := range all {
		doc := store.Doc{"id": fmt.Sprintf("t%05d", i*7919%all), "name": "one of many", "tags": []any{fmt.Sprint("block ", i/block)}, "project": fmt.Sprint("p", i/block)}
		if i%3 > 0 {
			doc["created"] = fmt.Sprintf("%05d", i/4) // some together
		}
		docs = append(docs, doc)
	}
	insert(t, s, store.Task, docs...)
	is := func(value string, path ...string) store.Expr { return store.In{Path: path, Values: []any{value}} }
	for name, where := range map[string]store.Expr{
		"a tag":            is("block 0", "tags"),
		"a project":        store.And{is("p1", "project"), store.Not{Expr: is("x", "tags")}},
		"a text and a tag": store.And{is("block 1", "tags"), store.Regexp{Path: store.Path{"name"}, Pattern: regexp.MustCompile("(?i)OF MANY")}},
		"either of two":    store.Or{is("block 0", "tags"), is("p1", "project")},
		"what others lack": store.Not{Expr: is("block 1", "tags")},
		"what has no time": store.And{is("p0", "project"), store.Missing{Path: store.Path{"created"}}},
	} {
		fits := map[any]bool{} // by id: asked once, used for every page
		for _, doc := range docs {
			fits[doc["id"]] = where.Match(doc)
		}
		none := func(doc store.Doc) bool { return !fits[doc["id"]] }
		for _, desc := range []bool{true, false} {
			order := []store.Order{{Path: store.Path{"created"}, Desc: desc}}
			sorted := slices.Clone(docs)
			store.Sort(sorted, order)
			for _, from := range []int{-1, 100, 2500, all - 10} {
				for _, backwards := range []bool{false, true} {
					for _, offset := range []int{0, 30} {
						q := store.Query{Where: where, Order: order, Backwards: backwards, Offset: offset, Limit: 50}
						before, behind := sorted, sorted
						if from >= 0 {
							place := store.PlaceOf(sorted[from], order)
							q.From, before, behind = &place, sorted[:from], sorted[from+1:]
						}
						want := ids(page(slices.DeleteFunc(slices.Clone(behind), none), offset, 50))
						if backwards {
							want = ids(pageOfEnd(slices.DeleteFunc(slices.Clone(before), none), offset, 50))
						}
						got, err := s.Query(t.Context(), store.Task, q)
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(want, ids(got)); diff != "" {
							t.Fatalf("%s, descending %v, from %d, backwards %v, offset %d (-want +got):\n%s", name, desc, from, backwards, offset, diff)
						}
					}
				}
			}
		}
	}
}

func (c contract) distinctValues() {
	t, s := c.t, c.s
	insert(t, s, store.Task, samples(t)...)
	insert(t, s, store.Model, store.Doc{"id": "m", "name": "model", "tags": []any{"of a model"}})
	p1 := store.In{Path: store.Path{"project"}, Values: []any{"p1"}}
	unsaid := store.In{Path: store.Path{"runtime", "n"}, Values: []any{"2"}}
	for _, c := range []struct {
		field store.Path
		where store.Expr
		want  []string
	}{
		{store.Path{"tags"}, nil, []string{"-x", "x", "x y", "y", "é"}},
		{store.Path{"tags"}, p1, []string{"x", "y"}},
		{store.Path{"project"}, nil, []string{"p1", "p2", "p3"}},
		{store.Path{"framework"}, nil, []string{"ONNX"}},
		{store.Path{"runtime", "v"}, nil, []string{"1.10"}},
		{store.Path{"models", "input", "name"}, nil, []string{"a", "b"}},
		{store.Path{"tags"}, unsaid, nil},
		{store.Path{"nothing"}, nil, nil},
	} {
		got, err := s.Distinct(t.Context(), store.Task, c.field, c.where)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v where %v (-want +got):\n%s", c.field, c.where, diff)
		}
	}
}

func (c contract) changedValues() {
	t, s := c.t, c.s
	insert(t, s, store.Task, parse(t, `{"id":"a","name":"old","tags":["old"],"ready":false,"last_iteration":1,"project":"old"}`))
	next := parse(t, `{"id":"a","name":"new","tags":["new"],"ready":true,"last_iteration":2}`)
	if err := s.Tx(t.Context(), func(tx store.Tx) error { return tx.Put(t.Context(), store.Task, next) }); err != nil {
		t.Fatal(err)
	}
	for path, values := range map[string][2]any{
		"name": {"old", "new"}, "tags": {"old", "new"}, "ready": {false, true}, "last_iteration": {json.Number("1"), json.Number("2")},
	} {
		for i, value := range values {
			n, err := s.Count(t.Context(), store.Task, store.In{Path: store.Path{path}, Values: []any{value}})
			if err != nil || n != i {
				t.Errorf("%s = %v finds %d, %v, want %d", path, value, n, err, i)
			}
		}
	}
	if n, err := s.Count(t.Context(), store.Task, store.Missing{Path: store.Path{"project"}}); err != nil || n != 1 {
		t.Errorf("the removed project is still found: %d, %v", n, err)
	}
}
