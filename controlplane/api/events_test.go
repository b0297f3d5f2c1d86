package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"clearmlserving/controlplane/store"
)

// task puts a task with a status into the store.
func (p *plane) task(t *testing.T, id, status string) {
	t.Helper()
	p.insert(t, store.Task, store.Doc{"id": id, "name": "n " + id, "status": status, "type": "training"})
}

func (p *plane) insert(t *testing.T, kind store.Kind, doc store.Doc) {
	t.Helper()
	err := p.store.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), kind, doc) })
	if err != nil {
		t.Fatal(err)
	}
}

// batch sends events as the SDK does: one a line.
func (p *plane) batch(t *testing.T, lines ...string) answered {
	t.Helper()
	return p.do(t, "v2.23/events.add_batch", strings.Join(lines, "\n"),
		"Authorization", basic(p.creds), "Content-Type", "application/json-lines", "X-ClearML-Worker", "host:1")
}

func scalar(task, metric, variant string, iter int64, value string) string {
	return fmt.Sprintf(`{"type":"training_stats_scalar","task":"%s","metric":"%s","variant":"%s","iter":%d,"value":%s,"timestamp":%d,"method":"get","allow_locked":false}`,
		task, metric, variant, iter, value, 1000+iter)
}

func logLine(task, msg string, at int) string {
	return fmt.Sprintf(`{"type":"log","task":"%s","msg":"%s","level":"info","timestamp":%d}`, task, msg, at)
}

func TestBatchIsTakenInEveryForm(t *testing.T) {
	for name, c := range map[string]struct {
		kind, body string
		added      string
	}{
		"json-lines":            {"application/json-lines", logLine("t", "a", 1) + "\n" + logLine("t", "b", 2), "2"},
		"blank lines":           {"application/json-lines", "\n\r\n" + logLine("t", "a", 1) + "\n  \n" + logLine("t", "b", 2) + "\n\n", "2"},
		"one line":              {"application/json-lines", logLine("t", "a", 1), "1"},
		"a list":                {"application/json", "[" + logLine("t", "a", 1) + "," + logLine("t", "b", 2) + "]", "2"},
		"an object with events": {"application/json", `{"events":[` + logLine("t", "a", 1) + "]}", "1"},
		"lines without a type":  {"", logLine("t", "a", 1) + "\n" + logLine("t", "b", 2), "2"},
		"bare NaN": {
			"application/json-lines",
			scalar("t", "NaN", "Infinity \\\" NaN", 1, "NaN") + "\n" + scalar("t", "m", "v", 1, "-Infinity") + "\n" + scalar("t", "m", "w", 1, "Infinity"), "3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t)
			p.task(t, "t", "in_progress")
			got := p.ok(t, "events.add_batch", c.body, "Content-Type", c.kind)
			if fmt.Sprint(got["added"]) != c.added || fmt.Sprint(got["errors"]) != "0" || got["errors_info"] == nil {
				t.Errorf("%v; want %s added", got, c.added)
			}
		})
	}
}

func TestBatchThatStoresNothingIsRefused(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.task(t, "done", "published")
	for body, want := range map[string]string{
		"":                           "400/17",
		"\n \n":                      "400/17",
		`{"events":[]}`:              "400/17",
		"[]":                         "400/17",
		logLine("gone", "x", 1):      "400/131",
		logLine("done", "x", 1):      "400/131",
		`{"type":"log"}`:             "400/131",
		`{"task":"t"}`:               "400/131",
		`{"task":"t","type":"x"}`:    "400/131",
		`{"task":"t","type":"plot"}`: "400/131",
		`{"task":"t","type":"training_stats_scalar","value":"x"}`:          "400/131",
		`{"task":"t","type":"training_stats_scalar","value":1,"iter":"x"}`: "400/131",
		`{"task":"t","type":"log","timestamp":[]}`:                         "400/131",
		logLine("t", "x", 1) + "\n5":                                       "400/0",
		logLine("t", "x", 1) + "\n{":                                       "400/0",
		"5":                                                                "400/0",
		"[5]":                                                              "400/0",
		logLine("t", "x", 1) + "\n" + `{"type":"log","task":"t","allow_locked":true}`: "400/12",
	} {
		if a := p.batch(t, body); a.code() != want {
			t.Errorf("%q: %s %s; want %s", body, a.code(), a.Meta.ResultMsg, want)
		}
	}
	if n, err := p.store.CountEvents(t.Context(), store.EventQuery{Tasks: []string{"t", "done", "gone"}}); err != nil || n != 0 {
		t.Errorf("stored: %d, %v", n, err)
	}
}

