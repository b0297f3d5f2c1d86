package controlplane_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"clearmlserving/controlplane"
	"clearmlserving/serving"
)

// visitor is a browser without scripts.
type visitor struct {
	t      *testing.T
	r      *running
	client *http.Client
	csrf   string
}

// visit logs a browser in by a one-time link.
func (r *running) visit(t *testing.T) *visitor {
	t.Helper()
	v := r.stranger(t)
	link, err := r.LoginLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status, page := v.get(strings.TrimPrefix(link, r.api)); status != http.StatusOK || !strings.Contains(page, "<h1>Overview</h1>") {
		t.Fatalf("the login link leads to %d %.300s", status, page)
	}
	return v
}

// stranger is a browser that is not logged in.
func (r *running) stranger(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t: t, r: r, client: &http.Client{Transport: r.client.Transport, Jar: jar}}
}

var csrfField = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

func (v *visitor) get(path string) (int, string) {
	v.t.Helper()
	return v.do(http.MethodGet, path, "", "")
}

// post sends a form with the session's token.
func (v *visitor) post(path string, fields ...string) (int, string) {
	v.t.Helper()
	form := url.Values{"csrf": {v.csrf}}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return v.do(http.MethodPost, path, "application/x-www-form-urlencoded", form.Encode())
}

func (v *visitor) do(method, path, kind, body string, headers ...string) (int, string) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.r.api+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := v.client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if found := csrfField.FindSubmatch(text); found != nil {
		v.csrf = string(found[1])
	}
	return resp.StatusCode, string(text)
}

// shows fails unless the page holds the words.
func (v *visitor) shows(path string, words ...string) string {
	v.t.Helper()
	status, page := v.get(path)
	if status != http.StatusOK {
		v.t.Fatalf("%s: %d %.400s", path, status, page)
	}
	for _, word := range words {
		if !strings.Contains(page, word) {
			v.t.Errorf("%s does not show %q:\n%s", path, word, page)
		}
	}
	return page
}

// call makes an API call and decodes its data.
func (r *running) call(t *testing.T, name string, request any, data any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	status, _, text := r.send(t, "POST", r.api+"/"+name, string(body), "Content-Type", "application/json")
	answer := struct{ Data any }{data}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s (%v)", name, status, text, err)
	}
}

// made is what a test's pages are about.
type made struct {
	task, model, service string
	endpoint             string // the path of its page
}

// furnish makes an experiment, its model, and a service, all with the same name.
func (r *running) furnish(t *testing.T, name string) made {
	t.Helper()
	var m made
	var id struct{ ID string }
	r.call(t, "tasks.create", map[string]any{
		"name": name, "type": "training", "tags": []string{name}, "comment": name,
		"hyperparams":   map[string]any{"Args": map[string]any{"lr": map[string]any{"section": "Args", "name": "lr", "value": name}}},
		"configuration": map[string]any{"net": map[string]any{"name": "net", "value": name}},
	}, &id)
	m.task = id.ID
	r.call(t, "tasks.started", map[string]any{"task": m.task}, nil)
	lines := []string{
		`{"type":"log","task":"` + m.task + `","msg":` + quoted(name) + `,"level":"INFO"}`,
		`{"type":"training_stats_scalar","task":"` + m.task + `","metric":` + quoted(name) + `,"variant":` + quoted(name) + `,"value":0.5,"iter":1}`,
		`{"type":"plot","task":"` + m.task + `","metric":` + quoted(name) + `,"variant":"v","iter":1,"plot_str":` +
			quoted(`{"data":[{"type":"bar","x":[`+quoted(name)+`],"y":[1],"name":`+quoted(name)+`}],"layout":{"title":{"text":`+quoted(name)+`}}}`) + `}`,
		`{"type":"plot","task":"` + m.task + `","metric":"table","variant":"v","iter":1,"plot_str":` +
			quoted(`{"data":[{"type":"table","header":{"values":[`+quoted(name)+`]},"cells":{"values":[[`+quoted(name)+`]]}}]}`) + `}`,
	}
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join(lines, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}
	r.call(t, "models.create", map[string]any{
		"name": name, "uri": "javascript:alert(1)", "framework": name, "task": m.task, "tags": []string{name},
		"metadata": []any{map[string]string{"key": name, "type": "str", "value": name}},
	}, &id)
	m.model = id.ID
	r.call(t, "tasks.create", map[string]any{
		"name": name, "type": "service", "system_tags": []string{"serving-control-plane"},
		"configuration": map[string]any{
			"endpoints": map[string]any{"name": "endpoints", "value": `{` + quoted(name) + `:{"engine_type":"custom","serving_url":` + quoted(name) + `,"preprocess_artifact":"code"}}`},
			"canary":    map[string]any{"name": "canary", "value": "{}"},
		},
	}, &id)
	m.service, m.endpoint = id.ID, "/services/"+id.ID+"/endpoints/"+(&url.URL{Path: name}).EscapedPath()
	return m
}

func quoted(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		return `""`
	}
	return string(out)
}

// pages are the addresses of every kind of page.
func (m made) pages() []string {
	pages := []string{"/", "/models", "/models/upload", "/models/" + m.model, "/models/" + m.model + "/deploy", "/experiments", "/services", "/settings"}
	for _, tab := range []string{"", "/overview", "/scalars", "/plots", "/images", "/configuration", "/artifacts", "/console"} {
		pages = append(pages, "/experiments/"+m.task+tab)
	}
	for _, page := range []string{"", "/history", "/canary", "/playground"} {
		pages = append(pages, "/services/"+m.service+page)
	}
	return append(pages, m.endpoint, "/deploy?service="+m.service, "/names.json", "/docs", "/docs/rollout", "/experiments/compare?ids="+m.task+"&ids="+m.service, "/experiments/scalars.json?metric=x&ids="+m.task)
}

// forms are the addresses of every form that changes something.
func (m made) forms() []string {
	return []string{
		"/logout", "/models/upload", "/models/" + m.model + "/tags", "/models/" + m.model + "/publish", "/models/" + m.model + "/archive",
		"/models/" + m.model + "/metadata", "/models/" + m.model + "/delete", "/experiments/" + m.task + "/delete", "/models/" + m.model + "/deploy", "/experiments/" + m.task + "/tags", "/experiments/" + m.task + "/archive",
		"/services", "/services/" + m.service + "/revert", "/services/" + m.service + "/canary", "/services/" + m.service + "/canary/move", "/services/" + m.service + "/remove", "/services/" + m.service + "/metrics/remove",
		"/services/" + m.service + "/playground", "/services/" + m.service + "/options", "/services/" + m.service + "/keys", "/services/" + m.service + "/keys/revoke",
		"/services/" + m.service + "/keys/require", "/services/" + m.service + "/rollback", "/deploy", "/settings/credentials", "/settings/credentials/revoke",
	}
}

