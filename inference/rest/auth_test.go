package rest_test

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/reconcile"
	"clearmlserving/serving"
)

// keyRing creates keys and the configuration section with them.
type keyRing struct {
	records map[string]any
}

func newKeyRing() *keyRing {
	return &keyRing{map[string]any{"service": map[string]any{"required": true}}}
}

func (k *keyRing) add(id string, expires time.Time, endpoints ...string) string {
	secret, _ := serving.NewAccessKey()
	record := map[string]any{"sha256": serving.DigestOf(secret).String(), "endpoints": endpoints}
	if !expires.IsZero() {
		record["expires"] = expires.UTC().Format(time.RFC3339)
	}
	k.records[id] = record
	return secret
}

// with adds the keys to the configuration of an instance under test.
func (k *keyRing) with(t *testing.T, change func(*options)) func(*options) {
	t.Helper()
	text, err := json.Marshal(k.records)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *options) {
		o.Source.(fixedSource).state.Sections[serving.SectionAccess] = text //nolint:forcetypeassert // start made it
		if change != nil {
			change(o)
		}
	}
}

func TestARequestThatNeedsAKeyShowsOne(t *testing.T) {
	keys := newKeyRing()
	all, second := keys.add("all", time.Time{}), keys.add("second", time.Now().Add(time.Hour))
	echo, expired := keys.add("echo", time.Time{}, "echo"), keys.add("expired", time.Now().Add(-time.Hour))
	unknown, _ := serving.NewAccessKey()
	base := start(t, keys.with(t, nil), "echo", "echo/1", "a/b/c", "ask", "loop", "busy")
	for _, tc := range []struct {
		name, path, header string
		status             int
		challenge, want    string
	}{
		{"none", "echo", "", 401, `Bearer realm="clearml-serving"`, "as Bearer token"},
		{"none, endpoint unknown", "nobody", "", 401, `Bearer realm="clearml-serving"`, "as Bearer token"},
		{"one for all", "echo", "Bearer " + all, 200, "", "echo|"},
		{"the scheme in small letters", "a/b/c", "bearer " + all, 200, "", "a/b/c|"},
		{"the second of two that are good", "echo", "Bearer " + second, 200, "", "echo|"},
		{"one for the endpoint", "echo", "Bearer " + echo, 200, "", "echo|"},
		{"one for the endpoint, a version", "echo/1", "Bearer " + echo, 200, "", "echo/1|"},
		{"one for the endpoint, a version in the query", "echo?version=1", "Bearer " + echo, 200, "", "echo/1|"},
		{"one for another endpoint", "a/b/c", "Bearer " + echo, 403, `error="insufficient_scope"`, "The key echo is for other endpoints"},
		{"one for another endpoint, endpoint unknown", "nobody", "Bearer " + echo, 403, `error="insufficient_scope"`, "The key echo is for other endpoints"},
		{"an expired one", "echo", "Bearer " + expired, 401, `error="invalid_token"`, "The key expired has expired on"},
		{"an unknown one", "echo", "Bearer " + unknown, 401, `error="invalid_token"`, "not known"},
		{"a stored digest", "echo", "Bearer " + serving.DigestOf(all).String(), 401, `error="invalid_token"`, "not known"},
		{"a cut one", "echo", "Bearer " + all[:len(all)-1], 401, `error="invalid_token"`, "not known"},
		{"a longer one", "echo", "Bearer " + all + "A", 401, `error="invalid_token"`, "not known"},
		{"an endless one", "echo", "Bearer " + strings.Repeat("a", 5000), 401, `error="invalid_token"`, "not known"},
		{"an empty one", "echo", "Bearer ", 401, `Bearer realm="clearml-serving"`, "Authorization"},
		{"another scheme", "echo", "Basic " + all, 401, `Bearer realm="clearml-serving"`, "Authorization"},
		{"no key between endpoints", "ask", "Bearer " + all, 200, "", "echo/1|text/x"},
		{"an error of the model stays one", "busy", "Bearer " + all, 429, "", "full"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := []string{"Authorization", tc.header}
			if tc.header == "" {
				headers = nil
			}
			resp, body := post(t, base+"/serve/"+tc.path, "x", headers...)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) || !strings.Contains(resp.Header.Get("WWW-Authenticate"), tc.challenge) {
				t.Errorf("%d %s, challenge %q", resp.StatusCode, body, resp.Header.Get("WWW-Authenticate"))
			}
			if strings.Contains(body, unknown) || strings.Contains(body, all) || resp.Header.Get("X-Request-Id") == "" {
				t.Errorf("the answer repeats a key or has no id: %v %s", resp.Header, body)
			}
		})
	}
}