func TestBadEventsDoNotKeepTheOthers(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.task(t, "done", "published")
	a := p.batch(t, logLine("t", "a", 1), logLine("gone", "b", 2), logLine("gone", "c", 3), logLine("done", "d", 4),
		`{"type":"log","task":"t","msg":"e"}`)
	info, _ := json.Marshal(a.Data["errors_info"])
	if fmt.Sprintf("%v %v", a.Data["added"], a.Data["errors"]) != "2 3" || string(info) != `{"Invalid task id gone":2,"The task is published: done":1}` {
		t.Errorf("%s %v", a.code(), a.Data)
	}
	open := strings.Replace(scalar("done", "m", "v", 1, "1"), `"allow_locked":false`, `"allow_locked":true`, 1)
	if a := p.batch(t, open); a.code() != "200/0" {
		t.Errorf("with allow_locked: %s %s", a.code(), a.Meta.ResultMsg)
	}
}

func TestRepeatedReportTakesThePlaceOfTheFirst(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.batch(t, scalar("t", "m", "v", 1, "1"), scalar("t", "m", "v", 2, "5"))
	p.batch(t, scalar("t", "m", "v", 1, "3"), logLine("t", "same", 1))
	p.batch(t, logLine("t", "same", 1))
	got, _ := json.Marshal(p.ok(t, "events.scalar_metrics_iter_histogram", `{"task":"t"}`))
	if string(got) != `{"m":{"v":{"name":"v","x":[1,2],"y":[3,5]}}}` {
		t.Errorf("scalars: %s", got)
	}
	if total := p.ok(t, "events.get_task_log", `{"task":"t"}`)["total"]; fmt.Sprint(total) != "2" {
		t.Errorf("log lines: %v; want both, they are not the same report", total)
	}
}

func TestEventsLeaveTheirMarkOnTheTask(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.insert(t, store.Model, store.Doc{"id": "m1", "name": "model"})
	p.batch(t, scalar("t", "loss", "train", 5, "0.25"), scalar("t", "loss", "train", 7, "1.50"), scalar("t", "loss", "train", 6, "1e-07"),
		scalar("t", "Summary", "acc", -1<<31, "9"), scalar("t", "n", "n", 1, "NaN"),
		`{"type":"training_stats_scalar","model":"m1","model_event":true,"metric":"a","variant":"b","iter":3,"value":2}`)
	doc, err := p.store.Get(t.Context(), store.Task, "t")
	if err != nil {
		t.Fatal(err)
	}
	if doc.Int("last_iteration") != 7 || doc.Text("last_update") == "" || doc.Text("last_worker") != "host:1" {
		t.Errorf("task: %v", doc)
	}
	metrics, _ := json.Marshal(doc["last_metrics"])
	want := `{"count":3,"first_value":0.25,"first_value_iteration":5,"max_value":1.50,"max_value_iteration":7,"mean_value":0.58,"metric":"loss","min_value":1e-07,"min_value_iteration":6,"value":1.50,"variant":"train"}`
	if !strings.Contains(string(metrics), want) {
		t.Errorf("last_metrics: %s; want %s in it", metrics, want)
	}
	if strings.Contains(string(metrics), `"metric":"n"`) {
		t.Errorf("a NaN is the last value: %s", metrics)
	}
	model, err := p.store.Get(t.Context(), store.Model, "m1")
	if err != nil || model.Int("last_iteration") != 3 || model["last_metrics"] == nil {
		t.Errorf("model: %v, %v", model, err)
	}
	values, _ := json.Marshal(p.ok(t, "events.get_task_single_value_metrics", `{"tasks":["t","gone"]}`)["tasks"])
	if !strings.HasPrefix(string(values), `[{"task":"t","task_name":"n t","values":[{"metric":"Summary"`) || !strings.Contains(string(values), `"value":9`) {
		t.Errorf("single values: %s", values)
	}
}

func messages(t *testing.T, page map[string]any) string {
	t.Helper()
	var out []string
	for _, e := range page["events"].([]any) {
		out = append(out, e.(map[string]any)["msg"].(string))
	}
	return strings.Join(out, " ")
}

