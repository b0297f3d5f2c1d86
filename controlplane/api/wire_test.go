package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres/postgrestest"
	"clearmlserving/controlplane/store/sqlite/sqlitetest"
)

// wire is an API that knows its callers by the header X-Role, for tests of what calls do.
type wire struct {
	url   string
	store store.Store

	mu    sync.Mutex // guards clock and rings
	clock time.Time
	rings []string
}

// byRole lets everybody in under the role that the request names.
type byRole struct{}

func (byRole) Authenticate(r *http.Request) (api.Identity, error) {
	role := r.Header.Get("X-Role")
	switch role {
	case "":
		role = string(api.RoleUser)
	case "nobody":
		return api.Identity{}, &api.Error{Code: 401, Subcode: 20, Msg: "Unauthorized"}
	}
	return api.Identity{User: "user1", Company: "company1", Role: api.Role(role)}, nil
}

// postgresServer is where every test of calls has its store when "make e2e-postgres" runs
// them; otherwise that is SQLite.
var postgresServer postgrestest.Server

func TestMain(m *testing.M) {
	code := m.Run()
	postgresServer.Stop()
	os.Exit(code)
}

func newStore(t *testing.T) store.Store {
	t.Helper()
	if os.Getenv(postgrestest.Required) != "" {
		return postgresServer.New(t)
	}
	return sqlitetest.New(t)
}

func newWire(t *testing.T) *wire {
	t.Helper()
	db := newStore(t)
	w := &wire{store: db, clock: time.Date(2026, 11, 23, 13, 40, 14, 123456000, time.UTC)}
	srv := httptest.NewServer(api.New(api.Options{
		Store: db, Auth: byRole{}, Version: "1.0.0",
		OnChange: func(kind store.Kind, id string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rings = append(w.rings, string(kind)+" "+id)
		},
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.clock = w.clock.Add(time.Second) // each change has a time of its own
			return w.clock
		},
	}))
	w.url = srv.URL
	t.Cleanup(srv.Close)
	return w
}

// reply is what a call was answered with.
type reply struct {
	status int
	header http.Header
	text   string
	answered
}

// send makes a call with any method, path, and body.
func (w *wire) send(t *testing.T, method, path, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if resp.Header.Get("Content-Type") == "application/json" {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&r.answered); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
		if r.Meta.ResultCode != resp.StatusCode {
			t.Errorf("%s %s: status %d, but result_code %d", method, path, resp.StatusCode, r.Meta.ResultCode)
		}
	}
	return r
}

// call makes a call as the SDK does: GET with a body.
func (w *wire) call(t *testing.T, name, body string) reply {
	t.Helper()
	return w.send(t, "GET", "/v2.23/"+name, body, "Content-Type", "application/json")
}

// must makes a call that has to succeed and returns its data.
func (w *wire) must(t *testing.T, name, body string) map[string]any {
	t.Helper()
	r := w.call(t, name, body)
	if r.status != 200 {
		t.Fatalf("%s %s: %s %s", name, body, r.code(), r.Meta.ResultMsg)
	}
	return r.Data
}

// create makes a call that answers with the id of what it made.
func (w *wire) create(t *testing.T, name, body string) string {
	t.Helper()
	id, _ := w.must(t, name, body)["id"].(string)
	if len(id) != 32 {
		t.Fatalf("%s: id %q", name, id)
	}
	return id
}

// task makes a task and returns its id.
func (w *wire) task(t *testing.T, more string) string {
	t.Helper()
	return w.create(t, "tasks.create", `{"name":"a task","type":"training"`+more+`}`)
}

// model makes a draft model and returns its id.
func (w *wire) model(t *testing.T, more string) string {
	t.Helper()
	return w.create(t, "models.create", `{"name":"a model","uri":"http://f/m","ready":false`+more+`}`)
}

// read returns a document through its get_by_id call.
func (w *wire) read(t *testing.T, kind, id string) store.Doc {
	t.Helper()
	doc, ok := w.must(t, kind+"s.get_by_id", fmt.Sprintf(`{%q:%q}`, kind, id))[kind].(map[string]any)
	if !ok {
		t.Fatalf("%s %s came back without a document", kind, id)
	}
	return doc
}

// rung returns what the change feed was told since the last time.
func (w *wire) rung() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	rings := w.rings
	w.rings = nil
	slices.Sort(rings)
	return slices.Compact(rings)
}

// step is one call of a sequence. Bodies name ids of earlier answers by $NAME.
type step struct {
	call, body string
	// want is "400/110" and the like; "" is success.
	want string
	// save keeps data.id of the answer under a name.
	save string
	// has and lacks are texts that the answer's JSON must hold, or not.
	has, lacks []string
}

// run makes the calls in order.
func (w *wire) run(t *testing.T, steps []step) map[string]string {
	t.Helper()
	ids := map[string]string{}
	fill := func(text string) string {
		known := slices.SortedFunc(maps.Keys(ids), func(a, b string) int { return len(b) - len(a) }) // $TOP before $T
		for _, name := range known {
			text = strings.ReplaceAll(text, "$"+name, ids[name])
		}
		return text
	}
	for i, s := range steps {
		r := w.call(t, s.call, fill(s.body))
		want := s.want
		if want == "" {
			want = "200/0"
		}
		if r.code() != want {
			t.Fatalf("step %d %s %s: %s %s, want %s", i, s.call, fill(s.body), r.code(), r.Meta.ResultMsg, want)
		}
		for _, text := range s.has {
			if !strings.Contains(r.text, fill(text)) {
				t.Errorf("step %d %s: answer lacks %s: %s", i, s.call, fill(text), r.text)
			}
		}
		for _, text := range s.lacks {
			if strings.Contains(r.text, fill(text)) {
				t.Errorf("step %d %s: answer holds %s: %s", i, s.call, fill(text), r.text)
			}
		}
		if s.save != "" {
			ids[s.save], _ = r.Data["id"].(string)
		}
	}
	return ids
}
