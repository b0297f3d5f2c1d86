package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"clearmlserving/controlplane/store"
)

func FuzzPath(f *testing.F) {
	for _, path := range []string{"/", "/v2.23/tasks.get_all", "/api/v2/tasks.get_all/", "tasks.x1", "/v2.23//a.b", "//", "/v2.23/../x.y", "/tasks.get_all\x00"} {
		f.Add(path)
	}
	name := regexp.MustCompile(`^[a-zA-Z_]\w+\.[a-zA-Z_]\w+$`)
	f.Fuzz(func(t *testing.T, path string) {
		call, version, ok := parsePath(path)
		if ok != name.MatchString(call) || version == "" {
			t.Errorf("parsePath(%q) = %q, %q, %v", path, call, version, ok)
		}
		if ok && !strings.Contains(path, call) {
			t.Errorf("parsePath(%q) made up %q", path, call)
		}
	})
}

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
		var req Fields
		if err := decodeRequest([]byte(text), &req); err != nil {
			wantRefusal(t, err)
			return
		}
		for _, e := range []entity{taskEntity, modelEntity, projectEntity, queueEntity} {
			where, err := e.where(req)
			if err != nil {
				wantRefusal(t, err)
				continue
			}
			if where.Match(sample) == (store.Not{Expr: where}).Match(sample) {
				t.Error("the filter and its opposite agree")
			}
			order, err := e.order(req)
			if err != nil {
				wantRefusal(t, err)
				continue
			}
			if w, err := windowOf(req, order); err != nil {
				wantRefusal(t, err)
			} else if w.from != nil {
				if w.from.Beyond(sample, order, false) && w.from.Beyond(sample, order, true) {
					t.Errorf("the sample lies on both sides of %+v", w.from)
				}
			} else if w.limit < 1 || w.limit > maxPage || w.offset < 0 {
				t.Errorf("window %+v", w)
			}
			fields, err := e.projection(req, true)
			if err != nil {
				wantRefusal(t, err)
			} else if fields.apply(sample)["id"] != "a" {
				t.Error("the id was left out")
			}
		}
	})
}

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	told := (*Error)(nil)
	if !errors.As(err, &told) || told.Code != http.StatusBadRequest || told.Msg == "" {
		t.Errorf("got %#v, want a refusal with code 400", err)
	}
}

func FuzzArguments(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, "a.c=2&x[]=1&y=true")
	f.Add(``, "a=1&a.b=2&%zz")
	f.Add(`[]`, "a.=1&.=2&=3")
	f.Fuzz(func(t *testing.T, body, query string) {
		merged, err := mergeArguments([]byte(body), query)
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if strings.TrimSpace(query) != "" && !json.Valid(merged) {
			t.Errorf("merged %q is no JSON", merged)
		}
	})
}

func TestPanicOfAHandlerIsAnAnsweredError(t *testing.T) {
	s := New(Options{})
	s.calls["tasks.panic"] = callEntry{"tasks.panic", open, typed(func(_ context.Context, _ *Call, _ none) (none, error) { panic("boom") })}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/tasks.panic", strings.NewReader("{}")))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"meta"`) || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestEveryCallIsNamedOnceAndWell(t *testing.T) {
	s := New(Options{})
	seen := map[string]bool{}
	for _, c := range s.table() {
		if seen[c.name] {
			t.Errorf("%s is listed twice", c.name)
		}
		seen[c.name] = true
		if name, _, ok := parsePath("/" + c.name); !ok || name != c.name {
			t.Errorf("%s can't be called", c.name)
		}
		writes := c.needs == mayWrite || c.needs == mayAdmin
		reads := strings.Contains(c.name, ".get_") || strings.HasPrefix(c.name, "login.") || strings.HasPrefix(c.name, "server.")
		if writes && reads && c.name != "queues.get_next_task" { // that one takes the task out
			t.Errorf("%s only reads but needs the right to write", c.name)
		}
	}
}

func TestTroubleOfTheDatabaseIsToldByWhatClientsDoAboutIt(t *testing.T) {
	for _, c := range []struct {
		err     error
		code    int
		trouble bool
	}{
		{store.ErrUnavailable, 503, true}, // the SDK waits
		{store.ErrFull, 500, true},        // it doesn't
		{store.ErrReadOnly, 500, true},
		{store.ErrTooLong, 400, false},
		{store.ErrNotFound, 400, false},
	} {
		told, trouble := asError(fmt.Errorf("write: %w", c.err))
		if told.Code != c.code || trouble != c.trouble || strings.Contains(told.Msg, "write:") {
			t.Errorf("%v is told as %d %q, trouble %v", c.err, told.Code, told.Msg, trouble)
		}
	}
}