func TestALoginLinkWorksOnce(t *testing.T) {
	r := start(t, controlplane.Options{})
	link, err := r.LoginLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(link, r.api)
	if status, page := r.stranger(t).get(path); status != http.StatusOK || !strings.Contains(page, "Overview") {
		t.Errorf("first use: %d %.300s", status, page)
	}
	if status, page := r.stranger(t).get(path); status != http.StatusGone || !strings.Contains(page, "clearml-serving ui") {
		t.Errorf("second use: %d %.300s", status, page)
	}
	if status, page := r.visit(t).get(path); status != http.StatusOK || !strings.Contains(page, "<h1>Overview</h1>") {
		t.Errorf("second use by who is logged in: %d %.300s", status, page)
	}
	status, _, text := r.send(t, "POST", r.api+"/login/link", "")
	var another struct{ URL string }
	if err := json.Unmarshal([]byte(text), &another); err != nil || status != http.StatusOK || another.URL == link {
		t.Fatalf("a further link: %d %s", status, text)
	}
	if status, _, text := r.send(t, "POST", r.api+"/login/link", "", "Authorization", "Basic eDp5"); status != http.StatusUnauthorized {
		t.Errorf("a link for nobody: %d %s", status, text)
	}
}

func TestALoginWithKeysLeadsToThePageThatWasWantedAndNowhereElse(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.stranger(t)
	v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	form := url.Values{"access_key": {r.access}, "secret_key": {"wrong"}, "next": {"/models?search=x"}}
	if status, page := v.do("POST", "/login", "application/x-www-form-urlencoded", form.Encode()); status != http.StatusUnauthorized || !strings.Contains(page, "does not know") {
		t.Errorf("wrong secret: %d %.300s", status, page)
	}
	for next, want := range map[string]string{
		"/models?search=x": "/models?search=x", "//evil.example/": "/", "https://evil.example": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "": "/",
	} {
		form := url.Values{"access_key": {r.access}, "secret_key": {r.secret}, "next": {next}}
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.api+"/login", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := v.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Errorf("next %q: %d to %q; want %q", next, resp.StatusCode, resp.Header.Get("Location"), want)
		}
		cookie := resp.Header.Get("Set-Cookie")
		for _, part := range []string{"HttpOnly", "SameSite=Lax", "Max-Age=86400"} {
			if !strings.Contains(cookie, part) {
				t.Errorf("the cookie lacks %s: %s", part, cookie)
			}
		}
	}
}

func TestNoPageIsShownAndNoFormTakenWithoutALogin(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.stranger(t)
	for _, path := range m.pages() {
		if _, page := v.get(path); !strings.Contains(page, "<h1>Log in</h1>") {
			t.Errorf("%s is shown to a stranger: %.200s", path, page)
		}
	}
	for _, path := range m.forms() {
		if _, page := v.post(path); !strings.Contains(page, "<h1>Log in</h1>") {
			t.Errorf("%s is taken from a stranger: %.200s", path, page)
		}
	}
}

func TestEveryFormIsRefusedWithoutItsTokenAndFromOtherSites(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	token := v.csrf
	for _, path := range m.forms() {
		for name, headers := range map[string][]string{
			"another site": {"Sec-Fetch-Site", "cross-site"}, "another port": {"Sec-Fetch-Site", "same-site"},
			"another origin": {"Origin", "http://evil.example"}, "no token": nil,
		} {
			form := url.Values{}
			if name != "no token" {
				form.Set("csrf", token)
			}
			kind, body := "application/x-www-form-urlencoded", form.Encode()
			if path == "/models/upload" {
				kind, body = multipartForm(t, "", map[string]string{"name": "x", "csrf": form.Get("csrf")}, "x")
			}
			if status, page := v.do("POST", path, kind, body, headers...); status != http.StatusForbidden {
				t.Errorf("%s from %s: %d %.200s", path, name, status, page)
			}
		}
	}
	v.shows("/settings", r.access)
}

func TestNoNameBecomesMarkup(t *testing.T) {
	const evil = `<script>alert("x")</script>'"><img src=x onerror=alert(1)>`
	r := start(t, controlplane.Options{})
	m := r.furnish(t, evil)
	v := r.visit(t)
	for _, path := range append(m.pages(), "/models?search="+url.QueryEscape(evil), "/experiments?tags="+url.QueryEscape(evil)) {
		status, page := v.get(path)
		if status != http.StatusOK {
			t.Errorf("%s: %d %.300s", path, status, page)
		}
		if strings.Contains(page, "<script>alert") || strings.Contains(page, "<img src=x") || strings.Contains(page, `href="javascript:`) {
			t.Errorf("%s holds the name as markup:\n%s", path, page)
		}
	}
}

func TestPagesLoadNothingFromElsewhere(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	status, h, _ := r.send(t, "GET", r.api+"/login", "")
	policy := h.Get("Content-Security-Policy")
	if status != http.StatusOK || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("content policy: %d %q", status, policy)
	}
	asset := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`)
	foreign := regexp.MustCompile(`(?:src|href)="(?:https?:)?//|<style|style="|\son[a-z]+="`)
	checked := []string{}
	for _, path := range m.pages() {
		_, page := v.get(path)
		if found := foreign.FindString(page); found != "" {
			t.Errorf("%s holds %s", path, found)
		}
		for _, match := range asset.FindAllStringSubmatch(page, -1) {
			if slices.Contains(checked, match[1]) {
				continue
			}
			checked = append(checked, match[1])
			status, h, _ := r.send(t, "GET", r.api+match[1], "")
			if status != http.StatusOK || !strings.Contains(h.Get("Cache-Control"), "immutable") || h.Get("ETag") == "" {
				t.Errorf("%s: %d %v", match[1], status, h)
			}
			if status, _, _ := r.send(t, "GET", r.api+match[1], "", "If-None-Match", h.Get("ETag")); status != http.StatusNotModified {
				t.Errorf("%s asked again: %d", match[1], status)
			}
		}
	}
	if len(checked) < 5 {
		t.Errorf("only %v were looked at", checked)
	}
}

