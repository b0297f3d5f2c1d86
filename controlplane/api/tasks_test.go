package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

func TestNewTaskHasWhatTheSDKReadsWithoutLooking(t *testing.T) {
	w := newWire(t)
	doc := w.read(t, "task", w.create(t, "tasks.create", `{"name":"  a task ","type":"training","tags":["b","a","b"],"system_tags":["development"],"method":"get"}`))
	for _, key := range []string{"output", "execution", "script", "runtime", "hyperparams", "configuration", "container"} {
		if _, ok := doc[key].(map[string]any); !ok {
			t.Errorf("%s is %v, want an object", key, doc[key])
		}
	}
	for _, path := range [][]string{{"models", "input"}, {"models", "output"}, {"execution", "artifacts"}} {
		if _, ok := doc.At(path...).([]any); !ok {
			t.Errorf("%v is %v, want a list", path, doc.At(path...))
		}
	}
	if diff := cmp.Diff([]any{"a", "b"}, doc["tags"]); diff != "" {
		t.Error(diff)
	}
	for key, want := range map[string]string{
		"name": "a task", "status": "created", "user": "user1", "company": "company1",
		"created": "2026-11-23T13:40:15.123456+00:00", "last_update": doc.Text("created"), "last_change": doc.Text("created"),
	} {
		if doc.Text(key) != want {
			t.Errorf("%s is %q, want %q", key, doc.Text(key), want)
		}
	}
	for _, key := range []string{"started", "completed", "published", "project", "parent", "method"} {
		if v, there := doc[key]; there {
			t.Errorf("%s is there: %v", key, v)
		}
	}
}

func TestBadTasksAreRefused(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct{ body, want, msg string }{
		{`{"type":"training"}`, "400/12", "name"},
		{`{"name":"abc"}`, "400/12", "type"},
		{`{"name":"ab","type":"training"}`, "400/800", "3 characters"},
		{`{"name":" ab ","type":"training"}`, "400/800", "3 characters"},
		{`{"name":5,"type":"training"}`, "400/12", "name"},
		{`{"name":"abc","type":"dance"}`, "400/12", "dance"},
		{`{"name":"abc","type":"training","tags":"x"}`, "400/12", "tags"},
		{`{"name":"abc","type":"training","tags":["__$all"]}`, "400/12", "__$"},
		{`{"name":"abc","type":"training","tags":[1]}`, "400/12", "tags"},
		{`{"name":"abc","type":"training","script":"x"}`, "400/12", "script"},
		{`{"name":"abc","type":"training","project":"gone"}`, "400/16", "gone"},
		{`{"name":"abc","type":"training","parent":"gone"}`, "400/16", "gone"},
		{`{"name":"abc","type":"training","hyperparams":{"A":{"x":{"value":1}}}}`, "400/12", "A/x"},
		{`{"name":"abc","type":"training","hyperparams":{"A":{"x":"1"}}}`, "400/12", "A.x"},
		{`{"name":"abc","type":"training","hyperparams":{"A":{" ":{"value":"1"}}}}`, "400/12", "name"},
		{`{"name":"abc","type":"training","configuration":{"endpoints":{"value":{}}}}`, "400/12", "endpoints"},
		{`{"name":"abc","type":"training","models":{"input":{}}}`, "400/12", "models.input"},
		{`{"name":"abc","type":"training","models":{"input":[{"name":"x"}]}}`, "400/12", "model"},
		{`{"name":"abc","type":"training","execution":{"artifacts":{}}}`, "400/12", "artifacts"},
		{`{"name":"abc","type":"training","execution":{"artifacts":[{"mode":"output"}]}}`, "400/12", "key"},
	} {
		r := w.call(t, "tasks.create", c.body)
		if r.code() != c.want || !strings.Contains(r.Meta.ResultMsg, c.msg) {
			t.Errorf("%s: %s %q, want %s and %q", c.body, r.code(), r.Meta.ResultMsg, c.want, c.msg)
		}
	}
	if n := len(w.must(t, "tasks.get_all", "")["tasks"].([]any)); n != 0 {
		t.Errorf("%d tasks were stored", n)
	}
}

