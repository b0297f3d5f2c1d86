package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestEveryMethodAndPathFormMeansTheSame(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	for _, method := range []string{"GET", "POST", "PUT"} {
		for _, path := range []string{"/tasks.get_by_id", "/v2.23/tasks.get_by_id", "/v2.9/tasks.get_by_id/", "/v999.0/tasks.get_by_id", "/api/v2.23/tasks.get_by_id", "/api/tasks.get_by_id", "/v2/tasks.get_by_id"} {
			r := w.send(t, method, path, `{"task":"`+id+`","method":"get","unknown":{"x":[1]}}`)
			if r.status != 200 || !strings.Contains(r.text, id) {
				t.Errorf("%s %s: %s", method, path, r.text)
			}
		}
	}
}

func TestRefusalsKeepTheEnvelope(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct {
		rule, path, body, want, msg string
	}{
		{"unknown call", "/v2.23/tasks.dance", "{}", "404/0", "Unable to find endpoint for name tasks.dance and version 2.23"},
		{"unknown service", "/nope.get_all", "{}", "404/0", "Unable to find endpoint"},
		{"no call in the path", "/foo", "{}", "400/0", "Invalid request path /foo"},
		{"root", "/", "", "400/0", "Invalid request path"},
		{"escaped junk", "/v2.23/tasks.get%00all", "", "400/0", "Invalid request path"},
		{"broken JSON", "/tasks.get_all", `{"a"`, "400/0", "Malformed JSON"},
		{"two values", "/tasks.get_all", `{} {}`, "400/0", "Malformed JSON"},
		{"a list", "/tasks.get_all", `[1]`, "400/0", "Malformed JSON"},
		{"NaN", "/tasks.get_all", `{"page":NaN}`, "400/0", "Malformed JSON"},
		{"number for text", "/tasks.get_by_id", `{"task":5}`, "400/12", `field "task" must be a string`},
		{"nothing for a required field", "/tasks.get_by_id", `{}`, "400/12", "task"},
		{"unknown task", "/tasks.get_by_id", `{"task":"x"}`, "400/101", "Invalid task id: id=x"},
		{"unknown model", "/models.get_by_id", `{"model":"x"}`, "400/201", "Invalid model id"},
		{"unknown project", "/projects.get_by_id", `{"project":"x"}`, "400/401", "Invalid project id"},
		{"unknown queue", "/queues.get_by_id", `{"queue":"default"}`, "400/701", "Invalid queue id"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r := w.send(t, "GET", c.path, c.body)
			if r.code() != c.want || !strings.Contains(r.Meta.ResultMsg, c.msg) {
				t.Errorf("got %s %q, want %s %q", r.code(), r.Meta.ResultMsg, c.want, c.msg)
			}
			for _, part := range []string{`"error_stack":null`, `"error_data":{}`, `"data":{}`, `"trx":"`, `"endpoint":{"name":"`} {
				if !strings.Contains(r.text, part) {
					t.Errorf("envelope lacks %s: %s", part, r.text)
				}
			}
		})
	}
}

func TestEnvelopeOfSuccess(t *testing.T) {
	w := newWire(t)
	r := w.send(t, "POST", "/v2.23/tasks.get_all", "", "X-Clearml-Trx", "my-trx")
	for _, part := range []string{`"requested_version":"2.23"`, `"actual_version":"2.23"`, `"result_code":200`, `"result_subcode":0`, `"result_msg":"OK"`, `"trx":"my-trx"`, `"data":{"tasks":[]}`} {
		if !strings.Contains(r.text, part) {
			t.Errorf("envelope lacks %s: %s", part, r.text)
		}
	}
	if a, b := w.send(t, "POST", "/tasks.get_all", ""), w.send(t, "POST", "/tasks.get_all", ""); a.text == b.text {
		t.Error("two calls have the same id")
	}
}

func TestTransportRules(t *testing.T) {
	w := newWire(t)
	if r := w.send(t, "OPTIONS", "/v2.23/tasks.get_all", ""); r.status != 200 || r.text != "" || r.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("OPTIONS: %d %q", r.status, r.text)
	}
	if r := w.send(t, "POST", "/tasks.get_all", "x", "Content-Encoding", "gzip"); r.status != 415 || strings.Contains(r.text, "meta") {
		t.Errorf("Content-Encoding: %d %q", r.status, r.text)
	}
	if r := w.send(t, "POST", "/tasks.get_all", "{}\n{}\n", "Content-Type", "application/json-lines"); r.code() != "400/0" {
		t.Errorf("json-lines for a call that takes one object: %s", r.text)
	}
	if r := w.send(t, "POST", "/tasks.get_all", `{"x":"`+strings.Repeat("x", 64<<20)+`"}`); r.code() != "413/0" {
		t.Errorf("too large: %s", r.text)
	}
	if r := w.send(t, "POST", "/tasks.get_all", `{"id":[]}`, "Content-Type", "text/plain"); r.status != 200 {
		t.Errorf("any content type is read as JSON: %s", r.text)
	}
}

func TestQueryArgumentsLieOverTheBody(t *testing.T) {
	w := newWire(t)
	var ids []string
	for i := range 3 {
		ids = append(ids, w.task(t, fmt.Sprintf(`,"tags":["t%d"],"runtime":{"flag":%v}`, i, i == 1)))
	}
	for _, c := range []struct {
		rule, query, body string
		want              []int
	}{
		{"one value", "?tags=t1", "", []int{1}},
		{"a repeated key is a list", "?tags=t1&tags=t2", "", []int{1, 2}},
		{"brackets make a list", "?tags[]=t0", "", []int{0}},
		{"the query wins over the body", "?tags=t1", `{"tags":["t2"]}`, []int{1}},
		{"numbers are numbers", "?page=1&page_size=2", "", []int{2}},
		{"booleans are booleans", "?runtime.flag=x&search_hidden=True&tags=t0", "", []int{0}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r := w.send(t, "GET", "/tasks.get_all"+c.query, c.body)
			for i, id := range ids {
				if strings.Contains(r.text, `"id":"`+id) != slices.Contains(c.want, i) {
					t.Errorf("task %d: %s", i, r.text)
				}
			}
		})
	}
	if r := w.send(t, "POST", "/tasks.get_by_id", "task="+ids[2], "Content-Type", "application/x-www-form-urlencoded"); r.status != 200 || !strings.Contains(r.text, ids[2]) {
		t.Errorf("form fields: %s", r.text)
	}
}

func TestRolesMayDoWhatTheyMay(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct{ role, call, body, want string }{
		{"nobody", "tasks.get_all", "{}", "401/20"},
		{"nobody", "tasks.create", "{}", "401/20"},
		{"guest", "tasks.get_all", "{}", "200/0"},
		{"guest", "tasks.create", `{"name":"abc","type":"custom"}`, "403/21"},
		{"guest", "models.delete", `{"model":"x"}`, "403/21"},
		{"user", "tasks.create", `{"name":"abc","type":"custom"}`, "200/0"},
		{"admin", "tasks.create", `{"name":"abc","type":"custom"}`, "200/0"},
	} {
		if r := w.send(t, "GET", "/"+c.call, c.body, "X-Role", c.role); r.code() != c.want {
			t.Errorf("%s %s: %s, want %s", c.role, c.call, r.code(), c.want)
		}
	}
}