// What a page holds is bounded, whatever was logged, stored, and changed.
func TestNoPageHasMoreThan200KB(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	long := strings.Repeat(`{"quoted": "and & escaped"} `, 4000)
	var lines []string
	for i := range 600 {
		lines = append(lines, fmt.Sprintf(`{"type":"training_stats_scalar","task":%q,"metric":"m%d","variant":"v%d","value":0.5,"iter":1}`, m.task, i%60, i/60))
		lines = append(lines, `{"type":"log","task":"`+m.task+`","msg":`+quoted(fmt.Sprint(i, " ", long[:20_000]))+`,"level":"WARN"}`)
	}
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join(lines, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}
	r.call(t, "tasks.edit_configuration", map[string]any{"task": m.task, "configuration": []any{map[string]any{"name": "net", "value": long}}, "force": true}, nil)
	canaries := map[string]any{}
	for i := range 2000 {
		canaries[fmt.Sprint("c", i)] = map[string]any{"endpoint": fmt.Sprint("c", i), "weights": []float64{1}, "load_endpoints": []string{"plain"}}
	}
	text, err := json.Marshal(canaries)
	if err != nil {
		t.Fatal(err)
	}
	r.call(t, "tasks.edit_configuration", map[string]any{"task": m.service, "configuration": []any{map[string]any{"name": "canary", "value": string(text)}}, "force": true}, nil)
	r.call(t, "tasks.edit_configuration", map[string]any{"task": m.service, "configuration": []any{map[string]any{"name": "canary", "value": "{}"}}, "force": true}, nil)
	code := "class Preprocess:\n    def preprocess(self, body, state, collect=None):\n" + strings.Repeat("        x = \"a & b\" if None else 1  # why\n", 5000)
	if status, page := v.post("/deploy", "service", m.service, "engine", "custom", "endpoint", "plain", "code", "+new", "text", code); status != http.StatusOK || !strings.Contains(page, "is stored") {
		t.Fatalf("deploy: %d %.300s", status, page)
	}
	endpoints := map[string]any{"plain": map[string]any{"engine_type": "custom", "serving_url": "plain", "preprocess_artifact": "py_code_plain"}}
	for i := range 500 {
		name := fmt.Sprint("wine/of/the/cellar/", i)
		endpoints[name] = map[string]any{"engine_type": "custom", "serving_url": name}
		canaries[name+"/canary"] = map[string]any{"endpoint": name + "/canary", "weights": []float64{1, 1}, "load_endpoints": []string{name, "plain"}}
	}
	for name, records := range map[string]any{"endpoints": endpoints, "canary": canaries} {
		text, err := json.Marshal(records)
		if err != nil {
			t.Fatal(err)
		}
		r.call(t, "tasks.edit_configuration", map[string]any{"task": m.service, "configuration": []any{map[string]any{"name": name, "value": string(text)}}, "force": true}, nil)
	}
	v.shows("/services/"+m.service+"?from=50", "51–100 of 501", "wine/of/the/cellar/143")
	history := v.shows("/services/" + m.service + "/history")
	for _, edit := range regexp.MustCompile(`history\?edit=[0-9a-f]+`).FindAllString(history, -1) {
		if page := v.shows("/services/" + m.service + "/" + edit); len(page) > 200_000 {
			t.Errorf("%s has %d bytes", edit, len(page))
		}
	}
	for _, path := range append(m.pages(), "/deploy?service="+m.service+"&endpoint=plain") {
		if _, page := v.get(path); len(page) > 200_000 && !strings.Contains(path, ".json") {
			t.Errorf("%s has %d bytes", path, len(page))
		}
	}
}