func TestEditMergesByTheRules(t *testing.T) {
	w := newWire(t)
	id := w.task(t, `,"script":{"binary":"python","diff":"x"},"execution":{"framework":"f","artifacts":[{"key":"old"}]},
		"hyperparams":{"Old":{"x":{"value":"1"}}},"configuration":{"old":{"value":"v"}},"runtime":{"old":1},"container":{"image":"i"},"models":{"input":[]}`)
	w.must(t, "tasks.edit", `{"task":"`+id+`","force":true,"comment":null,
		"script":{"binary":"python3","branch":"main","diff":null},
		"execution":{"artifacts":[{"key":"b","mode":"input"},{"key":"b"},{"key":"a","timestamp":5}]},
		"hyperparams":{"New":{"a/b":{"value":"","type":"NoneType"}}},"configuration":{"new":{"value":"{\n}"}},
		"runtime":{"version":"1.3.2","cores":2,"f":1.50,"flag":true,"nul":null},"output_dest":"http://files"}`)
	doc := w.read(t, "task", id)
	got, _ := json.Marshal(map[string]any{
		"script": doc["script"], "execution": doc["execution"], "hyperparams": doc["hyperparams"],
		"configuration": doc["configuration"], "runtime": doc["runtime"], "container": doc["container"], "output": doc["output"],
	})
	want := `{"configuration":{"new":{"name":"new","value":"{\n}"}},"container":{"image":"i"},` +
		`"execution":{"artifacts":[{"key":"a","mode":"output","timestamp":5},{"key":"b","mode":"input"},{"key":"b","mode":"output"}],"framework":"f"},` +
		`"hyperparams":{"New":{"a/b":{"name":"a/b","section":"New","type":"NoneType","value":""}}},` +
		`"output":{"destination":"http://files"},"runtime":{"cores":2,"f":1.50,"flag":true,"nul":null,"version":"1.3.2"},` +
		`"script":{"binary":"python3","branch":"main"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if doc.Text("comment") != "" {
		t.Errorf("a null changed the comment: %v", doc["comment"])
	}
}

func TestEditOfPeoplesFieldsLeavesLastUpdateAlone(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	before := w.read(t, "task", id)
	for _, edit := range []string{`"name":"other name"`, `"tags":["x"]`, `"system_tags":[]`, `"comment":"c"`, `"created":"2024-01-02T03:04:05Z"`} {
		for _, call := range []string{"tasks.edit", "tasks.update"} {
			w.must(t, call, `{"task":"`+id+`",`+edit+`}`)
		}
	}
	after := w.read(t, "task", id)
	if after.Text("last_update") != before.Text("last_update") || after.Text("last_change") == before.Text("last_change") {
		t.Errorf("last_update %s -> %s, last_change %s -> %s", before.Text("last_update"), after.Text("last_update"), before.Text("last_change"), after.Text("last_change"))
	}
	if after.Text("created") != "2024-01-02T03:04:05.000000+00:00" || after.Text("last_changed_by") != "user1" {
		t.Errorf("created %q, by %q", after.Text("created"), after.Text("last_changed_by"))
	}
	w.must(t, "tasks.edit", `{"task":"`+id+`","runtime":{}}`)
	if doc := w.read(t, "task", id); doc.Text("last_update") == before.Text("last_update") {
		t.Error("an edit of the runtime didn't move last_update")
	}
}

func TestConfigurationTextIsKeptByteForByte(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	text := "{\r\n\t\"é\u2028<&>\": ${x} # // \\u0041 \"\"\"raw\\\"\"\"\n}\u0001 \U0001f600 2026-01-01T00:00:00"
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		`{"task":"` + id + `","configuration":{"a.b $x":{"name":"a.b $x","value":` + string(quoted) + `}}}`,
	} {
		w.must(t, "tasks.edit", body)
	}
	w.must(t, "tasks.edit_configuration", `{"task":"`+id+`","configuration":[{"name":"other","value":`+string(quoted)+`,"type":"json","description":"d"}]}`)
	doc := w.read(t, "task", id)
	for _, name := range []string{"a.b $x", "other"} {
		if got := doc.Text("configuration", name, "value"); got != text {
			t.Errorf("%s: %q, want %q", name, got, text)
		}
	}
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestConditionalEditRefusesWhatIsStale(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	edit := func(value, ifMatch string) string {
		return w.call(t, "tasks.edit_configuration", `{"task":"`+id+`","configuration":[{"name":"endpoints","value":"`+value+`"}],"if_match":`+ifMatch+`}`).code()
	}
	for _, c := range []struct{ rule, value, ifMatch, want string }{
		{"absent and expected so", "one", `{"endpoints":""}`, "200/0"},
		{"there, but expected absent", "two", `{"endpoints":""}`, "400/122"},
		{"another value", "two", `{"endpoints":"` + hash("zero") + `"}`, "400/122"},
		{"the value", "two", `{"endpoints":"` + hash("one") + `"}`, "200/0"},
		{"in capitals", "three", `{"endpoints":"` + strings.ToUpper(hash("two")) + `"}`, "200/0"},
		{"another section counts too", "four", `{"canary":"` + hash("x") + `"}`, "400/122"},
		{"no condition", "five", `{}`, "200/0"},
	} {
		if got := edit(c.value, c.ifMatch); got != c.want {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
	if got := w.read(t, "task", id).Text("configuration", "endpoints", "value"); got != "five" {
		t.Errorf("the value is %q", got)
	}
}

// Twenty writers each add their own line to one section; with the condition and a
// repetition none of the lines is lost.
func TestConcurrentConditionalEditsAreAllKept(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	const writers = 20
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for {
				value := w.read(t, "task", id).Text("configuration", "lines", "value")
				condition := ""
				if value != "" {
					condition = hash(value)
				}
				body := fmt.Sprintf(`{"task":%q,"configuration":[{"name":"lines","value":"%s,%d,"}],"if_match":{"lines":%q}}`, id, value, n, condition)
				r := w.call(t, "tasks.edit_configuration", body)
				if r.code() == "200/0" {
					return
				}
				if r.code() != "400/122" {
					t.Errorf("writer %d: %s %s", n, r.code(), r.Meta.ResultMsg)
					return
				}
			}
		})
	}
	wg.Wait()
	value := w.read(t, "task", id).Text("configuration", "lines", "value")
	for n := range writers {
		if !strings.Contains(value, fmt.Sprintf(",%d,", n)) {
			t.Errorf("line %d was lost: %s", n, value)
		}
	}
}

func TestHyperParametersAreEditedOneByOne(t *testing.T) {
	w := newWire(t)
	id := w.task(t, `,"hyperparams":{"B":{"y":{"value":"1"},"x":{"value":"2"}},"A":{"z":{"value":"3"}}}`)
	list := func() string {
		r := w.call(t, "tasks.get_hyper_params", `{"tasks":["`+id+`"]}`)
		var out []string
		for _, v := range r.Data["params"].([]any)[0].(map[string]any)["hyperparams"].([]any) {
			p := store.Doc(v.(map[string]any))
			out = append(out, p.Text("section")+"/"+p.Text("name")+"="+p.Text("value"))
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct{ call, body, want string }{
		{"tasks.edit_hyper_params", `"hyperparams":[{"section":"B","name":" x ","value":"9"},{"section":"properties","name":"p","value":"q"}],"replace_hyperparams":"none"`, "A/z=3 B/x=9 B/y=1 properties/p=q"},
		{"tasks.edit_hyper_params", `"hyperparams":[{"section":"B","name":"n","value":"1"}],"replace_hyperparams":"section"`, "A/z=3 B/n=1 properties/p=q"},
		{"tasks.delete_hyper_params", `"hyperparams":[{"section":"A","name":"z"},{"section":"gone"},{"section":"B","name":"gone"}]`, "B/n=1 properties/p=q"},
		{"tasks.delete_hyper_params", `"hyperparams":[{"section":"B"}]`, "properties/p=q"},
		{"tasks.edit_hyper_params", `"hyperparams":[{"section":"C","name":"c","value":"c"}],"replace_hyperparams":"all"`, "C/c=c"},
	} {
		w.must(t, c.call, `{"task":"`+id+`",`+c.body+`}`)
		if got := list(); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.call, c.body, got, c.want)
		}
	}
	for _, body := range []string{`"hyperparams":[{"name":"x","value":"1"}]`, `"hyperparams":[{"section":"s","value":"1"}]`, `"hyperparams":[{"section":"s","name":"n","value":1}]`, `"hyperparams":[{"section":"s","name":"n","value":"1"}],"replace_hyperparams":"some"`, `"hyperparams":[]`, `"hyperparams":[{"section":"s","name":"n"}]`} {
		if r := w.call(t, "tasks.edit_hyper_params", `{"task":"`+id+`",`+body+`}`); r.code() != "400/12" {
			t.Errorf("%s: %s", body, r.code())
		}
	}
}

func TestConfigurationIsReplacedAsAWholeWhenAsked(t *testing.T) {
	w := newWire(t)
	id := w.task(t, `,"configuration":{"b":{"value":"2"},"a":{"value":"1"},"empty":{}}`)
	w.run(t, []step{
		{call: "tasks.edit_configuration", body: `{"task":"` + id + `","configuration":[{"name":"c","value":""}],"replace_configuration":true}`},
		{call: "tasks.get_by_id", body: `{"task":"` + id + `"}`, has: []string{`"configuration":{"c":{"name":"c","value":""}}`}},
		{call: "tasks.edit_configuration", body: `{"task":"` + id + `","configuration":[{"value":"x"}]}`, want: "400/12"},
		{call: "tasks.edit_configuration", body: `{"task":"` + id + `","configuration":[{"name":"x"}]}`, want: "400/12"},
		{call: "tasks.edit_configuration", body: `{"task":"` + id + `","configuration":[],"replace_configuration":true}`, want: "400/12"},
	})
}

func TestCloneTakesTheInputsOnly(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"from here"}`)
	model := w.model(t, "")
	source := w.task(t, `,"project":"`+project+`","comment":"c","tags":["t"],"system_tags":["development","archived","kept"],"script":{"binary":"python"},
		"execution":{"queue":"q","artifacts":[{"key":"in","mode":"input"},{"key":"out"}]},"hyperparams":{"A":{"x":{"value":"1"}}},
		"configuration":{"c":{"value":"v"}},"container":{"image":"i"},"runtime":{"r":1},"output_dest":"dest",
		"models":{"input":[{"name":"m","model":"`+model+`"}],"output":[{"name":"o","model":"`+model+`"}]}`)
	w.must(t, "tasks.started", `{"task":"`+source+`"}`)
	clone := w.read(t, "task", w.create(t, "tasks.clone", `{"task":"`+source+`","new_task_name":"the clone"}`))
	got, _ := json.Marshal(map[string]any{
		"name": clone["name"], "status": clone["status"], "parent": clone["parent"] == source, "project": clone["project"] == project,
		"tags": clone["tags"], "system_tags": clone["system_tags"], "script": clone["script"], "execution": clone["execution"],
		"container": clone["container"], "runtime": clone["runtime"], "output": clone["output"],
		"input": len(clone.At("models", "input").([]any)), "models": len(clone.At("models", "output").([]any)), "config": clone.At("configuration", "c", "value"),
	})
	want := `{"config":"v","container":{"image":"i"},"execution":{"artifacts":[{"key":"in","mode":"input"}]},"input":1,"models":0,` +
		`"name":"the clone","output":{"destination":"dest"},"parent":true,"project":true,"runtime":{},"script":{"binary":"python"},` +
		`"status":"created","system_tags":["kept"],"tags":["t"]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if clone["started"] != nil {
		t.Error("the clone has been started")
	}
	data := w.must(t, "tasks.clone", `{"task":"`+source+`","new_project_name":"over/there","new_task_tags":[],"new_task_comment":"","new_task_configuration":{"d":{"value":"w"}},"execution_overrides":{"framework":"x"},"new_task_input_models":[]}`)
	other := w.read(t, "task", data["id"].(string))
	made := data["new_project"].(map[string]any)
	if other.Text("project") != made["id"] || made["name"] != "over/there" || other.At("configuration", "c") != nil || other.Text("configuration", "d", "value") != "w" ||
		len(other.Strings("tags")) != 0 || other.Text("comment") != "" || other.Text("execution", "framework") != "x" || len(other.At("models", "input").([]any)) != 0 {
		t.Errorf("clone with overrides: %v", other)
	}
	if other.Text("name") != "a task" {
		t.Errorf("a clone without a name is called %q", other.Text("name"))
	}
	w.run(t, []step{
		{call: "tasks.clone", body: `{"task":"gone"}`, want: "400/101"},
		{call: "tasks.clone", body: `{"task":"` + source + `","new_task_name":"x"}`, want: "400/800"},
		{call: "tasks.clone", body: `{"task":"` + source + `","new_task_project":"gone"}`, want: "400/401"},
	})
}

func TestArtifactsAreKeptByKeyAndMode(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	w.run(t, []step{
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","force":true,"artifacts":[{"key":"b","type":"custom","uri":"1","content_size":14,"timestamp":1795441216,"type_data":{"preview":"p"},"display_data":[["k","v"]]},{"key":"a","type":"custom","uri":"2"}]}`},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":[{"key":"b","type":"custom","uri":"3"},{"key":"b","mode":"input","type":"custom","uri":"4"}]}`},
		{call: "tasks.get_by_id", body: `{"task":"` + id + `"}`, has: []string{`"artifacts":[{"key":"a","mode":"output","type":"custom","uri":"2"},{"key":"b","mode":"input","type":"custom","uri":"4"},{"key":"b","mode":"output","type":"custom","uri":"3"}]`}},
		{call: "tasks.delete_artifacts", body: `{"task":"` + id + `","artifacts":[{"key":"b"},{"key":"gone"}]}`},
		{call: "tasks.get_by_id", body: `{"task":"` + id + `"}`, has: []string{`"artifacts":[{"key":"a","mode":"output","type":"custom","uri":"2"},{"key":"b","mode":"input","type":"custom","uri":"4"}]`}},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":[{"key":"b","type":"custom","content_size":"14"}]}`, want: "400/12"},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":[{"key":"b","type":"custom","mode":"sideways"}]}`, want: "400/12"},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":["b"]}`, want: "400/12"},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":[{"key":"b"}]}`, want: "400/12"},
		{call: "tasks.add_or_update_artifacts", body: `{"task":"` + id + `","artifacts":[]}`, want: "400/12"},
		{call: "tasks.delete_artifacts", body: `{"task":"` + id + `"}`, want: "400/12"},
	})
}