func TestLogIsReadInBothDirections(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.batch(t, logLine("t", "a", 10), logLine("t", "b", 20), logLine("t", "c", 20), logLine("t", "d", 20), logLine("t", "e", 30))
	for _, c := range []struct{ ask, want string }{
		{`{"task":"t"}`, "e d c b a"},
		{`{"task":"t","order":"asc"}`, "a b c d e"},
		{`{"task":"t","batch_size":1,"order":"asc"}`, "e"},
		{`{"task":"t","batch_size":2}`, "e d c b"}, // the whole millisecond: the next page begins behind it
		{`{"task":"t","from_timestamp":30}`, "d c b a"},
		{`{"task":"t","from_timestamp":20}`, "a"},
		{`{"task":"t","from_timestamp":10}`, ""},
		{`{"task":"t","from_timestamp":1}`, ""},
		{`{"task":"t","from_timestamp":0}`, ""},
		{`{"task":"t","navigate_earlier":false}`, "a b c d e"},
		{`{"task":"t","navigate_earlier":false,"from_timestamp":10}`, "b c d e"},
		{`{"task":"t","navigate_earlier":false,"from_timestamp":10,"batch_size":1}`, "b c d"},
		{`{"task":"t","navigate_earlier":false,"order":"desc"}`, "e d c b a"},
	} {
		if got := messages(t, p.ok(t, "events.get_task_log", c.ask)); got != c.want {
			t.Errorf("%s: %q; want %q", c.ask, got, c.want)
		}
	}
	if a := p.do(t, "events.get_task_log", `{"task":"gone"}`, "Authorization", basic(p.creds)); a.code() != "400/101" {
		t.Errorf("log of no task: %s", a.code())
	}
}

// Task.delete of the SDK pages until a page is empty.
func TestScrollEndsWithAnEmptyPage(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	var lines []string
	for i := range 25 {
		lines = append(lines, logLine("t", fmt.Sprint(i), 5)) // all in one millisecond
	}
	p.batch(t, lines...)
	for _, order := range []string{"asc", "desc"} {
		var got []string
		scroll := ""
		for page := range 10 {
			answer := p.ok(t, "events.get_task_events", `{"task":"t","batch_size":10,"order":"`+order+`","scroll_id":"`+scroll+`"}`)
			if fmt.Sprint(answer["total"]) != "25" {
				t.Errorf("total: %v", answer["total"])
			}
			if fmt.Sprint(answer["returned"]) == "0" {
				break
			}
			if page == 9 {
				t.Fatal("it does not end")
			}
			got = append(got, messages(t, answer))
			scroll = answer["scroll_id"].(string)
		}
		all := strings.Fields(strings.Join(got, " "))
		if len(all) != 25 || (order == "asc") != (all[0] == "0") {
			t.Errorf("%s: %v", order, all)
		}
	}
	if a := p.do(t, "events.get_task_events", `{"task":"t","scroll_id":"x"}`, "Authorization", basic(p.creds)); a.code() != "400/1104" {
		t.Errorf("foreign scroll id: %s", a.code())
	}
}

func TestPlotsOfTheLastIterations(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	plot := func(metric, variant string, iter int) string {
		return fmt.Sprintf(`{"type":"plot","task":"t","metric":"%s","variant":"%s","iter":%d,"plot_str":"{}"}`, metric, variant, iter)
	}
	p.batch(t, plot("a", "x", 1), plot("a", "x", 2), plot("a", "x", 3), plot("a", "y", 1), plot("b", "x", 9))
	for ask, want := range map[string]string{
		`{"task":"t"}`:            "ax3 ay1 bx9",
		`{"task":"t","iters":2}`:  "ax2 ax3 ay1 bx9",
		`{"task":"t","iters":99}`: "ax1 ax2 ax3 ay1 bx9",
		`{"task":"t","metrics":[{"metric":"a","variants":["y"]}]}`:         "ay1",
		`{"task":"t","metrics":[{"metric":"b"},{"metric":"a"}],"iters":1}`: "ax3 ay1 bx9",
	} {
		answer := p.ok(t, "events.get_task_plots", ask)
		var got []string
		for _, e := range answer["plots"].([]any) {
			one := e.(map[string]any)
			got = append(got, fmt.Sprintf("%v%v%v", one["metric"], one["variant"], one["iter"]))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v; want %s", ask, got, want)
		}
	}
	if got := p.ok(t, "events.get_task_plots", `{"task":"t","scroll_id":"end"}`); len(got["plots"].([]any)) != 0 {
		t.Errorf("second page: %v", got)
	}
}