func multipartForm(t *testing.T, file string, fields map[string]string, content string) (kind, body string) {
	t.Helper()
	var out bytes.Buffer
	form := multipart.NewWriter(&out)
	for name, value := range fields {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	part, err := form.CreateFormFile("file", file)
	if err == nil {
		_, err = part.Write([]byte(content))
	}
	if err != nil || form.Close() != nil {
		t.Fatal(err)
	}
	return form.FormDataContentType(), out.String()
}

func TestAModelIsUploadedEditedAndDeployed(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	v.shows("/models", "No model yet")
	v.shows("/models/upload", "multipart/form-data")
	kind, body := multipartForm(t, `..\..\my "model".pkl`, map[string]string{"csrf": v.csrf, "name": "wine & more", "tags": "a, b", "framework": "ScikitLearn"}, strings.Repeat("bytes", 1000))
	status, page := v.do("POST", "/models/upload", kind, body)
	if status != http.StatusOK || !strings.Contains(page, "is uploaded") {
		t.Fatalf("upload: %d %.400s", status, page)
	}
	model := regexp.MustCompile(`/models/([0-9a-f]{32})/deploy`).FindStringSubmatch(page)[1]
	file := regexp.MustCompile(`href="(/files/[^"]+)" download`).FindStringSubmatch(page)
	if file == nil {
		t.Fatalf("no download: %s", page)
	}
	if status, text := v.get(file[1]); status != http.StatusOK || text != strings.Repeat("bytes", 1000) {
		t.Errorf("download of %s: %d, %d bytes", file[1], status, len(text))
	}
	v.post("/models/"+model+"/tags", "tags", "b, new tag")
	v.post("/models/"+model+"/metadata", "key", "owner", "value", "me")
	v.shows("/models/"+model, "new tag", "owner", "wine &amp; more")
	v.post("/models/"+model+"/metadata", "key", "owner", "remove", "1")
	v.post("/models/" + model + "/publish")
	page = v.shows("/models/"+model, "published")
	if strings.Contains(page, "owner") || strings.Contains(page, "/publish\"") {
		t.Errorf("metadata or the button stay: %s", page)
	}
	v.post("/models/" + model + "/archive")
	v.shows("/models", "No model")
	v.shows("/models?archived=1", "wine &amp; more")
	v.post("/models/"+model+"/archive", "undo", "1")
	v.shows("/models?search=WINE&tags=new+tag&state=published&framework=ScikitLearn", "wine &amp; more")
	v.shows("/models?search=WINE&state=draft", "No model matches")

	if status, page := v.post("/services", "name", "prices"); status != http.StatusOK || !strings.Contains(page, "is created") {
		t.Fatalf("create a service: %d %.300s", status, page)
	}
	page = v.shows("/models/"+model+"/deploy", "wine_more", "sklearn")
	service := regexp.MustCompile(`<option value="([0-9a-f]{32})"`).FindStringSubmatch(page)[1]
	if status, page := v.post("/models/"+model+"/deploy", "service", service, "engine", "sklearn", "endpoint", "wi//ne", "version", "1"); status != http.StatusBadRequest || !strings.Contains(page, `value="wi//ne"`) {
		t.Errorf("a bad name: %d %.300s", status, page)
	}
	for _, version := range []string{"1", "2"} {
		if status, page := v.post("/models/"+model+"/deploy", "service", service, "engine", "sklearn", "endpoint", "wine", "version", version); status != http.StatusOK || !strings.Contains(page, "is stored") {
			t.Fatalf("deploy: %d %.300s", status, page)
		}
	}
	v.shows("/services/"+service, "wine/1", "wine/2", "not served", "No instance")
	v.shows("/models/"+model, "prices", "wine/1")
	v.steerCanary(service)
	v.takeBack(service)
	r.decideCanary(v, service)
}

// TestPagesEditAServiceAsTheCommandLineDoes: the version of the service is written, what
// is stored already is not written again, and an entry of the original's for the model
// (under the url without version) leaves with the endpoint.
func TestPagesEditAServiceAsTheCommandLineDoes(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	m := r.furnish(t, "shared")
	for range 2 {
		status, page := v.post("/models/"+m.model+"/deploy", "service", m.service, "engine", "sklearn", "endpoint", "wine", "version", "1")
		if status != http.StatusOK || !strings.Contains(page, "is stored") {
			t.Fatalf("deploy: %d %.300s", status, page)
		}
	}
	var task struct {
		Task struct {
			Runtime map[string]string
			Models  struct{ Input []struct{ Name string } }
		}
	}
	read := func() {
		task.Task.Models.Input = nil
		r.call(t, "tasks.get_by_id", map[string]any{"task": m.service}, &task)
	}
	if read(); task.Task.Runtime["version"] != "1.3.5" {
		t.Errorf("runtime = %v, want version %s", task.Task.Runtime, "1.3.5")
	}
	var history struct{ Edits []any }
	r.call(t, "tasks.get_configuration_history", map[string]any{"task": m.service}, &history)
	if len(history.Edits) != 1 {
		t.Errorf("%d edits, want 1: %v", len(history.Edits), history.Edits)
	}
	r.call(t, "tasks.add_or_update_model", map[string]any{"task": m.service, "name": "wine", "model": m.model, "type": "input"}, nil)
	if status, page := v.post("/services/"+m.service+"/remove", "endpoint", "wine/1"); status != http.StatusOK || !strings.Contains(page, "Removed the static endpoint wine/1") {
		t.Errorf("remove: %d %.300s", status, page)
	}
	if read(); len(task.Task.Models.Input) != 0 {
		t.Errorf("models stay on the service: %v", task.Task.Models.Input)
	}
}

// steerCanary makes a canary and changes its weights.
func (v *visitor) steerCanary(service string) {
	v.t.Helper()
	path := "/services/" + service + "/canary"
	v.shows(path, "New canary")
	for problem, fields := range map[string][]string{
		"is no number":   {"endpoint", "c", "target", "wine/1", "weight", "many"},
		"needs a weight": {"endpoint", "c", "target", "wine/1", "weight", ""},
		"sum to 0":       {"endpoint", "c", "target", "wine/1", "weight", "0"},
		"names itself":   {"endpoint", "c", "target", "c", "weight", "1"},
	} {
		if status, page := v.post(path, fields...); status != http.StatusBadRequest || !strings.Contains(page, problem) {
			v.t.Errorf("%s: %d %.300s", problem, status, page)
		}
	}
	if status, page := v.post(path, "endpoint", "split", "new", "1", "target", "wine/1", "weight", "0,25", "target", "wine/2", "weight", "0.75", "target", "", "weight", ""); status != http.StatusOK || !strings.Contains(page, "is stored") {
		v.t.Fatalf("canary: %d %.300s", status, page)
	}
	v.shows("/services/"+service, "25 %", "75 %")
	v.shows(path+"?endpoint=split", `value="0.25"`)
	v.post(path, "endpoint", "split", "target", "wine/1", "weight", "1", "target", "wine/2", "weight", "1")
	v.shows("/services/"+service, "50 %")
	if status, page := v.post("/services/"+service+"/playground", "endpoint", "split", "body", "{}"); status != http.StatusServiceUnavailable || !strings.Contains(page, "No instance") {
		v.t.Errorf("playground without instance: %d %.300s", status, page)
	}
	if status, _ := v.post("/services/"+service+"/playground", "endpoint", "http://evil.example/", "body", "{}"); status != http.StatusNotFound {
		v.t.Errorf("playground of an address: %d", status)
	}
}

// decideCanary pauses a canary with steps, and takes it back.
func (r *running) decideCanary(v *visitor, service string) {
	v.t.Helper()
	for name, record := range map[string]string{
		"canary":          `{"stepwise":{"endpoint":"stepwise","weights":[0.05,0.95],"load_endpoints":["wine/2","wine/1"]}}`,
		"canary_rollouts": `{"stepwise":{"id":"1","candidate":"wine/2","baseline":"wine/1","steps":[0.05,0.5,1],"phase":"running","step":0}}`,
	} {
		r.call(v.t, "tasks.edit_configuration", map[string]any{"task": service, "configuration": []any{map[string]any{"name": name, "value": record}}, "force": true}, nil)
	}
	v.shows("/services/"+service, "stepwise", `aria-current="step">5 %`, "running", "Pause", "Take back")
	move := func(action, shown string) {
		v.t.Helper()
		if status, page := v.post("/services/"+service+"/canary/move", "endpoint", "stepwise", "action", action); status != http.StatusOK || !strings.Contains(page, shown) {
			v.t.Errorf("%s: %d %.300s", action, status, page)
		}
	}
	move("pause", "The canary stepwise is paused.")
	v.shows("/services/"+service, "Resume", "default")
	move("abort", "The canary stepwise is rolled back.")
	v.shows("/services/"+service, "rolled back", "Decisions")
	if status, page := v.post("/services/"+service+"/canary/move", "endpoint", "stepwise", "action", "promote"); status == http.StatusOK || !strings.Contains(page, "has ended") {
		v.t.Errorf("promoted after the end: %d %.300s", status, page)
	}
	if status, _ := v.post("/services/"+service+"/canary/move", "endpoint", "none", "action", "pause"); status != http.StatusNotFound {
		v.t.Errorf("a canary that does not exist: %d", status)
	}
	status, page := v.post("/services/"+service+"/canary", "endpoint", "stepwise", "target", "wine/2", "weight", "1", "target", "wine/1", "weight", "1")
	if status != http.StatusOK || !strings.Contains(page, "is stored") || strings.Contains(page, "Decisions") {
		v.t.Errorf("weights do not end the steps: %d %.300s", status, page)
	}
}

// takeBack removes what was made, and reverts that.
func (v *visitor) takeBack(service string) {
	v.t.Helper()
	v.post("/services/"+service+"/remove", "endpoint", "split")
	page := v.shows("/services/"+service+"/history", "canary split removed", "endpoint wine/2 added", "web page", "default")
	if open := regexp.MustCompile(`href="(/services/[0-9a-f]+/history\?edit=[0-9a-f]+)`).FindStringSubmatch(page); open == nil || strings.Contains(page, `class="del"`) {
		v.t.Errorf("no link to what changed, or all of it at once: %s", page)
	} else {
		v.shows(open[1], `class="del"`)
	}
	edits := regexp.MustCompile(`name="edit" value="([0-9a-f]+)"`).FindAllStringSubmatch(page, -1)
	if len(edits) < 4 {
		v.t.Fatalf("history: %s", page)
	}
	if status, page := v.post("/services/"+service+"/revert", "edit", edits[0][1]); status != http.StatusOK || !strings.Contains(page, "taken back") {
		v.t.Fatalf("revert: %d %.300s", status, page)
	}
	v.shows("/services/"+service, "split", "50 %")
	if status, page := v.post("/services/"+service+"/revert", "edit", edits[len(edits)-1][1]); status != http.StatusConflict || !strings.Contains(page, "changed again") {
		v.t.Errorf("revert of what was overtaken: %d %.300s", status, page)
	}
	v.post("/services/"+service+"/remove", "endpoint", "wine/1")
	if page := v.shows("/services/" + service); strings.Contains(page, `/endpoints/wine/1"`) {
		v.t.Error("the endpoint is still there")
	}
}

func TestWhatIsArchivedCanBeDeletedForGood(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "short-lived")
	v := r.visit(t)
	for path, id := range map[string]string{"/models/": m.model, "/experiments/": m.task} {
		if page := v.shows(path + id); strings.Contains(page, "Delete for good") {
			t.Errorf("%s%s offers to delete what is not archived", path, id)
		}
		v.post(path + id + "/archive")
		v.shows(path+id, "Delete for good")
	}
	status, page := v.post("/models/"+m.model+"/delete", "files", "1")
	if status != http.StatusOK || !strings.Contains(page, "The model short-lived is deleted.") || !strings.Contains(page, "1 file stays") || !strings.Contains(page, "javascript:alert(1)") || !strings.Contains(page, "notice bad") {
		t.Errorf("%d %s", status, page)
	}
	if status, page := v.post("/experiments/" + m.task + "/delete"); status != http.StatusOK || !strings.Contains(page, "The experiment short-lived is deleted.") || !strings.Contains(page, "notice good") {
		t.Errorf("%d %s", status, page)
	}
	for _, path := range []string{"/models/" + m.model, "/experiments/" + m.task} {
		if status, _ := v.get(path); status != http.StatusNotFound {
			t.Errorf("%s is still there: %d", path, status)
		}
	}
}

