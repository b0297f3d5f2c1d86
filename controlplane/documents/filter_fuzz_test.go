package documents

import (
	"errors"
	"net/http"
	"testing"

	"clearmlserving/controlplane/store"
)

// Whatever comes as a filter is refused with a code, or is a filter that can be asked.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"name":"^a$","tags":["__$all","x","-y",null],"page":1,"page_size":2}`,
		`{"filters":{"tags":{"any":{"include":["x"],"exclude":[null]},"op":"or"}}}`,
		`{"_any_":{"fields":["name"],"pattern":"x("}}`, `{"_all_":{"fields":["created"],"datetime":[">=2024-01-01"]}}`,
		`{"created":[null,"2024-01-01T00:00:00Z"],"last_update":"<2024","runtime.x":1,"hyperparams.a.b.c":["v"]}`,
		`{"order_by":["-created","hyperparams.A.x"],"only_fields":["project.name","-runtime.*"],"scroll_id":"5","size":3}`,
		`{"order_by":["-created","name"],"scroll_id":"WyJhIiwxLCJiIl0","size":3}`,
		`{"order_by":["-created","last_iteration"],"search_after":["2026",null,"x"]}`,
		`{"order_by":["ready"],"search_before":[true,"x"],"page_size":2}`,
		`{"order_by":"@text_score","search_text":"a b"}`, `{"name":"(?<=x)y"}`, `{"name":"\\Z\\\\Z"}`,
	} {
		f.Add(text)
	}
	sample := store.Doc{"id": "a", "name": "abc", "tags": []any{"x"}, "created": "2024-01-01T00:00:00.000000+00:00", "models": map[string]any{"input": []any{map[string]any{"model": "m"}}}}
	f.Fuzz(func(t *testing.T, text string) {
		req, err := store.Decode([]byte(text))
		if err != nil {
			return
		}
		for _, e := range []Entity{TaskEntity, ModelEntity, ProjectEntity, QueueEntity} {
			where, err := e.where(req)
			if err != nil {
				mustRefuse(t, err)
				continue
			}
			if where.Match(sample) == (store.Not{Expr: where}).Match(sample) {
				t.Error("the filter and its opposite agree")
			}
			order, err := e.order(req)
			if err != nil {
				mustRefuse(t, err)
				continue
			}
			if w, err := windowOf(req, order); err != nil {
				mustRefuse(t, err)
			} else if w.from != nil {
				if w.from.Beyond(sample, order, false) && w.from.Beyond(sample, order, true) {
					t.Errorf("the sample lies on both sides of %+v", w.from)
				}
			} else if w.limit < 1 || w.limit > MaxPage || w.offset < 0 {
				t.Errorf("window %+v", w)
			}
			fields, err := e.projection(req, true)
			if err != nil {
				mustRefuse(t, err)
			} else if fields.apply(sample)["id"] != "a" {
				t.Error("the id was left out")
			}
		}
	})
}

func mustRefuse(t *testing.T, err error) {
	t.Helper()
	told := (*Error)(nil)
	if !errors.As(err, &told) || told.Code != http.StatusBadRequest || told.Msg == "" {
		t.Errorf("got %#v, want a refusal with code 400", err)
	}
}
