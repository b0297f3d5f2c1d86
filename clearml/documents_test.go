package clearml_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/clearml"
)

func TestOddFieldsCostNothingElse(t *testing.T) {
	f := newFake(t)
	f.on("tasks.get_by_id", `{"task":{
		"id":"t1","name":"n \" NaN, -Infinity","status":7,"unknown":{"x":[1]},"tags":"not a list","created":"not a date","last_update":"2026-11-23T13:40:14+00:00",
		"project":{"id":"p","name":"expanded"},
		"hyperparams":{"General":{"a":{"value":3},"b":{"value":true},"c":"odd","d":{"value":"text"}},"Odd":[]},
		"configuration":{"endpoints":{"name":"endpoints","value":"{}"},"odd":5},
		"execution":{"artifacts":[{"key":"k","uri":"u","content_size":"big"},7]},
		"models":{"input":[{"name":"m","model":"id"}],"output":null},
		"runtime":{"version":"1.3.5","cpu_cores":2,"flag":true},
		"last_metrics":{"a":{"b":{"value":NaN,"min":-Infinity,"text":"NaN \" NaN"}}}}}`)
	task, err := f.start().Task(t.Context(), "t1")
	if err != nil {
		t.Fatal(err)
	}
	if task.ID != "t1" || task.Name != `n " NaN, -Infinity` || task.LastUpdate.Unix() != 1795441214 || !task.Created.IsZero() {
		t.Errorf("task = %+v", task)
	}
	general := task.Parameters["General"]
	if general["a"].Value != "3" || general["b"].Value != "true" || general["d"].Value != "text" {
		t.Errorf("parameters = %+v", general)
	}
	if task.Configuration["endpoints"].Value != "{}" || len(task.Execution.Artifacts) != 2 || task.Execution.Artifacts[0].URI != "u" {
		t.Errorf("task = %+v", task)
	}
	if len(task.Models.Input) != 1 || string(task.Runtime["cpu_cores"]) != "2" {
		t.Errorf("models %+v, runtime %s", task.Models, task.Runtime)
	}
}