func TestCredentialsAreShownOnceAndRevoked(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	_, page := v.post("/settings/credentials", "label", "laptop <b>")
	found := regexp.MustCompile(`access_key: &#34;(\w+)&#34;\s+secret_key: &#34;(\w+)&#34;|access_key: "(\w+)"\s+secret_key: "(\w+)"`).FindStringSubmatch(page)
	if found == nil {
		t.Fatalf("no credentials: %s", page)
	}
	access, secret := found[1]+found[3], found[2]+found[4]
	if page := v.shows("/settings", access, "laptop &lt;b&gt;"); strings.Contains(page, secret) {
		t.Error("the secret is shown again")
	}
	other := r.stranger(t)
	other.do("POST", "/login", "application/x-www-form-urlencoded", url.Values{"access_key": {access}, "secret_key": {secret}}.Encode())
	other.shows("/", "Overview")
	v.post("/settings/credentials/revoke", "access_key", access)
	if _, page := other.get("/models"); !strings.Contains(page, "<h1>Log in</h1>") {
		t.Error("who used revoked credentials is still logged in")
	}
}

func TestALogoutEndsTheSessionOnTheServerToo(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	at, err := url.Parse(r.api)
	if err != nil {
		t.Fatal(err)
	}
	kept := v.client.Jar.Cookies(at)
	v.post("/logout")
	v.client.Jar.SetCookies(at, kept) // a thief of the cookie
	if _, page := v.get("/models"); !strings.Contains(page, "<h1>Log in</h1>") {
		t.Error("the cookie is still good")
	}
}

func TestLinksOfTheSDKLeadToOurPages(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "linked")
	v := r.visit(t)
	v.shows("/projects/abc/experiments/"+m.task+"/output/log", "linked")
	v.shows("/projects/abc/models/"+m.model+"/general", "linked")
	for _, path := range []string{"/nothing", "/nothing/below.html", "/docs/nothing", "/services/" + m.service + "/endpoints/nothing", "/models/nothing", "/experiments/nothing", "/services/nothing", "/settings/nothing"} {
		if status, page := v.get(path); status != http.StatusNotFound || !strings.Contains(page, "Go back") {
			t.Errorf("%s: %d %.200s", path, status, page)
		}
	}
}

