package clearml_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// storedEndpoints is the text that the original's CLI stores (HOCON).
const storedEndpoints = `"a.b" {
  engine_type = "sklearn"
  serving_url = "a.b"
  version = ""
}
test_q/2 {
  engine_type = "triton"
  serving_url = "test_q"
  version = "2"
  input_size = [[1, 28, 28]]
  auxiliary_cfg = """platform: "x"
y"""
}`

// serveService makes the fake answer with one service, and store what is edited.
func serveService(f *fakeServer, extensions string) map[string]string {
	stored := map[string]string{"endpoints": storedEndpoints, "canary": "{}", "model_monitoring": "{", "other": "not ours"}
	f.on("server.info", `{"version":"2.0.0","api_version":"2.31","extensions":[`+extensions+`]}`)
	f.handle("tasks.get_by_id", func(map[string]any) (int, string) {
		configuration := map[string]any{}
		for name, value := range stored {
			configuration[name] = map[string]string{"name": name, "value": value}
		}
		text, _ := json.Marshal(configuration)
		return 200, `{"task":{"id":"s1","name":"my service","type":"service","status":"created","project":"p1","tags":["a"],"system_tags":["serving-control-plane"],
			"output":{"destination":"s3://bucket"},"runtime":{"version":"1.3.2","other":5},
			"hyperparams":{"General":{"kafka_service_server":{"section":"General","name":"kafka_service_server","value":"k:9092"}},"properties":{"x":{"value":"1"}}},
			"execution":{"artifacts":[{"key":"py_code_a","type":"archive","mode":"output","uri":"http://f/x.zip","hash":"h"},{"key":"in","mode":"input","uri":"http://f/in"}]},
			"models":{"input":[{"name":"a.b","model":"m1"}],"output":[]},
			"configuration":` + string(text) + `}}`
	})
	f.on("projects.get_by_id", `{"project":{"id":"p1","name":"DevOps/sub"}}`)
	f.handle("tasks.edit_configuration", func(body map[string]any) (int, string) {
		for _, object := range body["configuration"].([]any) {
			o := object.(map[string]any)
			name := o["name"].(string)
			if conditions, ok := body["if_match"].(map[string]any); ok {
				have := ""
				if text, ok := stored[name]; ok {
					sum := sha256.Sum256([]byte(text))
					have = hex.EncodeToString(sum[:])
				}
				if conditions[name] != have {
					return 400122, "Stale configuration"
				}
			}
			stored[name] = o["value"].(string)
		}
		return 200, `{"updated":1}`
	})
	return stored
}

