package api_test

import (
	"fmt"
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
			`"tags":["a","b"]`, `"queues":[{"id":"$Q","name":"the queue","next_task":{"id":"$W","name":"waiting one"},"num_tasks":1}]`, `"register_time":"2026-`,
		}, lacks: []string{`"task":`, `"queue":`, "last_report_time"}},
		{call: "workers.status_report", body: `{"worker":"host:1","timestamp":1,"task":"$R","queue":"$Q","machine_stats":{"cpu_usage":[1]}}`, has: []string{`"data":{}`}},
		{call: "workers.get_all", body: `{}`, has: []string{
			`"task":{"id":"$R","last_iteration":0,"name":"running one","running_time":`, `"project":{"id":"$P","name":"the project"}`,
			`"queue":{"id":"$Q"`, `"queues":[{"id":"$Q"`, `"last_report_time":"2026-`,
		}},
		{call: "tasks.get_by_id", body: `{"task":"$R"}`, has: []string{`"last_worker":"host:1"`, `"last_worker_report":"2026-`}},
		{call: "workers.status_report", body: `{"worker":"host:1","timestamp":2}`},
		{call: "workers.get_all", body: `{}`, lacks: []string{`"task":{"id":"$R"`, `"queue":`, `"project"`}},
		{call: "workers.status_report", body: `{"worker":"never registered","timestamp":2,"tags":["c"]}`},
		{call: "workers.get_count", body: `{}`, has: []string{`"count":2`}},
		{call: "workers.get_all", body: `{"tags":["a","c"]}`, has: []string{"host:1", "never registered"}},
		{call: "workers.get_all", body: `{"tags":["-c"]}`, has: []string{"host:1"}, lacks: []string{"never registered"}},
		{call: "workers.get_all", body: `{"system_tags":["gpu"]}`, has: []string{"host:1"}, lacks: []string{"never registered"}},
		{call: "workers.unregister", body: `{"worker":"host:1"}`},
		{call: "workers.unregister", body: `{"worker":"host:1"}`, want: "400/1004"},
		{call: "workers.get_all", body: `{}`, has: []string{"never registered"}, lacks: []string{"host:1"}},
		{call: "tasks.delete", body: `{"task":"$R","force":true}`},
	})
	for _, c := range []struct{ call, body, want string }{
		{"workers.register", `{}`, "400/11"},
		{"workers.register", `{"worker":5}`, "400/12"},
		{"workers.register", `{"worker":"w","timeout":0}`, "400/1002"},
		{"workers.register", `{"worker":"w","timeout":-1}`, "400/1002"},
		{"workers.register", `{"worker":"w","queues":["gone"]}`, "400/701"},
		{"workers.unregister", `{}`, "400/11"},
		{"workers.status_report", `{"timestamp":1}`, "400/11"},
		{"workers.status_report", `{"worker":"w"}`, "400/11"},
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
	if r := w.call(t, "workers.unregister", `{"worker":"short"}`); r.code() != "400/1004" {
		t.Errorf("unregistering one that is forgotten: %s", r.code())
	}
	w.must(t, "workers.status_report", `{"worker":"short","timestamp":1}`)
	if got := list(`{}`); got != "short" {
		t.Errorf("one that is heard of again: %q", got)
	}
}