func TestModelsOfATaskKeepTheirPlace(t *testing.T) {
	w := newWire(t)
	one, two := w.model(t, ""), w.model(t, "")
	id := w.task(t, "")
	add := func(name, model string) step {
		return step{call: "tasks.add_or_update_model", body: fmt.Sprintf(`{"task":%q,"name":%q,"model":%q,"type":"output"}`, id, name, model)}
	}
	w.run(t, []step{
		add("a", one), add("b", one), add("a", two),
		{call: "tasks.add_or_update_model", body: `{"task":"` + id + `","name":"any","model":"gone","type":"input"}`},
		{call: "tasks.edit", body: `{"task":"` + id + `","models":{"input":[{"name":"any","model":"gone"}]}}`, want: "400/201"},
		{call: "tasks.delete_models", body: `{"task":"` + id + `","models":[]}`, want: "400/12"},
		{call: "tasks.add_or_update_model", body: `{"task":"` + id + `","name":"a","model":"` + one + `","type":"sideways"}`, want: "400/12"},
	})
	var got []string
	for _, v := range w.read(t, "task", id).At("models", "output").([]any) {
		entry := store.Doc(v.(map[string]any))
		got = append(got, entry.Text("name")+"="+entry.Text("model"))
		if entry.Text("updated") == "" {
			t.Error("an entry without the time of its change")
		}
	}
	if diff := cmp.Diff([]string{"a=" + two, "b=" + one}, got); diff != "" {
		t.Error(diff)
	}
	w.must(t, "tasks.delete_models", `{"task":"`+id+`","models":[{"name":"a","type":"output"},{"name":"gone","type":"input"}]}`)
	if n := len(w.read(t, "task", id).At("models", "output").([]any)); n != 1 {
		t.Errorf("%d models are left", n)
	}
}