func TestServiceIsReadWholeAndBrokenSectionsAreValues(t *testing.T) {
	f := newFake(t)
	serveService(f, "")
	s, err := f.start().LoadService(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != "s1" || s.Name != "my service" || s.Project != "DevOps/sub" || s.Version != "1.3.2" || s.OutputDestination != "s3://bucket" || s.Status != "created" {
		t.Errorf("service = %+v", s)
	}
	if diff := cmp.Diff(map[string]string{"kafka_service_server": "k:9092"}, s.General); diff != "" {
		t.Error(diff)
	}
	if len(s.Artifacts) != 1 || s.Artifacts["py_code_a"].Type != "archive" {
		t.Errorf("artifacts = %+v, want the output one only", s.Artifacts)
	}
	if s.StoragePath() != "DevOps/sub/my service.s1" {
		t.Errorf("StoragePath = %s", s.StoragePath())
	}
	configuration := s.Configuration()
	sections, unreadable := configuration.Sections, configuration.Unreadable
	want := `{"a.b":{"engine_type":"sklearn","serving_url":"a.b","version":""},"test_q/2":{"engine_type":"triton","serving_url":"test_q","version":"2","input_size":[[1,28,28]],"auxiliary_cfg":"platform: \"x\"\ny"}}`
	if got := string(sections[serving.SectionEndpoints]); got != want {
		t.Errorf("endpoints = %s, want %s", got, want)
	}
	if string(sections[serving.SectionCanary]) != "{}" || len(sections) != 2 {
		t.Errorf("sections = %s", sections)
	}
	if len(unreadable) != 1 || unreadable[serving.SectionMonitoring] == "" {
		t.Errorf("unreadable = %v, want model_monitoring", unreadable)
	}
	decoded := serving.Decode(sections, s.General)
	if len(decoded.Endpoints) != 2 || len(decoded.Broken) != 0 || decoded.Parameters.KafkaServiceServer != "k:9092" {
		t.Errorf("decoded = %+v", decoded)
	}
}

func TestServicesAreListedAsTheOriginalAsksAndThoseThatAWatchdogStopped(t *testing.T) {
	f := newFake(t)
	f.handle("tasks.get_all", func(body map[string]any) (int, string) {
		for key, want := range map[string]string{"type": "[service]", "status": "[created in_progress stopped]", "system_tags": "[serving-control-plane]"} {
			if got := fmt.Sprint(body[key]); got != want {
				t.Errorf("%s = %s, want %s", key, got, want)
			}
		}
		if body["order_by"] != nil {
			t.Errorf("order_by = %v: the server's order decides which is the first", body["order_by"])
		}
		return 200, `{"tasks":[{"id":"b","name":"second","project":"p","tags":["x"]},{"id":"a","name":"first","project":"p"},{"id":"c","name":"lonely"},
			{"id":"d","name":"by a user","status":"stopped","status_message":"stopped by hand"},
			{"id":"e","name":"by the watchdog","status":"stopped","status_message":"Forced stop (non-responsive)"}]}`
	})
	f.on("projects.get_all", `{"projects":[{"id":"p","name":"DevOps"}]}`)
	services, err := f.start().ListServices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range services {
		got = append(got, s.ID+" "+s.Name+" "+s.Project)
	}
	if want := []string{"b second DevOps", "a first DevOps", "c lonely ", "e by the watchdog "}; !slices.Equal(got, want) {
		t.Errorf("services = %q, want %q", got, want)
	}
	if n := count(f.seen(), "projects.get_all"); n != 1 {
		t.Errorf("asked for projects %d times, want once", n)
	}
}

func TestServiceIsCreatedInOneCall(t *testing.T) {
	f := newFake(t)
	f.on("projects.get_all", `{"projects":[{"id":"p","name":"DevOps"}]}`)
	f.on("tasks.create", `{"id":"new"}`)
	id, err := f.start().CreateService(t.Context(), clearml.NewService{Name: "Serving Service", Project: "DevOps", Tags: []string{"x"}})
	if err != nil || id != "new" {
		t.Fatalf("id = %q, %v", id, err)
	}
	empty := func(name string) any { return map[string]any{"name": name, "value": "{}"} }
	want := map[string]any{
		"name": "Serving Service", "type": "service", "project": "p", "tags": []any{"x"}, "system_tags": []any{"serving-control-plane"},
		"runtime": map[string]any{"version": "1.3.5"},
		"configuration": map[string]any{
			"endpoints": empty("endpoints"), "canary": empty("canary"), "model_monitoring": empty("model_monitoring"), "metric_logging": empty("metric_logging"),
		},
	}
	if diff := cmp.Diff(want, f.last()); diff != "" {
		t.Error(diff)
	}
}

func TestSectionIsStoredOnlyIfNobodyWasFaster(t *testing.T) {
	for rule, extensions := range map[string]string{"conditional server": `"conditional_configuration"`, "plain server": ""} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				stored := serveService(f, extensions)
				c := f.direct()
				before, err := c.LoadService(t.Context(), "s1")
				if err != nil {
					t.Fatal(err)
				}
				if err := c.SaveSection(t.Context(), before, serving.SectionCanary, `{"c":{}}`); err != nil {
					t.Fatal(err)
				}
				if stored["canary"] != `{"c":{}}` || stored["endpoints"] != storedEndpoints || stored["other"] != "not ours" {
					t.Errorf("stored = %v", stored)
				}
				// The same document again is stale now, for that section only.
				if err := c.SaveSection(t.Context(), before, serving.SectionCanary, `{}`); !errors.Is(err, clearml.ErrConflict) {
					t.Errorf("stale edit: %v, want ErrConflict", err)
				}
				if err := c.SaveSection(t.Context(), before, serving.SectionMetrics, `{}`); err != nil || stored["metric_logging"] != "{}" {
					t.Errorf("a section that was not there: %v", err)
				}
				if err := c.SaveSection(t.Context(), before, serving.SectionMetrics, `{}`); !errors.Is(err, clearml.ErrConflict) {
					t.Errorf("a section that appeared: %v, want ErrConflict", err)
				}
				if stored["canary"] != `{"c":{}}` {
					t.Errorf("canary = %s, the stale edit was stored", stored["canary"])
				}
				if err := c.SaveSection(t.Context(), before, serving.SectionEndpoints, `{"a": `); err == nil || stored["endpoints"] != storedEndpoints {
					t.Errorf("text that cannot be read back: %v", err)
				}
			})
		})
	}
}

func TestServerWithoutInfoIsAPlainServer(t *testing.T) {
	f := newFake(t) // answers 404 to server.info
	info, err := f.start().Info(t.Context())
	if err != nil || len(info.Extensions) != 0 {
		t.Errorf("info = %+v, %v", info, err)
	}
}

