package api_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/store"
)

// The tests here are of traps that clients of this API lay; testdata/traps.txt lists
// them all with their tests, wherever those are.

// The SDK shares connections over threads: a refusal must not cost the next call its own.
func TestARefusalLeavesTheConnectionUsable(t *testing.T) {
	w := newWire(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	long := `{"x":"` + strings.Repeat("x", 500_000) + `"}`
	for _, c := range []struct{ path, header, body, want string }{
		{"/tasks.dance", "", long, `"result_code":404`},
		{"/foo", "", long, `"result_code":400`},
		{"/tasks.get_all", "X-Role: nobody\r\n", long, `"result_code":401`},
		{"/tasks.create", "X-Role: guest\r\n", long, `"result_code":403`},
		{"/tasks.get_all", "", `{"a"`, `"result_code":400`},
		{"/tasks.get_by_id", "", `{"task":"none"}`, `"result_subcode":101`},
		{"/tasks.get_all", "", `{}`, `"result_code":200`},
	} {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", c.path, c.header, len(c.body), c.body); err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.Close || !strings.Contains(string(text), c.want) {
			t.Errorf("%s: connection ends %v, %v, %s; want %s", c.path, resp.Close, err, text, c.want)
		}
	}
}

// Python's requests follows a redirect without the body.
func TestNoCallIsRedirected(t *testing.T) {
	w := newWire(t)
	for _, path := range []string{"//v2.23/tasks.get_all", "/v2.23//tasks.get_all", "/v2.23/tasks.get_all/", "/api//tasks.get_all", "/", "/v2.23", "/v2.23/../x", "/tasks.get_all/../x"} {
		if r := w.send(t, "GET", path, "{}"); r.status >= 300 && r.status < 400 || !strings.Contains(r.text, `"meta"`) {
			t.Errorf("%s: %d %s", path, r.status, r.text)
		}
	}
}

