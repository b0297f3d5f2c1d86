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

	"clearmlserving/controlplane/documents"
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

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	told := (*documents.Error)(nil)
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
		var req documents.Fields
		if err := decodeRequest(merged, &req); err != nil {
			wantRefusal(t, err)
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