func TestVersionIsStoredBesideOtherProperties(t *testing.T) {
	f := newFake(t)
	serveService(f, "")
	f.on("tasks.edit", `{"updated":1}`)
	if err := f.start().SetServiceVersion(t.Context(), "s1", "1.3.5"); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"task": "s1", "force": true, "runtime": map[string]any{"version": "1.3.5", "other": 5.0}}
	if diff := cmp.Diff(want, f.last()); diff != "" {
		t.Error(diff)
	}
}

func TestInstanceTaskIsNamedStartedAndMirrored(t *testing.T) {
	f := newFake(t)
	serveService(f, "")
	f.on("tasks.create", `{"id":"i1"}`)
	f.on("tasks.started", `{"updated":1}`)
	f.on("tasks.edit", `{"updated":1}`)
	c := f.start()
	s, err := c.LoadService(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	f.seen()
	id, err := c.OpenInstance(t.Context(), s, "serve instance", "inference")
	if err != nil || id != "i1" {
		t.Fatalf("id = %q, %v", id, err)
	}
	if got, want := f.seen(), []string{"tasks.create", "tasks.started"}; !slices.Equal(got, want) {
		t.Errorf("calls = %v, want %v", got, want)
	}
	created := f.requests[len(f.requests)-2]
	if created["name"] != "my service - serve instance" || created["type"] != "inference" || created["project"] != "p1" || fmt.Sprint(created["system_tags"]) != "[service]" {
		t.Errorf("created = %v", created)
	}
	if err := c.MirrorService(t.Context(), s, id); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(f.last()); !strings.Contains(text, "task:i1") || !strings.Contains(text, "name:endpoints") || strings.Contains(text, "if_match") || strings.Contains(text, "model_monitoring") {
		t.Errorf("mirrored = %s", text)
	}
	if err := c.ContinueInstance(t.Context(), s, id); err != nil || fmt.Sprint(f.last()) != "map[force:true parent:s1 task:i1]" {
		t.Errorf("continued with %v, %v", f.last(), err)
	}
}

func TestInstancesAreFoundByTheirService(t *testing.T) {
	f := newFake(t)
	f.on("tasks.get_all", `{"tasks":[
		{"id":"i1","name":"a","last_update":"2026-01-02T03:04:05+00:00","configuration":{"serving_instance":{"name":"serving_instance","value":"{\"host\":1}"}}},
		{"id":"i2","name":"of the original","last_update":"2026-01-02T03:04:05+00:00"}]}`)
	f.on("tasks.edit_configuration", `{"updated":1}`)
	c := f.start()
	instances, err := c.Instances(t.Context(), "s1", "inference")
	if err != nil || len(instances) != 2 {
		t.Fatalf("%v, %v", instances, err)
	}
	asked := fmt.Sprint(f.last())
	for _, word := range []string{"parent:[s1]", "status:[in_progress]", "type:[inference]", "configuration.serving_instance"} {
		if !strings.Contains(asked, word) {
			t.Errorf("asked for %s, without %s", asked, word)
		}
	}
	if i := instances[0]; i.TaskID != "i1" || i.Report != `{"host":1}` || i.Seen.Year() != 2026 {
		t.Errorf("first = %+v", i)
	}
	if i := instances[1]; i.Report != "" {
		t.Errorf("one that tells nothing of itself tells %q", i.Report)
	}
	if err := c.ReportInstance(t.Context(), "i1", `{}`); err != nil || !strings.Contains(fmt.Sprint(f.last()), "name:serving_instance") {
		t.Errorf("reported with %v, %v", f.last(), err)
	}
}

func TestServerTimeFollowsTheServersClock(t *testing.T) {
	f := newFake(t)
	f.on("tasks.ping", `{}`)
	c := f.start()
	if d := time.Since(c.ServerTime()); d > time.Minute || d < -time.Minute {
		t.Errorf("before the first answer it is %v from our own clock", d)
	}
	f.clock = time.Now().Add(-3 * time.Hour)
	if err := c.PingTask(t.Context(), "i1"); err != nil {
		t.Fatal(err)
	}
	if d := c.ServerTime().Sub(f.clock); d > time.Minute || d < -time.Minute {
		t.Errorf("it is %v from the server's clock", d)
	}
}

func TestNewCredentialsAreNotShown(t *testing.T) {
	f := newFake(t)
	f.on("auth.create_credentials", `{"credentials":{"access_key":"K","secret_key":"veryS","label":"l"}}`)
	key, secret, err := f.start().NewCredentials(t.Context(), "l")
	if err != nil || key != "K" || secret.Reveal() != "veryS" || strings.Contains(fmt.Sprint(secret), "veryS") {
		t.Errorf("%s %v %v", key, secret, err)
	}
}