// A value of another type makes the SDK drop the whole answer without a word.
func TestAnswersHaveTheTypesThatTheSDKParses(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"the project"}`)
	task := w.task(t, `,"project":"`+project+`","hyperparams":{"A":{"x":{"value":"1","type":"int"}}},"configuration":{"c":{"value":"v","type":null}},
		"runtime":{"s":"1.3.2","n":2,"f":0.5,"b":true},"container":{"image":"i","arguments":null}`)
	w.must(t, "tasks.started", `{"task":"`+task+`"}`)
	w.must(t, "tasks.add_or_update_artifacts", `{"task":"`+task+`","artifacts":[{"key":"k","type":"dict","uri":"u","content_size":123456789012,"timestamp":1795441216,"display_data":[["a","b"]],"type_data":{"preview":"p"}}]}`)
	w.must(t, "events.add_batch", fmt.Sprintf(`{"type":"training_stats_scalar","task":%q,"metric":"m","variant":"v","value":1.5,"iter":1000000000}`, task))
	model := w.model(t, `,"task":"`+task+`","labels":{"cat":1},"metadata":{"k":{"key":"k","value":"v"}}`)
	w.must(t, "tasks.add_or_update_model", fmt.Sprintf(`{"task":%q,"name":"n","model":%q,"type":"output"}`, task, model))
	w.must(t, "tasks.ping", `{"task":"`+task+`"}`)
	const (
		text, object, list, flag = "text", "object", "list", "flag"
		whole                    = "whole number"
		number                   = "number"
		when                     = "time"
	)
	for _, c := range []struct {
		call, body string
		fields     map[string]string
	}{
		{"tasks.get_by_id", `{"task":"` + task + `"}`, map[string]string{
			"task.id": text, "task.name": text, "task.status": text, "task.type": text, "task.project": text, "task.user": text,
			"task.tags": list, "task.system_tags": list, "task.output": object, "task.script": object, "task.execution": object,
			"task.execution.artifacts": list, "task.execution.artifacts.0.content_size": whole, "task.execution.artifacts.0.timestamp": whole,
			"task.execution.artifacts.0.display_data": list, "task.models.input": list, "task.models.output.0.model": text,
			"task.models.output.0.updated": when, "task.hyperparams.A.x.value": text, "task.hyperparams.A.x.section": text,
			"task.configuration.c.value": text, "task.runtime.s": text, "task.runtime.n": whole, "task.runtime.f": number, "task.runtime.b": flag,
			"task.container.image": text, "task.last_iteration": whole, "task.active_duration": whole, "task.last_metrics": object,
			"task.created": when, "task.started": when, "task.status_changed": when, "task.last_update": when, "task.last_change": when,
		}},
		{"models.get_by_id", `{"model":"` + model + `"}`, map[string]string{
			"model.id": text, "model.name": text, "model.uri": text, "model.ready": flag, "model.labels.cat": whole, "model.task": text,
			"model.metadata.k.value": text, "model.tags": list, "model.system_tags": list, "model.created": when, "model.last_update": when,
		}},
		{"projects.get_by_id", `{"project":"` + project + `"}`, map[string]string{
			"project.id": text, "project.name": text, "project.basename": text, "project.tags": list, "project.system_tags": list, "project.created": when, "project.last_update": when,
		}},
		{"tasks.edit", `{"task":"` + task + `","force":true,"comment":"c"}`, map[string]string{"updated": whole, "fields": object}},
		{"tasks.started", `{"task":"` + task + `"}`, map[string]string{"updated": whole, "fields": object, "started": whole}},
		{"tasks.completed", `{"task":"` + task + `"}`, map[string]string{"updated": whole, "fields": object, "published": whole}},
		{"models.edit", `{"model":"` + model + `","comment":"c"}`, map[string]string{"updated": whole, "fields": object}},
		{"models.set_ready", `{"model":"` + model + `","publish_task":false}`, map[string]string{"updated": whole}},
		{"events.get_task_events", `{"task":"` + task + `"}`, map[string]string{"events": list, "returned": whole, "total": whole, "scroll_id": text}},
		{"models.delete", `{"model":"` + model + `","force":true}`, map[string]string{"deleted": flag, "url": text}},
		{"tasks.delete", `{"task":"` + task + `","force":true}`, map[string]string{"deleted": flag, "updated_children": whole, "updated_models": whole}},
	} {
		r := w.call(t, c.call, c.body)
		if r.status != 200 {
			t.Errorf("%s: %s %s", c.call, r.code(), r.Meta.ResultMsg)
			continue
		}
		for path, want := range c.fields {
			if got := typeAt(r.Data, path); got != want && (want != number || got != whole) {
				t.Errorf("%s: %s is %s, want %s", c.call, path, got, want)
			}
		}
		if strings.Contains(r.text, `"_id"`) {
			t.Errorf("%s names an id as the database does: %s", c.call, r.text)
		}
		if !strings.Contains(r.text, `"requested_version":"2.23"`) {
			t.Errorf("%s: the version is no text: %s", c.call, r.text)
		}
	}
}

// wholeNumber is how an integer is written so that Python reads an int.
var wholeNumber = regexp.MustCompile(`^-?\d+$`)

// typeAt says what lies at a path of keys and indexes.
func typeAt(at any, path string) string {
	for part := range strings.SplitSeq(path, ".") {
		switch value := at.(type) {
		case map[string]any:
			at = value[part]
		case []any:
			at = nil
			if part == "0" && len(value) > 0 {
				at = value[0]
			}
		default:
			return "nothing"
		}
	}
	switch value := at.(type) {
	case string:
		// dateutil reads it, and compares it only when it has a zone.
		if _, err := time.Parse("2006-01-02T15:04:05.999999Z07:00", value); err == nil {
			return "time"
		}
		return "text"
	case json.Number:
		if wholeNumber.MatchString(value.String()) {
			return "whole number"
		}
		return "number"
	case bool:
		return "flag"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	}
	return "nothing"
}

// Python escapes every letter beyond ASCII, those outside of the first plane as two.
func TestTextsInPythonsEscapesAreStoredAsText(t *testing.T) {
	w := newWire(t)
	id := w.create(t, "tasks.create", `{"name":"Gr\u00f6\u00dfe \ud83d\ude00 \u2713","type":"training","comment":"<a&b> \u2028"}`)
	r := w.call(t, "tasks.get_by_id", `{"task":"`+id+`"}`)
	for _, part := range []string{`"name":"Größe 😀 ✓"`, `"comment":"<a&b> `} {
		if !strings.Contains(r.text, part) {
			t.Errorf("the answer lacks %s in plain UTF-8: %s", part, r.text)
		}
	}
	if got := names(t, w.call(t, "tasks.get_all", `{"name":"^Gr\u00f6\u00dfe\\ \ud83d\ude00"}`), "tasks"); len(got) != 1 {
		t.Errorf("found by its name: %v", got)
	}
}