func TestEditsAnswerWithEveryFieldThatTheyChanged(t *testing.T) {
	w := newWire(t)
	task, model := w.task(t, `,"script":{"branch":"main"}`), w.model(t, "")
	for _, c := range []struct {
		call, body string
		has, lacks []string
	}{
		{
			"tasks.edit", `"tags":["a"],"script":{"diff":"d"},"runtime":{"r":1},"output_dest":"s3://b"`,
			[]string{`"updated":1`, `"tags":["a"]`, `"script":{"branch":"main","diff":"d"}`, `"runtime":{"r":1}`, `"output":{"destination":"s3://b"}`, `"last_change":"`, `"last_changed_by":"user1"`, `"last_update":"`},
			nil,
		},
		{"tasks.edit", `"name":"other name"`, []string{`"name":"other name"`, `"last_change":"`}, []string{"last_update"}},
		{"tasks.edit", ``, []string{`"updated":0`, `"fields":{}`}, nil},
		{"tasks.update", `"comment":"c"`, []string{`"comment":"c"`, `"last_changed_by":"user1"`}, []string{"last_update"}},
		{"tasks.set_requirements", `"requirements":{"pip":"x"}`, []string{`"script.requirements":{"pip":"x"}`}, nil},
		{"tasks.started", ``, []string{`"status":"in_progress"`, `"started":"`, `"last_change":"`, `"last_changed_by":"user1"`}, nil},
		{"models.edit", `"tags":["t"],"labels":{"cat":1},"metadata":{"k":{"key":"k","type":"str","value":"v"}}`, []string{`"labels":{"cat":1}`, `"metadata":{"k":`, `"tags":["t"]`, `"last_update":"`, `"last_changed_by":"user1"`}, nil},
		{"models.edit", `"name":"other name"`, []string{`"name":"other name"`, `"last_change":"`}, []string{"last_update"}},
		{"models.edit", ``, []string{`"updated":0`, `"fields":{}`}, nil},
	} {
		body := `{"task":"` + task + `"`
		if strings.HasPrefix(c.call, "models.") {
			body = `{"model":"` + model + `"`
		}
		if c.body != "" {
			body += "," + c.body
		}
		w.run(t, []step{{call: c.call, body: body + "}", has: c.has, lacks: c.lacks}})
	}
}