func TestDatesComeInManyForms(t *testing.T) {
	want := time.Date(2026, 11, 23, 13, 40, 14, 0, time.UTC)
	for text, micro := range map[string]int{
		`"2026-11-23T13:40:14.123456+00:00"`: 123456, `"2026-11-23T13:40:14+00:00"`: 0, `"2026-11-23T13:40:14Z"`: 0,
		`"2026-11-23T13:40:14.5"`: 500000, `"2026-11-23 13:40:14"`: 0, `"2026-11-23T14:40:14+01:00"`: 0, `"2026-11-23T13:40:14+0000"`: 0,
		`1795441214`: 0, `1795441214500`: 500000,
	} {
		var got clearml.Time
		if err := json.Unmarshal([]byte(text), &got); err != nil || !got.Equal(want.Add(time.Duration(micro)*time.Microsecond)) {
			t.Errorf("%s = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{`null`, `""`, `"soon"`, `{}`, `[1]`, `true`, `1e300`} {
		got := clearml.Time{Time: want}
		if err := json.Unmarshal([]byte(text), &got); err != nil || !got.IsZero() {
			t.Errorf("%s = %v, %v; want the zero time", text, got, err)
		}
	}
	if b, err := json.Marshal(clearml.Time{Time: want}); err != nil || string(b) != `"2026-11-23T13:40:14+00:00"` {
		t.Errorf("written as %s, %v", b, err)
	}
}

func TestModelMetadataIsReadFromMapsAndLists(t *testing.T) {
	for _, text := range []string{
		`{"k":{"key":"k","type":"str","value":"v"},"n":{"value":3}}`,
		`[{"key":"k","type":"str","value":"v"},{"key":"n","value":3}]`,
	} {
		var m clearml.ModelMetadata
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(clearml.ModelMetadata{"k": "v", "n": "3"}, m); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
}

func TestListsArePagedAndBounded(t *testing.T) {
	f := newFake(t)
	var pages []float64
	f.handle("models.get_all", func(body map[string]any) (int, string) {
		page, size := body["page"].(float64), body["page_size"].(float64)
		pages = append(pages, page)
		var items []string
		for i := int(page * size); i < int((page+1)*size) && i < 1100; i++ {
			items = append(items, fmt.Sprintf(`{"id":"m%d"}`, i))
		}
		return 200, `{"models":[` + strings.Join(items, ",") + `]}`
	})
	c := f.start()
	all, err := c.Models(t.Context(), clearml.ModelFilter{})
	if err != nil || len(all) != 1100 || all[1099].ID != "m1099" || len(pages) != 3 {
		t.Errorf("%d models in pages %v, %v; want 1100 in 3", len(all), pages, err)
	}
	some, err := c.Models(t.Context(), clearml.ModelFilter{Limit: 700})
	if err != nil || len(some) != 700 {
		t.Errorf("%d models, %v; want 700", len(some), err)
	}
	// A server that ignores paging does not keep us asking.
	same := `{"models":[` + strings.Repeat(`{"id":"m1"},`, 499) + `{"id":"m2"}]}`
	f.on("models.get_all", same)
	f.seen()
	all, err = c.Models(t.Context(), clearml.ModelFilter{})
	if err != nil || len(all) != 2 {
		t.Errorf("%d models, %v; want 2", len(all), err)
	}
	if n := count(f.seen(), "models.get_all"); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestModelFilterIsSentAsTheSDKDoes(t *testing.T) {
	f := newFake(t)
	f.on("models.get_all", `{"models":[]}`)
	c := f.start()
	_, err := c.Models(t.Context(), clearml.ModelFilter{
		Name: "^" + clearml.QuotePattern("train (a.b)") + "$", ProjectID: "p", Tags: []string{"a", "-b"}, PublishedOnly: true, NewestFirst: true,
		Metadata: map[string]string{"k": "v"}, Limit: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"name": `^train \(a\.b\)$`, "project": []any{"p"}, "tags": []any{"a", "-b"}, "ready": true, "order_by": []any{"-created"},
		"system_tags": []any{"-archived"}, "metadata.k.value": "v", "page": 0.0, "page_size": 2.0,
	}
	if diff := cmp.Diff(want, f.last()); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Models(t.Context(), clearml.ModelFilter{WithArchived: true}); err != nil || f.last()["system_tags"] != nil {
		t.Errorf("with archived: %v, %v", f.last(), err)
	}
}

func TestProjectIsFoundByExactNameOrCreated(t *testing.T) {
	f := newFake(t)
	f.on("projects.get_all", `{"projects":[]}`)
	f.on("projects.create", `{"id":"new"}`)
	c := f.start()
	if _, err := c.FindProject(t.Context(), "serving examples"); !errors.Is(err, clearml.ErrNotFound) {
		t.Errorf("error = %v, want ErrNotFound", err)
	}
	if got := f.last()["name"]; got != "^serving examples$" {
		t.Errorf("asked for %q", got)
	}
	p, err := c.EnsureProject(t.Context(), "serving examples")
	if err != nil || p.ID != "new" || f.last()["name"] != "serving examples" {
		t.Errorf("created %+v, %v", p, err)
	}
	// Another client creates it in between.
	asked := 0
	f.handle("projects.get_all", func(map[string]any) (int, string) {
		if asked++; asked == 1 {
			return 200, `{"projects":[]}`
		}
		return 200, `{"projects":[{"id":"theirs","name":"DevOps"}]}`
	})
	f.refuse("projects.create", 400, 801, "Value is in use")
	if p, err = c.EnsureProject(t.Context(), "DevOps"); err != nil || p.ID != "theirs" {
		t.Errorf("found %+v, %v", p, err)
	}
	f.on("projects.get_all", `{"projects":[]}`)
	if _, err := c.EnsureProject(t.Context(), "ab"); err == nil || !strings.Contains(err.Error(), "3 characters") {
		t.Errorf("error = %v, want one about the length", err)
	}
}

func TestWritesSendWhatServersExpect(t *testing.T) {
	f := newFake(t)
	for _, call := range []string{
		"tasks.edit", "tasks.edit_configuration", "tasks.edit_hyper_params", "tasks.add_or_update_model", "tasks.delete_models",
		"tasks.started", "tasks.stopped", "tasks.ping", "tasks.add_or_update_artifacts", "tasks.delete_artifacts",
		"models.set_ready",
	} {
		f.on(call, `{"updated":1}`)
	}
	f.on("tasks.create", `{"id":"new"}`)
	f.on("models.create", `{"id":"new","created":true}`)
	c := f.start()
	ctx := t.Context()
	for _, w := range []struct {
		rule string
		do   func() error
		want string
	}{
		{"edit is forced", func() error { return c.EditTask(ctx, "t", map[string]any{"comment": "x"}) }, `{"task":"t","force":true,"comment":"x"}`},
		{"one section", func() error {
			return c.EditConfiguration(ctx, "t", []clearml.ConfigObject{{Name: "canary", Value: "{}"}}, nil)
		}, `{"task":"t","force":true,"configuration":[{"name":"canary","value":"{}"}]}`},
		{"a condition", func() error {
			return c.EditConfiguration(ctx, "t", []clearml.ConfigObject{{Name: "canary", Value: "{}"}}, map[string]string{"canary": ""})
		}, `{"task":"t","force":true,"configuration":[{"name":"canary","value":"{}"}],"if_match":{"canary":""}}`},
		{"a parameter", func() error { return c.SetServiceParameter(ctx, "t", "x", "5", "str") }, `{"task":"t","force":true,"replace_hyperparams":"none","hyperparams":[{"section":"General","name":"x","value":"5","type":"str"}]}`},
		{"an input model", func() error { return c.AddTaskModel(ctx, "t", clearml.ModelInput, "url", "m") }, `{"task":"t","type":"input","name":"url","model":"m"}`},
		{"removing models", func() error { return c.DeleteTaskModels(ctx, "t", clearml.ModelInput, []string{"url"}) }, `{"task":"t","models":[{"name":"url","type":"input"}]}`},
		{"force start", func() error { return c.StartService(ctx, "t") }, `{"task":"t","force":true}`},
		{"stop", func() error { return c.StopTask(ctx, "t", "done") }, `{"task":"t","force":true,"status_reason":"done"}`},
		{"ping", func() error { return c.PingTask(ctx, "t") }, `{"task":"t"}`},
		{"an artifact", func() error {
			return c.SetArtifact(ctx, "t", clearml.Artifact{Key: "k", Type: "custom", URI: "u", Hash: "h", Size: 3, Timestamp: 9})
		}, `{"task":"t","force":true,"artifacts":[{"key":"k","type":"custom","uri":"u","hash":"h","content_size":3,"timestamp":9}]}`},
		{"removing an artifact", func() error { return c.DeleteArtifact(ctx, "t", "k") }, `{"task":"t","force":true,"artifacts":[{"key":"k","mode":"output"}]}`},
		{"a task", func() error {
			_, err := c.CreateTask(ctx, clearml.NewTask{Name: "name", Type: "inference", SystemTags: []string{"service"}})
			return err
		}, `{"name":"name","type":"inference","system_tags":["service"]}`},
		{"a draft model", func() error {
			_, err := c.CreateModel(ctx, clearml.NewModel{Name: "name", URI: "u"})
			return err
		}, `{"name":"name","uri":"u","ready":false}`},
		{"publishing", func() error { return c.PublishModel(ctx, "m") }, `{"model":"m","publish_task":false}`},
	} {
		if err := w.do(); err != nil {
			t.Errorf("%s: %v", w.rule, err)
			continue
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(w.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.last()); diff != "" {
			t.Errorf("%s:\n%s", w.rule, diff)
		}
	}
	f.refuse("models.set_ready", 400, 203, "Model is ready")
	if err := c.PublishModel(ctx, "m"); err != nil {
		t.Errorf("publishing a published model: %v", err)
	}
	if _, err := c.CreateTask(ctx, clearml.NewTask{Name: "ab"}); err == nil || !strings.Contains(err.Error(), "3 characters") {
		t.Errorf("a short name: %v", err)
	}
}

func TestManyEventsAreSentInSeveralBatches(t *testing.T) {
	f := newFake(t)
	lines := 0
	f.handle("events.add_batch", func(body map[string]any) (int, string) {
		text := body["lines"].(string)
		if len(text) > 9<<20 {
			t.Errorf("a batch of %d bytes", len(text))
		}
		for line := range strings.SplitSeq(text, "\n") {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil || e["type"] != "log" || e["task"] != "t" || e["worker"] != "worker-1" || e["timestamp"].(float64) < 1e12 {
				t.Errorf("line %.80s: %v", line, err)
			}
			lines++
		}
		return 200, `{"added":1,"errors":0}`
	})
	c := f.start()
	text := make([]string, 30)
	for i := range text {
		text[i] = strings.Repeat("é", 300_000)
	}
	if err := c.LogLines(t.Context(), "t", "info", text); err != nil {
		t.Fatal(err)
	}
	if n := count(f.seen(), "events.add_batch"); lines != 30 || n != 3 {
		t.Errorf("%d lines in %d batches, want 30 in 3", lines, n)
	}
	if err := c.AddEvents(t.Context(), nil); err != nil || count(f.seen(), "events.add_batch") != 0 {
		t.Errorf("no events: %v", err)
	}
}

// FuzzAnswers holds every answer to one rule: a document or an error, no panic.
func FuzzAnswers(f *testing.F) {
	for _, text := range []string{
		`{"meta":{"result_code":200},"data":{"task":{"id":"x","created":5,"runtime":{"version":1},"configuration":{"endpoints":{"value":"a {"}}}}}`,
		`{"meta":{"result_code":"200"},"data":[]}`, `{"meta":null}`, `<html>`, ``, `{"meta":{},"data":{"task":NaN}}`, `{"meta":{"result_code":400,"result_subcode":101}}`,
		`{"meta":{"result_code":200},"data":{"task":{"id":"x","models":{"input":[null]},"execution":{"artifacts":[null,{}]}}}}`,
	} {
		f.Add(200, []byte(text))
	}
	login := `{"meta":{"result_code":200},"data":{"token":"a.e30.c"}}`
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		c, err := clearml.New(clearml.Options{
			Config: clearml.Config{API: clearml.Setting{Value: "http://fake"}},
			Retry:  clearml.Retry{Attempts: 1},
			HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				answer, code := body, status
				if strings.HasSuffix(r.URL.Path, "auth.login") {
					answer, code = []byte(login), 200
				}
				return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(answer))), Request: r}, nil
			}), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		})
		if err != nil {
			t.Fatal(err)
		}
		task, err := c.Task(t.Context(), "x")
		if (err == nil) != (task.ID != "") {
			t.Errorf("task %q with error %v", task.ID, err)
		}
		if s, err := c.LoadService(t.Context(), "x"); err == nil {
			s.Configuration()
		}
		if models, err := c.Models(t.Context(), clearml.ModelFilter{Limit: 3}); err == nil && len(models) > 3 {
			t.Errorf("%d models, asked for 3", len(models))
		}
	})
}