// The original escapes such keys in its database, and nobody sees that.
func TestOddKeysComeBackAsTheyWereSent(t *testing.T) {
	w := newWire(t)
	keys := []string{"a.b", "$set", "100%", "a b [0]", "__x__", "%2E", "_id", "é", `q"uote`, "a/b/c"}
	params, metadata := map[string]any{}, []any{}
	for _, key := range keys {
		params[key] = map[string]any{"section": "S.e$c", "name": key, "value": key}
		metadata = append(metadata, map[string]any{"key": key, "type": "str", "value": key})
	}
	hyper, _ := json.Marshal(map[string]any{"S.e$c": params})
	meta, _ := json.Marshal(metadata)
	config, _ := json.Marshal(map[string]any{"a.b/$c": map[string]any{"name": "a.b/$c", "value": "v"}})
	task := w.read(t, "task", w.task(t, `,"hyperparams":`+string(hyper)+`,"configuration":`+string(config)))
	for _, key := range keys {
		if got := task.Text("hyperparams", "S.e$c", key, "value"); got != key {
			t.Errorf("parameter %q has the value %q", key, got)
		}
	}
	if task.Text("configuration", "a.b/$c", "value") != "v" {
		t.Errorf("configuration: %v", task["configuration"])
	}
	id := w.model(t, "")
	w.must(t, "models.add_or_update_metadata", `{"model":"`+id+`","metadata":`+string(meta)+`}`)
	model := w.read(t, "model", id)
	for _, key := range keys {
		if got := model.Text("metadata", key, "value"); got != key {
			t.Errorf("metadata %q has the value %q", key, got)
		}
		filter, _ := json.Marshal(map[string]any{"metadata." + key + ".value": key})
		if got := w.must(t, "models.get_all", string(filter))["models"].([]any); len(got) != 1 {
			t.Errorf("%s finds %d models", filter, len(got))
		}
	}
}

// A serving service pings each few minutes at most, and a training may be silent for days.
func TestASilentTaskIsLeftRunning(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	w.must(t, "tasks.started", `{"task":"`+id+`"}`)
	w.pass(30 * 24 * time.Hour)
	w.task(t, "")
	w.must(t, "tasks.get_all", `{}`)
	if got := w.read(t, "task", id).Text("status"); got != "in_progress" {
		t.Errorf("after a month the task is %s", got)
	}
}

func TestLastChangeMovesWithEveryWrite(t *testing.T) {
	w := newWire(t)
	id, model := w.task(t, ""), w.model(t, "")
	before := w.read(t, "task", id)
	for _, c := range []struct {
		call, more string
		update     bool
	}{
		{"tasks.ping", ``, true},
		{"tasks.started", ``, true},
		{"tasks.edit", `,"force":true,"runtime":{"a":1}`, true},
		{"tasks.edit", `,"force":true,"name":"new name"`, false},
		{"tasks.update", `,"comment":"c"`, false},
		{"tasks.add_or_update_artifacts", `,"artifacts":[{"key":"k","type":"custom"}]`, true},
		{"tasks.add_or_update_model", `,"name":"n","type":"output","model":"` + model + `"`, true},
		{"tasks.edit_hyper_params", `,"force":true,"hyperparams":[{"section":"s","name":"n","value":"v"}]`, true},
		{"tasks.edit_configuration", `,"force":true,"configuration":[{"name":"n","value":"v"}]`, true},
		{"events.add_batch", `,"type":"log","msg":"m"`, true},
		{"tasks.stopped", ``, true},
	} {
		w.must(t, c.call, `{"task":"`+id+`"`+c.more+`}`)
		after := w.read(t, "task", id)
		if after.Text("last_change") <= before.Text("last_change") {
			t.Errorf("%s%s leaves last_change at %s", c.call, c.more, after.Text("last_change"))
		}
		if moved := after.Text("last_update") > before.Text("last_update"); moved != c.update {
			t.Errorf("%s%s moves last_update: %v", c.call, c.more, moved)
		}
		before = after
	}
}