func TestCallsOnManyTasksFailOneByOne(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	ids := `{"ids":["` + id + `","gone"]}`
	failed := `"failed":[{"id":"gone","error":{"codes":[400,101],"msg":"Invalid task id: id=gone"}}]`
	w.run(t, []step{
		{call: "tasks.archive_many", body: ids, has: []string{`"succeeded":[{"archived":true,"id":"` + id + `"}]`, failed}},
		{call: "tasks.unarchive_many", body: ids, has: []string{`"unarchived":true`, failed}},
		{call: "tasks.archive_many", body: `{}`, want: "400/12"},
	})
}

func TestTaskTypesAreThoseInUse(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"the project"}`)
	w.task(t, `,"project":"`+project+`"`)
	w.create(t, "tasks.create", `{"name":"abc","type":"service"}`)
	w.run(t, []step{
		{call: "tasks.get_types", body: `{}`, has: []string{`"types":["training","service"]`}},
		{call: "tasks.get_types", body: `{"projects":["` + project + `"]}`, has: []string{`"types":["training"]`}},
	})
}

func TestTagsOfManyAndReferencesAsObjects(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"new/place"}`)
	id, model := w.task(t, `,"tags":["a","b"],"project":"`+project+`"`), w.model(t, `,"project":"`+project+`"`)
	w.run(t, []step{
		{call: "tasks.get_all_ex", body: `{"only_fields":["project.name"]}`, has: []string{`"name":"new/place"`}},
		{call: "models.get_all_ex", body: `{"only_fields":["project.name"]}`, has: []string{`"name":"new/place"`}},
		{call: "tasks.update_tags", body: `{"ids":["` + id + `"],"add_tags":["c"],"remove_tags":["a"]}`},
		{call: "tasks.get_by_id", body: `{"task":"` + id + `"}`, has: []string{`"tags":["b","c"]`}},
		{call: "models.update_tags", body: `{"ids":["` + model + `"],"add_tags":["c"]}`},
		{call: "tasks.update_tags", body: `{"ids":["` + id + `"],"add_tags":["__$x"]}`, want: "400/12"},
	})
}