func TestReportsOfMachinesBecomeCharts(t *testing.T) {
	w := newWire(t)
	if r := w.call(t, "workers.get_metric_keys", `{}`); r.code() != "400/1005" {
		t.Errorf("keys before any report: %s", r.code())
	}
	task := w.task(t, "")
	begun := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration, worker, more string) {
		w.mu.Lock()
		w.clock = begun.Add(d)
		w.mu.Unlock()
		w.must(t, "workers.status_report", fmt.Sprintf(`{"worker":%q,"timestamp":1%s}`, worker, more))
	}
	at(10*time.Second, "a", `,"machine_stats":{"cpu_usage":[10,30],"memory_used":100,"gpu_usage":null}`)
	at(30*time.Second, "a", `,"task":"`+task+`","machine_stats":{"cpu_usage":[50,70],"memory_used":300}`)
	at(40*time.Second, "b", `,"machine_stats":{"cpu_usage":[5],"disk_read":7}`)
	at(130*time.Second, "b", `,"machine_stats":{"cpu_usage":[9]}`)
	from, to := begun.Unix(), begun.Unix()+180
	ask := func(call, more string) string {
		t.Helper()
		r := w.call(t, call, fmt.Sprintf(`{"from_date":%d,"to_date":%d%s}`, from, to, more))
		if r.status != 200 {
			t.Fatalf("%s %s: %s %s", call, more, r.code(), r.Meta.ResultMsg)
		}
		_, data, _ := strings.Cut(r.text, `"data":`)
		return data
	}
	dates := fmt.Sprintf(`"dates":[%d,%d,%d]`, from*1000, from*1000+60000, from*1000+120000)
	for _, c := range []struct{ rule, call, more, want string }{
		{"keys by their first word", "workers.get_metric_keys", ``, `{"categories":[{"name":"cpu","metric_keys":["cpu_usage"]},{"name":"disk","metric_keys":["disk_read"]},{"name":"gpu","metric_keys":["gpu_usage"]},{"name":"memory","metric_keys":["memory_used"]}]}`},
		{"keys of some", "workers.get_metric_keys", `,"worker_ids":["b"]`, `"cpu_usage"]},{"name":"disk"`},
		{
			"cores are joined", "workers.get_stats", `,"interval":60,"items":[{"key":"cpu_usage","category":"avg"},{"key":"cpu_usage","category":"max"}],"worker_ids":["a"]`,
			`{"workers":[{"worker":"a","metrics":[{"metric":"cpu_usage",` + dates + `,"stats":[{"aggregation":"avg","values":[40,0,0]},{"aggregation":"max","values":[70,0,0]}]}]}]}`,
		},
		{"newer name of the way", "workers.get_stats", `,"interval":60,"items":[{"key":"memory_used","aggregation":"min"}]`, `"stats":[{"aggregation":"min","values":[100,0,0]}]`},
		{
			"cores apart", "workers.get_stats", `,"interval":60,"items":[{"key":"cpu_usage"}],"worker_ids":["a"],"split_by_variant":true`,
			`"variant":"0",` + dates + `,"stats":[{"aggregation":"avg","values":[30,0,0]}]},{"metric":"cpu_usage","variant":"1",`,
		},
		{"nothing of that name", "workers.get_stats", `,"interval":60,"items":[{"key":"none"}]`, `{"workers":[]}`},
		{"points are 40 s apart or more", "workers.get_stats", `,"interval":1,"items":[{"key":"disk_read"}]`, fmt.Sprintf(`"dates":[%d,%d,%d,%d],"stats":[{"aggregation":"avg","values":[0,7,0,0]`, from*1000, from*1000+40000, from*1000+80000, from*1000+120000)},
		{"who reported, and who ran a task", "workers.get_activity_report", `,"interval":60`, `"total":{` + dates + `,"counts":[2,0,1]}`},
		{"who ran a task", "workers.get_activity_report", `,"interval":60`, `"active":{` + dates + `,"counts":[1,0,0]}`},
	} {
		if got := ask(c.call, c.more); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s in it", c.rule, got, c.want)
		}
	}
	for _, c := range []struct{ call, body, want string }{
		{"workers.get_stats", `{"from_date":2,"to_date":1,"interval":60,"items":[{"key":"cpu_usage"}]}`, "400/16"},
		{"workers.get_stats", `{"from_date":1,"to_date":2,"interval":60}`, "400/11"},
		{"workers.get_stats", `{"from_date":1,"interval":60,"items":[]}`, "400/11"},
		{"workers.get_stats", `{"from_date":1,"to_date":2,"interval":60,"items":[{"key":"cpu_usage","category":"sum"}]}`, "400/12"},
		{"workers.get_activity_report", `{"from_date":5,"to_date":5,"interval":60}`, "400/16"},
		{"workers.get_activity_report", `{"from_date":1,"to_date":1e300,"interval":60}`, "400/16"},
		{"workers.get_activity_report", `{}`, "400/11"},
	} {
		if r := w.call(t, c.call, c.body); r.code() != c.want {
			t.Errorf("%s %s: %s %s, want %s", c.call, c.body, r.code(), r.Meta.ResultMsg, c.want)
		}
	}
	w.pass(8 * 24 * time.Hour)
	w.must(t, "workers.status_report", `{"worker":"a","timestamp":1,"machine_stats":{"network_rx":1}}`)
	if got := ask("workers.get_metric_keys", ``); !strings.Contains(got, `[{"name":"network","metric_keys":["network_rx"]}]`) {
		t.Errorf("reports are kept longer than a week: %s", got)
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