func TestScalarsAreThinnedOutToWhatIsAsked(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	var lines []string
	for i := range int64(100) {
		lines = append(lines, scalar("t", "m", "v", i, fmt.Sprint(i)))
	}
	p.batch(t, append(lines, scalar("t", "m", "v", -1<<31, "5"))...)
	for ask, want := range map[string]string{
		`{"task":"t","samples":2}`:                    `{"m":{"v":{"name":"v","x":[0,50],"y":[24.5,74.5]}}}`,
		`{"task":"t","samples":1,"key":"timestamp"}`:  `{"m":{"v":{"name":"v","x":[1000],"y":[49.5]}}}`,
		`{"task":"t","samples":1,"key":"iso_time"}`:   `{"m":{"v":{"name":"v","x":["1970-01-01T00:00:01.000Z"],"y":[49.5]}}}`,
		`{"task":"t","metrics":[{"metric":"other"}]}`: `{}`,
	} {
		if got, _ := json.Marshal(p.ok(t, "events.scalar_metrics_iter_histogram", ask)); string(got) != want {
			t.Errorf("%s: %s; want %s", ask, got, want)
		}
	}
}

func TestOddQuestionsAboutEventsAreRefused(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	for _, c := range []struct{ call, body, want string }{
		{"events.scalar_metrics_iter_histogram", `{"task":"t","key":"iso_time","samples":6000}`, "200/0"},
		{"events.scalar_metrics_iter_histogram", `{"task":"t","key":"epoch"}`, "400/12"},
		{"events.scalar_metrics_iter_histogram", `{"task":"t","samples":0}`, "400/12"},
		{"events.scalar_metrics_iter_histogram", `{"task":"t","samples":6001}`, "400/12"},
		{"events.scalar_metrics_iter_histogram", `{}`, "400/12"},
		{"events.get_task_events", `{"task":"t","event_type":"*"}`, "200/0"},
		{"events.get_task_events", `{"task":"t","event_type":"scalar"}`, "400/12"},
		{"events.get_task_events", `{"task":"t","order":"up"}`, "400/12"},
		{"events.get_task_events", `{"task":"t","scroll_id":"none"}`, "400/1104"},
		{"events.debug_images", `{"metrics":[{"task":"t"}],"iters":0}`, "400/12"},
		{"events.debug_images", `{"metrics":[{"task":"t"}],"scroll_id":"unknown"}`, "200/0"},
		{"events.debug_images", `{"metrics":[]}`, "400/12"},
		{"events.get_task_single_value_metrics", `{}`, "400/12"},
	} {
		if a := p.do(t, c.call, c.body, "Authorization", basic(p.creds)); a.code() != c.want {
			t.Errorf("%s %s: %s %s, want %s", c.call, c.body, a.code(), a.Meta.ResultMsg, c.want)
		}
	}
}