func TestChangeFeedRingsAfterCommittedWritesOnly(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	if diff := cmp.Diff([]string{"task " + id}, w.rung()); diff != "" {
		t.Errorf("create: %s", diff)
	}
	w.call(t, "tasks.get_by_id", `{"task":"`+id+`"}`)
	w.call(t, "tasks.publish", `{"task":"`+id+`"}`)
	w.call(t, "tasks.edit", `{"task":"`+id+`"}`)
	w.must(t, "tasks.ping", `{"task":"`+id+`"}`) // the woken one pings again: a ring would wake it for ever
	w.create(t, "queues.create", `{"name":"a queue"}`)
	if rings := w.rung(); len(rings) != 0 {
		t.Errorf("reading and refused writes rang: %v", rings)
	}
	model := w.model(t, "")
	w.rung()
	w.must(t, "tasks.edit", `{"task":"`+id+`","force":true,"models":{"output":[{"name":"n","model":"`+model+`"}]}}`)
	w.must(t, "tasks.publish", `{"task":"`+id+`","force":true}`)
	want := []string{"model " + model, "task " + id}
	if diff := cmp.Diff(want, w.rung()); diff != "" {
		t.Errorf("publish: %s", diff)
	}
	w.must(t, "models.delete", `{"model":"`+model+`","force":true}`)
	if diff := cmp.Diff(want, w.rung()); diff != "" {
		t.Errorf("delete: %s", diff)
	}
}