// A list of 120 rows is walked forwards, back, and from its end, while rows come and go.
func TestListsHavePages(t *testing.T) {
	r := start(t, controlplane.Options{})
	add := func(name string) string {
		var model struct{ ID string }
		r.call(t, "models.create", map[string]any{"name": name, "uri": "file:///x"}, &model)
		return model.ID
	}
	ids := make([]string, 120)
	for i := range ids {
		ids[len(ids)-1-i] = add("one of many") // the newest come first
	}
	add("another")
	v := r.visit(t)
	row := regexp.MustCompile(`href="/models/([0-9a-f]{32})"`)
	link := func(page, text string) string {
		found := regexp.MustCompile(`<a href="([^"]*)"[^>]*>` + text + `</a>`).FindStringSubmatch(page)
		if found == nil {
			return ""
		}
		return html.UnescapeString(found[1])
	}
	wants := func(path, rangeText string, want []string, links ...string) string {
		t.Helper()
		if path == "" {
			t.Fatalf("no link leads to %s", rangeText)
		}
		page := v.shows(path, ">"+rangeText+"<")
		var got []string
		for _, found := range row.FindAllStringSubmatch(page, -1) {
			got = append(got, found[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s shows %d rows, want %d others", path, len(got), len(want))
		}
		for _, text := range []string{"First", "← Previous", "Next →", "Last"} {
			if wanted := slices.Contains(links, text); (link(page, text) != "") != wanted {
				t.Errorf("%s: a link %q: %v", path, text, !wanted)
			}
		}
		return page
	}
	const home = "/models?search=many"
	all := []string{"First", "← Previous", "Next →", "Last"}
	first := wants(home, "1–50", ids[:50], all[2:]...)
	second := wants(link(first, "Next →"), "51–100", ids[50:100], all...)
	third := wants(link(second, "Next →"), "101–120", ids[100:], all[:2]...)
	wants(link(third, "← Previous"), "51–100", ids[50:100], all...)
	if got := link(second, "← Previous"); got != home {
		t.Errorf("before the second page lies %s", got)
	}
	last := wants(link(first, "Last"), "the last 50", ids[70:], all[:2]...)
	middle := wants(link(last, "← Previous"), "51–100 from the end", ids[20:70], all...)
	wants(link(middle, "Next →"), "the last 50", ids[70:], all[:2]...)
	wants(link(middle, "← Previous"), "101–120 from the end", ids[:20], all[2:]...)
	if got := link(middle, "First"); got != home {
		t.Errorf("the first page is %s", got)
	}

	// A new row moves nothing, and one that is gone is still a place to go on from.
	add("one of many, newer")
	wants(link(first, "Next →"), "51–100", ids[50:100], all...)
	r.call(t, "models.delete", map[string]any{"model": ids[49]}, nil)
	wants(link(first, "Next →"), "51–100", ids[50:100], all...)
	for _, id := range ids[100:] {
		r.call(t, "models.delete", map[string]any{"model": id}, nil)
	}
	for path, why := range map[string]string{
		link(second, "Next →"): "all behind are gone", "/models?search=many&after=cut&page=7": "the address was cut", "/models?search=many&page=3": "no place is named",
	} {
		if page := v.shows(path, ">1–50<"); !strings.Contains(page, "newer") {
			t.Errorf("%s (%s) does not begin anew", path, why)
		}
	}
}

// The images of the three newest iterations are shown, the newest first.
func TestImagesOfTheNewestIterationsAreShown(t *testing.T) {
	r := start(t, controlplane.Options{})
	task := r.furnish(t, "with images").task
	var lines []string
	for _, iter := range []int{2, 4, 1, 3} { // in the order of their reports
		for _, metric := range []string{"b", "a"} {
			lines = append(lines, fmt.Sprintf(`{"type":"training_debug_image","task":%q,"metric":%q,"variant":"v","iter":%d,"key":"k","url":"http://files/%s%d.png"}`, task, metric, iter, metric, iter))
		}
	}
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join(lines, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}
	page := r.visit(t).shows("/experiments/" + task + "/images")
	var shown []string
	for _, found := range regexp.MustCompile(`files/([ab]\d)\.png`).FindAllStringSubmatch(page, -1) {
		shown = append(shown, found[1])
	}
	if want := []string{"a4", "b4", "a3", "b3", "a2", "b2"}; !slices.Equal(shown, want) {
		t.Errorf("the page shows %v, want %v:\n%s", shown, want, page)
	}
}

// endpointOf is a service of the API with one endpoint, and the page of that.
func (r *running) endpointOf(t *testing.T, v *visitor) (service, page string) {
	t.Helper()
	var id struct{ ID string }
	r.call(t, "tasks.create", map[string]any{"name": "prices", "type": "service", "system_tags": []string{"serving-control-plane"}}, &id)
	if status, page := v.post("/deploy", "service", id.ID, "engine", "custom", "endpoint", "wine", "version", "1", "code", "+new", "text", "class Preprocess:\n    pass  # nothing <yet>\n"); status != http.StatusOK || !strings.Contains(page, "is stored") {
		t.Fatalf("deploy: %d %.400s", status, page)
	}
	return id.ID, "/services/" + id.ID + "/endpoints/wine/1"
}

// Code is written into the form or comes as a file, a new model comes as a file, and what is wrong
// is said before anything is stored.
func TestAnEndpointIsDeployedWithItsCodeAndItsModel(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	v.shows(at, "py_code_wine_1", `<span class="word">pass</span>`, `<span class="comment"># nothing &lt;yet&gt;</span>`, "custom", "/deploy?endpoint=wine%2F1&amp;service="+service)
	v.shows("/deploy?service="+service+"&endpoint=wine/1", "# nothing &lt;yet&gt;", "Change")
	for problem, fields := range map[string][]string{
		"no class called Preprocess": {"engine", "custom", "code", "+new", "text", "print(1)"},
		"is none of":                 {"engine", "triton"},
		"needs a model":              {"engine", "sklearn"},
		"has no code called":         {"engine", "custom", "code", "py_code_other"},
		"has no endpoint":            {"engine", "custom", "change", "1"},
	} {
		if status, page := v.post("/deploy", append(fields, "service", service, "endpoint", "other")...); status != http.StatusBadRequest || !strings.Contains(page, problem) {
			t.Errorf("%s: %d %.300s", problem, status, page)
		}
	}
	if page := v.shows("/services/" + service); strings.Contains(page, "/endpoints/other") {
		t.Error("what was refused is stored")
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range map[string]string{"csrf": v.csrf, "service": service, "engine": "sklearn", "endpoint": "new", "code": "+new", "text": "not used", "model": ""} {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range [][3]string{{"code_file", "mine.py", "class Preprocess: pass"}, {"file", `C:\models\forest.pkl`, "the model"}} {
		part, err := form.CreateFormFile(file[0], file[1])
		if err == nil {
			_, err = io.WriteString(part, file[2])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = form.Close()
	if status, page := v.do("POST", "/deploy", form.FormDataContentType(), body.String()); status != http.StatusOK || !strings.Contains(page, "is stored") || !strings.Contains(page, "mine.py") || !strings.Contains(page, "forest") {
		t.Errorf("with files: %d %s", status, page)
	}
	v.shows("/models", "forest", "ScikitLearn")
}

// A change in the form keeps what the form does not name.
func TestAChangeOfAnEndpointKeepsItsOtherSettings(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	r.call(t, "tasks.edit_configuration", map[string]any{"task": m.service, "force": true, "configuration": []any{map[string]any{"name": "endpoints", "value": `{"a":{"engine_type":"sklearn","serving_url":"a","model_id":"` + m.model + `","input_name":["height","weight"],"input_size":[[1],[1]],"input_type":["float32","float32"],"auxiliary_cfg":{"x":1},"other":2}}`}}}, nil)
	v.shows("/services/"+m.service+"/playground?endpoint=a", "&#34;height&#34;: 0", "columns of the model")
	if status, page := v.post("/deploy", "service", m.service, "endpoint", "a", "change", "1", "engine", "sklearn", "model", m.model, "code", "+new", "text", "class Preprocess: pass"); status != http.StatusOK {
		t.Fatalf("change: %d %.300s", status, page)
	}
	var task struct {
		Task struct {
			Configuration map[string]struct{ Value string }
		}
	}
	r.call(t, "tasks.get_by_id", map[string]any{"task": m.service}, &task)
	for _, word := range []string{`height`, `auxiliary_cfg`, `"other"`, `py_code_a`} {
		if text := task.Task.Configuration["endpoints"].Value; !strings.Contains(text, word) {
			t.Errorf("%s is lost: %s", word, text)
		}
	}
}

func TestOptionsOfAnEndpointAreChangedOnItsPage(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	set := func(want int, option string, fields ...string) string {
		t.Helper()
		status, page := v.post("/services/"+service+"/options", append(fields, "endpoint", "wine/1", "option", option)...)
		if status != want {
			t.Errorf("%s %v: %d %.400s", option, fields, status, page)
		}
		return page
	}
	set(200, "limits", "deadline", "2,5", "max_workers", "3", "memory_limit", "512MiB")
	set(200, "record", "share", "50", "redact", "password, user.name")
	set(200, "shadow", "to", "wine/2", "share", "10", "tolerance", "0.01")
	set(200, "golden", "samples", `{"body": {"x": "<1>"}, "answer": {"y": 2}}`, "tolerance", "1e-6")
	v.shows(at, "2.5", "512MiB", "50 %", "password, user.name", "wine/2", "1 samples", "&#34;&lt;1&gt;&#34;")
	v.shows("/services/"+service, "golden", "limits", "shadow to wine/2", "records 50 %")
	v.shows("/services/"+service+"/playground?endpoint=wine/1", "&#34;x&#34;: &#34;&lt;1&gt;&#34;", "first golden sample")
	for problem, fields := range map[string][]string{
		"is no number": {"limits", "deadline", "soon"}, "is no size": {"limits", "memory_limit", "much"}, "copy its requests to itself": {"shadow", "to", "wine/1", "share", "1"},
		"not a share": {"record", "share", "0"}, "line 1": {"golden", "samples", "nonsense"}, "names no option": {"other"},
	} {
		if page := set(400, fields[0], fields[1:]...); !strings.Contains(page, problem) {
			t.Errorf("%v: no %q in %s", fields, problem, page)
		}
	}
	for _, option := range []string{"limits", "record", "shadow", "golden"} {
		set(200, option, "off", "1")
	}
	page := v.shows(at)
	for _, gone := range []string{"512MiB", "user.name", "1 samples", "&lt;1&gt;"} {
		if strings.Contains(page, gone) {
			t.Errorf("%s stays: %s", gone, page)
		}
	}
}

func TestKeysOfAServiceAreMadeAndRevokedOnItsPage(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, _ := r.endpointOf(t, v)
	at := "/services/" + service
	if status, page := v.post(at+"/keys/require", "required", "1"); status != http.StatusBadRequest || !strings.Contains(page, "Create a key first") {
		t.Errorf("no key: %d %.300s", status, page)
	}
	_, page := v.post(at+"/keys", "label", "a shop", "endpoints", "wine", "expires", "90d")
	secret := regexp.MustCompile(`csk_[\w-]+`).FindString(page)
	if secret == "" {
		t.Fatalf("no key: %s", page)
	}
	if page := v.shows(at, "a shop", "2 months from now", "Requests need no key"); strings.Contains(page, secret) {
		t.Error("the key is shown again")
	}
	v.post(at+"/keys/require", "required", "1")
	v.shows(at, "Requests need a key")
	v.shows(at+"/history", "keys turned on")
	id := regexp.MustCompile(`name="key" value="(k[0-9a-f]+)"`).FindStringSubmatch(v.shows(at))[1]
	v.post(at+"/keys/revoke", "key", id)
	v.post(at+"/keys/require", "required", "0")
	v.shows(at+"/history", "keys turned off", "key "+id+" removed")
	if status, page := v.post(at+"/keys", "expires", "soon"); status != http.StatusBadRequest || !strings.Contains(page, "not a length of time") {
		t.Errorf("a bad time: %d %.300s", status, page)
	}
}

// reportOf makes an instance of a service with that report.
func (r *running) reportOf(t *testing.T, service, report string) (task string) {
	t.Helper()
	var id struct{ ID string }
	r.call(t, "tasks.create", map[string]any{
		"name": "instance", "type": "inference", "parent": service, "system_tags": []string{"service"},
		"configuration": map[string]any{"serving_instance": map[string]any{"name": "serving_instance", "value": report}},
	}, &id)
	r.call(t, "tasks.started", map[string]any{"task": id.ID}, nil)
	return id.ID
}

// An instance that reports a refusal is red, on all pages, and what serves is said.
func TestARefusedVersionIsSaidInRed(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	report := `{"instance":"host:1","serve_url":"http://host:1","digests":{},"endpoints":[{"endpoint":"wine/1","state":"refused","requests":7,"revision":11,"configured_revision":12,"refused_revision":{"revision":12,"step":"golden","reason":"y[0] is 2, expected 1"}}]}`
	instance := r.reportOf(t, service, report)
	if status, _, text := r.send(t, "POST", r.api+"/events.add_batch", strings.Join([]string{
		`{"type":"log","task":"` + instance + `","msg":"endpoint updated endpoint=wine/1","level":"INFO"}`,
		`{"type":"log","task":"` + instance + `","msg":"INFO one endpoint=wine/12\nERROR two endpoint=wine/1 x=y\n    | below two\nINFO three endpoint=wine/12\n    | below three","level":"INFO"}`,
	}, "\n"), "Content-Type", "application/json-lines"); status != http.StatusOK {
		t.Fatal(text)
	}
	page := v.shows(at, `<span class="badge bad">refused</span>`, `<p class="notice bad" role="alert">revision 12 refused: golden: y[0] is 2, expected 1; 11 serves</p>`, "http://host:1/serve/wine/1", "endpoint updated", "below two")
	if strings.Contains(page, "wine/12") || strings.Contains(page, "below three") {
		t.Error("the log is that of another endpoint too")
	}
	v.shows("/services/"+service, `<span class="badge bad">refused</span>`)
	v.shows("/services/"+service+"/instances/"+instance, `<span class="badge bad">refused</span>`)
	v.shows("/", "What is wrong", "wine/1 of prices is refused", at)
}

func TestTheSearchKnowsEverythingByName(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	var found []struct{ Kind, Name, Link string }
	if err := json.Unmarshal([]byte(v.shows("/names.json")), &found); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, one := range found {
		if one.Name == "plain" {
			kinds[one.Kind] = one.Link
		}
		v.shows(one.Link)
	}
	if kinds["service"] != "/services/"+m.service || kinds["endpoint"] != m.endpoint || kinds["model"] != "/models/"+m.model {
		t.Errorf("%v", kinds)
	}
}

// Recorded requests are shown to those who may deploy code, which could record them too.
func TestRecordedRequestsAreShownAndBeginThePlayground(t *testing.T) {
	r := start(t, controlplane.Options{Recorded: func(at serving.EndpointURL, most int) []serving.Exchange {
		one := serving.Exchange{ContentType: "application/json", Body: []byte(`{"of":"` + string(at) + `"}`), Status: 422, Answer: []byte(strings.Repeat("<why>", 1000))}
		return []serving.Exchange{one, one}[:min(most, 2)]
	}})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	play := "/services/" + service + "/playground?endpoint=wine/1"
	if page := v.shows(play, ">{}</textarea>") + v.shows(at); strings.Contains(page, "ecorded request") {
		t.Error("a request is shown although nothing is to be recorded")
	}
	v.post("/services/"+service+"/options", "endpoint", "wine/1", "option", "record", "share", "1")
	v.shows(play, "&#34;of&#34;: &#34;wine/1&#34;", "newest recorded request")
	if page := v.shows(at, "Newest recorded requests", `<span class="badge bad">422</span>`, "&lt;why&gt;", "more)"); strings.Count(page, "badge bad\">422") != 2 || len(page) > 30_000 {
		t.Errorf("%d bytes: %s", len(page), page)
	}
}

// The playground begins with what an instance knows of the endpoint's bodies.
func TestThePlaygroundBeginsWithTheExampleOfTheSignature(t *testing.T) {
	for of, want := range map[string]string{
		"made": "made of the signature (type hints)", "code": "example in the code", "golden": "a golden sample", "recorded": "a recorded request",
	} {
		t.Run(of, func(t *testing.T) {
			r := start(t, controlplane.Options{})
			v := r.visit(t)
			service, _ := r.endpointOf(t, v)
			r.reportOf(t, service, `{"instance":"host:1","serve_url":"http://host:1","endpoints":[{"endpoint":"wine/1","state":"ready",
				"signature":{"source":"type hints","example":{"city":"Łódź <b>","rooms":3},"example_of":"`+of+`"}}]}`)
			v.shows("/services/"+service+"/playground?endpoint=wine/1", want, "&#34;city&#34;: &#34;Łódź &lt;b&gt;&#34;",
				`-d &#39;{&#34;city&#34;:&#34;Łódź &lt;b&gt;&#34;,&#34;rooms&#34;:3}&#39;`, `.encode(),`)
		})
	}
}

// Each deployment is a revision: with its code, what it changed, and a button that brings it back.
func TestRevisionsOfAnEndpointAreShownComparedAndBroughtBack(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	if status, page := v.post("/deploy", "service", service, "endpoint", "wine", "version", "1", "change", "1", "engine", "custom", "code", "+new", "text", "class Preprocess:\n    x = \"<new>\"\n", "message", "a <better> one"); status != http.StatusOK {
		t.Fatalf("change: %d %.300s", status, page)
	}
	v.shows(at, "a &lt;better&gt; one", "/revisions/wine/1?number=2", "/revisions/wine/1?number=1", `aria-label="Bring revision 1 back"`, "default", "&lt;new&gt;")
	path := "/services/" + service + "/revisions/wine/1"
	v.shows(path+"?number=2", "Revision 2", "a &lt;better&gt; one", `<span class="del">-     pass  # nothing &lt;yet&gt;</span>`, `<span class="add">&#43;     x = &#34;&lt;new&gt;&#34;</span>`, `<span class="text">&#34;&lt;new&gt;&#34;</span>`)
	v.shows(path+"?number=1", "Revision 1", "There is no revision before it.", "# nothing &lt;yet&gt;", "Bring revision 1 back")
	v.shows(path+"?number=1&against=2", `<span class="add">&#43;     pass  # nothing &lt;yet&gt;</span>`)
	for bad, want := range map[string]int{"?number=9": 404, "": 404, "?number=1&against=9": 404} {
		if status, _ := v.get(path + bad); status != want {
			t.Errorf("%q: %d", bad, status)
		}
	}
	if status, page := v.post("/services/"+service+"/rollback", "endpoint", "wine/1", "number", "1"); status != http.StatusOK || !strings.Contains(page, "Revision 1 is stored again, as revision 3.") || !strings.Contains(page, "brings 1 back") {
		t.Errorf("rollback: %d %.300s", status, page)
	}
	if page := v.shows(at, "# nothing &lt;yet&gt;"); strings.Contains(page, "&lt;new&gt;") {
		t.Error("the code is not that of the first revision")
	}
	if status, page := v.post("/services/"+service+"/rollback", "endpoint", "wine/1", "number", "1"); status != http.StatusConflict || !strings.Contains(page, "in force already") {
		t.Errorf("rollback to what is there: %d %.300s", status, page)
	}
}

func TestARemovedEndpointIsBroughtBackFromItsPage(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, at := r.endpointOf(t, v)
	r.reportOf(t, service, `{"instance":"host:1","endpoints":[{"endpoint":"wine/1","state":"ready"}]}`) // which has not taken up the removal
	v.post("/services/"+service+"/remove", "endpoint", "wine/1")
	if page := v.shows(at, "It was removed", "Bring revision 1 back"); strings.Contains(page, ">Try<") || strings.Contains(page, "Remove wine/1") {
		t.Errorf("what is removed can be used: %s", page)
	}
	if status, page := v.post("/services/"+service+"/rollback", "endpoint", "wine/1", "number", "1"); status != http.StatusOK || !strings.Contains(page, "as revision 2") || !strings.Contains(page, ">Try<") {
		t.Errorf("rollback: %d %.300s", status, page)
	}
}

func TestAMonitoringRuleHasAPageWithItsVersions(t *testing.T) {
	r := start(t, controlplane.Options{})
	m := r.furnish(t, "plain")
	v := r.visit(t)
	sections := map[string]string{
		"model_monitoring":     `{"auto":{"base_serving_url":"auto","engine_type":"sklearn","monitor_project":"p"}}`,
		"model_monitoring_eps": `{"auto/1":{"engine_type":"sklearn","serving_url":"auto","version":"1","model_id":"` + m.model + `"}}`,
	}
	for name, text := range sections {
		r.call(t, "tasks.edit_configuration", map[string]any{"task": m.service, "force": true, "configuration": []any{map[string]any{"name": name, "value": text}}}, nil)
	}
	at := "/services/" + m.service + "/endpoints/auto"
	v.shows("/services/"+m.service, `href="`+at+`"`)
	if page := v.shows(at, "Versions", `href="`+at+`/1"`, "sklearn", "Golden samples"); strings.Contains(page, ">Try<") {
		t.Error("a rule is asked like an endpoint")
	}
	v.shows(at+"/1", `href="`+at+`"`, "its options hold where this one has none")
	v.post("/services/"+m.service+"/options", "endpoint", "auto", "option", "golden", "samples", `{"body": {"z": 1}, "answer": 2}`)
	v.shows("/services/"+m.service+"/playground?endpoint=auto/1", "&#34;z&#34;: 1")
}

func TestAGraphIsShownWithItsSteps(t *testing.T) {
	r := start(t, controlplane.Options{})
	v := r.visit(t)
	service, _ := r.endpointOf(t, v)
	text, err := json.Marshal(map[string]any{
		"wine/1": map[string]any{"engine_type": "custom", "serving_url": "wine", "version": "1", "preprocess_artifact": "py_code_wine_1"},
		"both": map[string]any{
			"engine_type": "graph", "serving_url": "both", "version": "",
			"auxiliary_cfg": "nodes:\n  root: {routerType: Sequence, steps: [{serviceName: wine/1, name: <taste>}, {nodeName: more, data: $response}]}\n  more: {routerType: Ensemble, steps: [{serviceName: wine/1}]}",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"endpoints": string(text), "endpoint_options": `{"both":{"tool":{"description":"Tastes <twice>."}}}`} {
		r.call(t, "tasks.edit_configuration", map[string]any{"task": service, "configuration": []any{map[string]any{"name": name, "value": value}}, "force": true}, nil)
	}
	page := v.shows("/services/"+service+"/endpoints/both", "Tastes &lt;twice&gt;.", `id="graph"`, "&lt;taste&gt;", `endpoints/wine/1"><code class="long">wine/1</code></a>`, "node <strong>more</strong>", "Ensemble, combiner object", "data $response", "clearml-serving model graph")
	if strings.Contains(page, "/deploy?") {
		t.Error("a graph can be changed on the page of endpoints with a model")
	}
}
