package api_test

import (
	"strings"
	"testing"
	"time"
)

// pass lets time go by.
func (w *wire) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

func TestWorkersAreListedWithWhatTheyWorkOn(t *testing.T) {
	w := newWire(t)
	ids := w.run(t, []step{
		{call: "projects.create", body: `{"name":"the project"}`, save: "P"},
		{call: "queues.create", body: `{"name":"the queue"}`, save: "Q"},
		{call: "tasks.create", body: `{"name":"running one","type":"training","project":"$P"}`, save: "R"},
		{call: "tasks.create", body: `{"name":"waiting one","type":"training"}`, save: "W"},
		{call: "tasks.started", body: `{"task":"$R"}`},
		{call: "tasks.enqueue", body: `{"task":"$W","queue":"$Q"}`},
		{call: "workers.get_all", body: `{}`, has: []string{`"data":{"workers":[]}`}},
		{call: "workers.register", body: `{"worker":"host:1","queues":["$Q"],"tags":["b","a"],"system_tags":["gpu"],"timeout":600}`, has: []string{`"data":{}`}},
		{call: "workers.get_all", body: `{}`, has: []string{
			`"id":"host:1"`, `"key":"worker_company1_user1_host:1"`, `"user":{"id":"user1"`, `"company":{"id":"company1"`, `"ip":"127.0.0.1"`,
			`"tags":["a","b"]`, `"queues":[{"id":"$Q"}]`, `"register_time":"2026-`,
		}, lacks: []string{`"task":`, `"queue":`, "last_report_time"}},
		{call: "workers.status_report", body: `{"worker":"host:1","timestamp":1,"task":"$R","queue":"$Q","machine_stats":{"cpu_usage":[1]}}`, has: []string{`"data":{}`}},
		{call: "workers.get_all", body: `{}`, has: []string{
			`"task":{"id":"$R"}`, `"queue":{"id":"$Q"}`, `"queues":[{"id":"$Q"}]`, `"last_report_time":"2026-`,
		}},
		{call: "tasks.get_by_id", body: `{"task":"$R"}`, has: []string{`"last_worker":"host:1"`, `"last_worker_report":"2026-`}},
		{call: "workers.status_report", body: `{"worker":"host:1","timestamp":2}`},
		{call: "workers.get_all", body: `{}`, lacks: []string{`"task":{"id":"$R"`, `"queue":`}},
		{call: "workers.status_report", body: `{"worker":"never registered","timestamp":2,"tags":["c"]}`},
		{call: "workers.get_all", body: `{"tags":["a","c"]}`, has: []string{"host:1", "never registered"}},
		{call: "workers.get_all", body: `{"tags":["-c"]}`, has: []string{"host:1"}, lacks: []string{"never registered"}},
		{call: "workers.get_all", body: `{"system_tags":["gpu"]}`, has: []string{"host:1"}, lacks: []string{"never registered"}},
		{call: "workers.unregister", body: `{"worker":"host:1"}`},
		{call: "workers.unregister", body: `{"worker":"host:1"}`},
		{call: "workers.get_all", body: `{}`, has: []string{"never registered"}, lacks: []string{"host:1"}},
		{call: "tasks.delete", body: `{"task":"$R","force":true}`},
	})
	for _, c := range []struct{ call, body, want string }{
		{"workers.register", `{}`, "400/12"},
		{"workers.register", `{"worker":5}`, "400/12"},
		{"workers.register", `{"worker":"w","timeout":0}`, "400/1002"},
		{"workers.register", `{"worker":"w","timeout":-1}`, "400/1002"},
		{"workers.register", `{"worker":"w","queues":["gone"]}`, "400/701"},
		{"workers.unregister", `{}`, "400/12"},
		{"workers.status_report", `{"timestamp":1}`, "400/12"},
		{"workers.status_report", `{"worker":"w"}`, "400/12"},
		{"workers.status_report", `{"worker":"w","timestamp":1,"task":"` + ids["R"] + `"}`, "400/101"},
		{"workers.status_report", `{"worker":"w","timestamp":1,"machine_stats":[]}`, "400/12"},
		{"workers.get_all", `{"tags":["__$what"]}`, "400/16"},
		{"workers.get_all", `{"last_seen":"x"}`, "400/12"},
	} {
		if r := w.call(t, c.call, c.body); r.code() != c.want {
			t.Errorf("%s %s: %s %s, want %s", c.call, c.body, r.code(), r.Meta.ResultMsg, c.want)
		}
	}
	if r := w.send(t, "GET", "/workers.register", `{"worker":"w"}`, "X-Role", "guest"); r.code() != "403/21" {
		t.Errorf("a guest's worker: %s", r.code())
	}
	if r := w.send(t, "GET", "/workers.status_report", `{"worker":"w","timestamp":1}`, "X-Role", "service"); r.code() != "403/21" {
		t.Errorf("a worker with credentials for one service: %s", r.code())
	}
}

func TestSilentWorkersAreForgotten(t *testing.T) {
	w := newWire(t)
	list := func(ask string) string {
		var names []string
		for _, v := range w.must(t, "workers.get_all", ask)["workers"].([]any) {
			names = append(names, v.(map[string]any)["id"].(string))
		}
		return strings.Join(names, " ")
	}
	w.must(t, "workers.register", `{"worker":"short","timeout":60}`)
	w.must(t, "workers.register", `{"worker":"usual"}`)
	w.must(t, "workers.register", `{"worker":"long","timeout":86400}`)
	for _, c := range []struct {
		pass      time.Duration
		ask, want string
	}{
		{0, `{}`, "short usual long"},
		{2 * time.Minute, `{}`, "usual long"},
		{0, `{"last_seen":30}`, ""},
		{0, `{"last_seen":0}`, "usual long"},
		{9 * time.Minute, `{}`, "long"},
		{time.Hour, `{}`, ""},
		{0, `{"last_seen":0}`, "long"},
		{0, `{"last_seen":7200}`, "long"},
	} {
		w.pass(c.pass)
		if got := list(c.ask); got != c.want {
			t.Errorf("%v later, %s: %q, want %q", c.pass, c.ask, got, c.want)
		}
	}
	w.must(t, "workers.unregister", `{"worker":"short"}`)
	w.must(t, "workers.status_report", `{"worker":"short","timestamp":1}`)
	if got := list(`{}`); got != "short" {
		t.Errorf("one that is heard of again: %q", got)
	}
}

func TestWorkersOfBeforeTheClockWasSetBackAreGoneUntilTheyReport(t *testing.T) {
	w := newWire(t)
	w.run(t, []step{
		{call: "workers.register", body: `{"worker":"lives","timeout":600}`},
		{call: "workers.register", body: `{"worker":"is gone","timeout":600}`},
		{call: "workers.get_all", body: `{}`, has: []string{"lives", "is gone"}},
	})
	w.pass(-6 * time.Hour)
	w.run(t, []step{
		{call: "workers.get_all", body: `{}`, lacks: []string{"lives", "is gone"}},
		{call: "workers.status_report", body: `{"worker":"lives","timestamp":1}`},
		{call: "workers.get_all", body: `{}`, has: []string{"lives"}, lacks: []string{"is gone"}},
	})
}