// Only the first colon parts the key from the secret.
func TestASecretMayHoldColons(t *testing.T) {
	p := newPlane(t)
	made := p.ok(t, "auth.create_credentials", `{}`)["credentials"].(map[string]any)
	const secret = "a:b::ü :"
	err := store.Update(t.Context(), p.store, store.Credential, made["access_key"].(string), func(doc store.Doc) error {
		doc["secret_sha256"] = hash(secret)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pair := base64.StdEncoding.EncodeToString([]byte(made["access_key"].(string) + ":" + secret))
	if a := p.do(t, "auth.login", "", "Authorization", "Basic "+pair); a.code() != "200/0" {
		t.Errorf("%s %s", a.code(), a.Meta.ResultMsg)
	}
}

// The original lets an admin act as another user by a header; here nobody does.
func TestNobodyActsAsAnotherUser(t *testing.T) {
	p := newPlane(t)
	me := p.ok(t, "users.get_current_user", "")["user"].(map[string]any)["id"]
	other := p.ok(t, "auth.create_user", `{"name":"other one"}`)["id"].(string)
	for _, header := range []string{"X-Clearml-Impersonate-As", "X-Clearml-Act-As", "X-Trains-Impersonate-As", "X-Trains-Act-As"} {
		got := p.ok(t, "users.get_current_user", "", header, other)["user"].(map[string]any)["id"]
		if got != me {
			t.Errorf("with %s the call is made as %v, want %v", header, got, me)
		}
	}
}

// The SDK's first call of a process, login, has neither a body nor a type.
func TestALoginNeedsNeitherBodyNorVersion(t *testing.T) {
	p := newPlane(t)
	for _, path := range []string{"auth.login", "v2.9/auth.login", "api/auth.login", "auth.login?expiration_sec=3600"} {
		a := p.do(t, path, "", "Authorization", basic(p.creds))
		token, _ := a.Data["token"].(string)
		if a.code() != "200/0" || strings.Count(token, ".") != 2 {
			t.Errorf("%s: %s, token %q", path, a.code(), token)
		}
		again := p.do(t, "auth.login", "", "Authorization", "Bearer "+token)
		if again.code() != "200/0" || again.Data["token"] == "" {
			t.Errorf("%s: a new token for the old one: %s", path, again.code())
		}
	}
}

// A batch may be as long as the SDK makes them, 15 MB, and more.
func TestABatchOfSixteenMegabytesIsTaken(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	line := fmt.Sprintf(`{"type":"log","task":%q,"msg":%q,"level":"info"}`, id, strings.Repeat("long line ", 1600))
	const lines = 1000
	r := w.send(t, "GET", "/v2.23/events.add_batch", strings.Repeat(line+"\n", lines), "Content-Type", "application/json-lines")
	if r.code() != "200/0" || !strings.Contains(r.text, fmt.Sprintf(`"added":%d`, lines)) {
		t.Errorf("%s %s", r.code(), r.Meta.ResultMsg)
	}
}

// Which status the server gives decides whether the SDK gives up, asks again, or waits
// for ever: 501 and what is above 500 but for 503 must never come.
func TestEveryRefusalHasACodeThatTheSDKGivesUpOn(t *testing.T) {
	w := newWire(t)
	for _, c := range api.New(api.Options{}).Calls() {
		if strings.HasPrefix(c.Name, "auth.") || strings.HasPrefix(c.Name, "users.") {
			continue // they need the tokens that their own tests have
		}
		for _, body := range []string{``, `{}`, `[]`, `{"a"`, `"x"`, `{"task":1,"model":[],"project":{},"id":false}`, `{"task":"x","model":"x","project":"x","queue":"x","ids":["x"]}`} {
			r := w.send(t, "GET", "/"+c.Name, body, "X-Role", "admin")
			switch r.status {
			case 200, 400, 401, 403, 404:
			default:
				t.Errorf("%s %s: %d %s", c.Name, body, r.status, r.Meta.ResultMsg)
			}
			if !strings.Contains(r.text, `"meta":{`) || !strings.Contains(r.text, `"data":{`) {
				t.Errorf("%s %s: no envelope: %s", c.Name, body, r.text)
			}
		}
	}
}

// An edit of the SDK sends everything it has read; a null is no wish to remove.
func TestTagsAreReplacedAsAWhole(t *testing.T) {
	w := newWire(t)
	id := w.task(t, `,"tags":["a"],"system_tags":["development"]`)
	for _, c := range []struct{ edit, want string }{
		{`"system_tags":["serving-control-plane"]`, `[["a"],["serving-control-plane"]]`},
		{`"tags":["c","b","c"]`, `[["b","c"],["serving-control-plane"]]`},
		{`"tags":null,"system_tags":null`, `[["b","c"],["serving-control-plane"]]`},
		{`"tags":[]`, `[[],["serving-control-plane"]]`},
	} {
		w.must(t, "tasks.edit", `{"task":"`+id+`","force":true,`+c.edit+`}`)
		doc := w.read(t, "task", id)
		got, _ := json.Marshal([]any{doc["tags"], doc["system_tags"]})
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s: %s", c.edit, diff)
		}
	}
}