func TestAStrangerLearnsNothingOfTheService(t *testing.T) {
	keys := newKeyRing()
	all, echo := keys.add("all", time.Time{}), keys.add("echo", time.Time{}, "echo")
	base := start(t, keys.with(t, nil), "echo", "badcode")
	ask := func(path, key string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, body := do(t, req)
		return resp.StatusCode, body
	}
	for _, tc := range []struct {
		path, key string
		status    int
		names     bool // an endpoint
	}{
		{"/livez", "", 200, false},
		{"/readyz", "", 200, false},
		{"/readyz", all, 200, true},
		{"/readyz", echo, 200, false},
		{"/readyz?endpoint=badcode", "", 401, false},
		{"/readyz?endpoint=nobody", "", 401, false},
		{"/readyz?endpoint=badcode", echo, 403, false},
		{"/readyz?endpoint=echo", echo, 200, false},
		{"/status", "", 401, false},
		{"/status", echo, 403, false},
		{"/status", all, 200, true},
		{"/serve/echo", "", 401, false},
		{"/other", "", 404, false},
	} {
		status, body := ask(tc.path, tc.key)
		if status != tc.status || strings.Contains(body, "badcode") != tc.names {
			t.Errorf("%s with key %.8q: %d %s", tc.path, tc.key, status, body)
		}
	}
	if _, body := ask("/status", all); !strings.Contains(body, `"keys_required": true`) || !strings.Contains(body, `"keys": 2`) {
		t.Errorf("status tells: %s", body)
	}
}

func TestKeysThatChangeCountFromTheNextRequest(t *testing.T) {
	keys := newKeyRing()
	old := keys.add("old", time.Time{})
	changes := make(chan struct{}, 1)
	source := &editedSource{}
	base := start(t, keys.with(t, func(o *options) {
		source.set(o.Source.(fixedSource).state) //nolint:forcetypeassert // start made it
		o.Source, o.Changes = source, ring(changes)
	}), "echo")
	wait := func(key string, want int) {
		t.Helper()
		var status int
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			resp, _ := post(t, base+"/serve/echo", "x", "Authorization", "Bearer "+key)
			if status = resp.StatusCode; status == want {
				return
			}
		}
		t.Fatalf("status %d, want %d", status, want)
	}
	edit := func() {
		text, err := json.Marshal(keys.records)
		if err != nil {
			t.Fatal(err)
		}
		source.edit(serving.SectionAccess, text)
		changes <- struct{}{}
	}
	wait(old, 200)
	fresh := keys.add("fresh", time.Time{})
	edit()
	wait(fresh, 200)
	wait(old, 200) // both, while clients switch
	delete(keys.records, "old")
	edit()
	wait(old, 401)
	wait(fresh, 200)
	source.edit(serving.SectionAccess, []byte(`"broken"`))
	changes <- struct{}{}
	wait(fresh, 401) // the valid keys are unknown
	keys.records["service"] = map[string]any{"required": false}
	edit()
	wait("", 200)
}