// Points lie at the beginning of intervals of one length, as a ClearML server draws them.
func TestPointsLieAtTheBeginningOfTheirInterval(t *testing.T) {
	for _, c := range []struct {
		rule    string
		iters   []int64
		samples int
		want    string
	}{
		{"few are all shown", []int64{3, 5, 8}, 4, "[3,5,8] [3,5,8]"},
		{"intervals begin at their multiples", []int64{7, 8, 9, 10, 11, 12}, 3, "[6,8,10,12] [7,8.5,10.5,12]"},
		{"an empty interval has no point", []int64{0, 1, 8, 9}, 2, "[0,5] [0.5,8.5]"},
		{"iterations below zero", []int64{-3, -2, -1, 0}, 2, "[-4,-2,0] [-3,-1.5,0]"},
		{"one for all", []int64{4, 5, 6}, 1, "[3,6] [4.5,6]"},
	} {
		p := newPlane(t)
		p.task(t, "t", "in_progress")
		var lines []string
		for _, iter := range c.iters {
			lines = append(lines, scalar("t", "m", "v", iter, fmt.Sprint(iter)))
		}
		p.batch(t, lines...)
		line := p.ok(t, "events.scalar_metrics_iter_histogram", fmt.Sprintf(`{"task":"t","samples":%d}`, c.samples))["m"].(map[string]any)["v"].(map[string]any)
		x, _ := json.Marshal(line["x"])
		y, _ := json.Marshal(line["y"])
		if got := fmt.Sprintf("%s %s", x, y); got != c.want {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
}

func TestEventsHaveTheFieldsThatAClearMLServerAdds(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	p.insert(t, store.Model, store.Doc{"id": "m1", "name": "model"})
	p.batch(t, `{"type":"log","task":"t","msg":"line"}`, `{"type":"plot","task":"t","metric":"p","variant":"q","iter":1,"plot_str":"{\"ä\":1}"}`,
		`{"type":"training_stats_scalar","model":"m1","model_event":true,"metric":"a","variant":"b","iter":3,"value":2}`)
	for _, c := range []struct {
		ask  string
		want map[string]any
	}{
		{`{"task":"t","event_type":"log"}`, map[string]any{"metric": "", "variant": "", "model_event": false, "worker": "host:1", "event_id": nil}},
		{`{"task":"t","event_type":"plot"}`, map[string]any{"metric": "p", "model_event": false, "plot_len": "7", "event_id": nil}},
		{`{"task":"m1","model_events":true}`, map[string]any{"metric": "a", "model_event": true, "event_id": nil}},
	} {
		events := p.ok(t, "events.get_task_events", c.ask)["events"].([]any)
		if len(events) != 1 {
			t.Fatalf("%s: %v", c.ask, events)
		}
		event := events[0].(map[string]any)
		for key, want := range c.want {
			if got := event[key]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, want %v", c.ask, key, got, want)
			}
		}
		if at, _ := event["@timestamp"].(string); len(at) != len("2026-11-23T13:40:14.123Z") || !strings.HasSuffix(at, "Z") {
			t.Errorf("%s: @timestamp %q", c.ask, at)
		}
	}
}

// count, mean_value, and first_value go on over all batches; value is the last of a batch
// by iteration and time, whatever the order in it.
func TestLastMetricsGoOnOverBatches(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	last := func() string {
		doc, err := p.store.Get(t.Context(), store.Task, "t")
		if err != nil {
			t.Fatal(err)
		}
		for _, variants := range doc.Object("last_metrics") {
			for _, v := range variants.(map[string]any) {
				text, _ := json.Marshal(v)
				return string(text)
			}
		}
		return ""
	}
	for _, c := range []struct {
		batch []string
		want  string
	}{
		{
			[]string{scalar("t", "m", "v", 2, "5"), scalar("t", "m", "v", 1, "1.25")},
			`{"count":2,"first_value":1.25,"first_value_iteration":1,"max_value":5,"max_value_iteration":2,"mean_value":3.12,"metric":"m","min_value":1.25,"min_value_iteration":1,"value":5,"variant":"v"}`,
		},
		{
			[]string{scalar("t", "m", "v", 0, "9"), logLine("t", "between", 1)},
			`{"count":3,"first_value":1.25,"first_value_iteration":1,"max_value":9,"max_value_iteration":0,"mean_value":5.08,"metric":"m","min_value":1.25,"min_value_iteration":1,"value":9,"variant":"v"}`,
		},
		{
			[]string{scalar("t", "m", "v", 0, "9")}, // the same report once more
			`{"count":4,"first_value":1.25,"first_value_iteration":1,"max_value":9,"max_value_iteration":0,"mean_value":6.06,"metric":"m","min_value":1.25,"min_value_iteration":1,"value":9,"variant":"v"}`,
		},
		{
			[]string{scalar("t", "m", "v", 3, "1e999")}, // too large for a mean
			`{"count":5,"first_value":1.25,"first_value_iteration":1,"max_value":1e999,"max_value_iteration":3,"mean_value":6.06,"metric":"m","min_value":1.25,"min_value_iteration":1,"value":1e999,"variant":"v"}`,
		},
	} {
		p.batch(t, c.batch...)
		if got := last(); got != c.want {
			t.Errorf("after %v:\n%s, want\n%s", c.batch, got, c.want)
		}
	}
}

func TestDebugImagesAreWalkedFromTheNewest(t *testing.T) {
	p := newPlane(t)
	p.task(t, "t", "in_progress")
	image := func(iter int) string {
		return fmt.Sprintf(`{"type":"training_debug_image","task":"t","metric":"m","variant":"v","iter":%d,"key":"k%d","url":"http://f/%d.png"}`, iter, iter, iter)
	}
	p.batch(t, image(1), image(2), image(3))
	walk := func(scroll, extra string) (iters, next string) {
		answer := p.ok(t, "events.debug_images", `{"metrics":[{"task":"t","metric":"m"}],"iters":2,"scroll_id":"`+scroll+`"`+extra+`}`)
		for _, m := range answer["metrics"].([]any) {
			for _, it := range m.(map[string]any)["iterations"].([]any) {
				iters += fmt.Sprint(it.(map[string]any)["iter"])
			}
		}
		return iters, answer["scroll_id"].(string)
	}
	first, scroll := walk("", "")
	second, end := walk(scroll, "")
	third, _ := walk(end, "")
	back, _ := walk(end, `,"navigate_earlier":false`)
	again, _ := walk(end, `,"refresh":true`)
	if got := fmt.Sprintf("%s|%s|%s|%s|%s", first, second, third, back, again); got != "32|1||32|32" {
		t.Errorf("walked %s; want 32|1||32|32", got)
	}
	if scroll != end {
		t.Errorf("the id is %s, then %s", scroll, end)
	}
	if anew, next := walk("unknown", ""); anew != "32" || next == "unknown" || next == scroll {
		t.Errorf("an unknown id: %s, id %s", anew, next)
	}
}