func TestAPageMaySendRequestsOnlyWhereItsOriginIsNamed(t *testing.T) {
	keys := newKeyRing()
	key := keys.add("k", time.Time{})
	base := start(t, keys.with(t, func(o *options) { o.Origins = []string{"https://app.example"} }), "echo")
	plain := start(t, nil, "echo")
	star := start(t, func(o *options) { o.Origins = []string{"*"} }, "echo")
	preflight := func(base, origin string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, base+"/serve/echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.Header.Set("Access-Control-Request-Headers", "authorization, content-type")
		resp, _ := do(t, req)
		return resp
	}
	for _, tc := range []struct {
		name, base, origin string
		status             int
		allowed, headers   string
	}{
		{"named", base, "https://app.example", 204, "https://app.example", "authorization, content-type"},
		{"another", base, "https://evil.example", 401, "", ""},
		{"one that begins alike", base, "https://app.example.evil", 401, "", ""},
		{"null", base, "null", 401, "", ""},
		{"any", star, "https://evil.example", 204, "*", "authorization, content-type"},
		{"not opted in", plain, "https://app.example", 405, "", ""},
	} {
		resp := preflight(tc.base, tc.origin)
		if resp.StatusCode != tc.status || resp.Header.Get("Access-Control-Allow-Origin") != tc.allowed || resp.Header.Get("Access-Control-Allow-Headers") != tc.headers || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", tc.name, resp.StatusCode, resp.Header)
		}
	}
	for origin, allowed := range map[string]string{"https://app.example": "https://app.example", "https://evil.example": ""} {
		resp, body := post(t, base+"/serve/echo", "x", "Origin", origin, "Authorization", "Bearer "+key)
		if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != allowed || resp.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: %d %s %v", origin, resp.StatusCode, body, resp.Header)
		}
	}
	if resp, _ := post(t, base+"/serve/echo", "x", "Origin", "https://app.example"); resp.StatusCode != 401 || resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("the page cannot see that its key is missing: %d %v", resp.StatusCode, resp.Header)
	}
}

func TestOperatorsShowATokenOrAskByAddress(t *testing.T) {
	listen := func() net.Listener {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	keys := newKeyRing()
	open, closed := listen(), listen()
	start(t, keys.with(t, func(o *options) { o.Admin = open }), "echo")
	start(t, keys.with(t, func(o *options) { o.Admin, o.AdminToken = closed, "s3cret" }), "echo")
	for _, tc := range []struct {
		name, host, path, token string
		l                       net.Listener
		status                  int
	}{
		{"by address", "", "/status", "", open, 200},
		{"by localhost", "localhost:1", "/debug/pprof/cmdline", "", open, 200},
		{"by IPv6", "[::1]:1", "/livez", "", open, 200},
		{"by a name that points here", "evil.example", "/status", "", open, 403},
		{"by a name, profiles", "evil.example:8083", "/debug/pprof/heap", "", open, 403},
		{"by a name that looks like an address", "127.0.0.1.evil.example", "/status", "", open, 403},
		{"without the token", "", "/status", "", closed, 401},
		{"without the token, profiles", "", "/debug/pprof/", "", closed, 401},
		{"without the token, anything", "", "/nothing", "", closed, 401},
		{"with another token", "", "/livez", "s3cre", closed, 401},
		{"with the token", "", "/status", "s3cret", closed, 200},
		{"with the token, by name", "serving.example", "/readyz", "s3cret", closed, 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+tc.l.Addr().String()+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tc.host
		if tc.token != "" {
			req.Header.Set("Authorization", "Bearer "+tc.token)
		}
		if resp, body := do(t, req); resp.StatusCode != tc.status {
			t.Errorf("%s: %d %s", tc.name, resp.StatusCode, body)
		}
	}
}

// editedSource is a configuration that changes while an instance follows it.
type editedSource struct {
	edits chan *reconcile.State // has the newest
}

func (e *editedSource) set(state *reconcile.State) {
	e.edits = make(chan *reconcile.State, 1)
	e.edits <- state
}

func (e *editedSource) edit(section serving.Section, text []byte) {
	before := <-e.edits
	next := *before
	next.Sections = map[serving.Section]json.RawMessage{}
	maps.Copy(next.Sections, before.Sections)
	next.Sections[section] = text
	e.edits <- &next
}

func (e *editedSource) Load(context.Context, *reconcile.State) (*reconcile.State, error) {
	state := <-e.edits
	e.edits <- state
	return state, nil
}

// ring is a feed of changes.
type ring chan struct{}

func (r ring) Next(ctx context.Context) error {
	select {
	case <-r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
