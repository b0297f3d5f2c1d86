package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/controlplane/store"
)

// names returns the names of an answer's documents, in order.
func names(t *testing.T, r reply, key string) []string {
	t.Helper()
	if r.status != 200 {
		t.Fatalf("%s %s", r.code(), r.Meta.ResultMsg)
	}
	var out []string
	for _, v := range r.Data[key].([]any) {
		out = append(out, v.(map[string]any)["name"].(string))
	}
	return out
}

func TestFilterLanguageOfTasks(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"my project"}`)
	child := w.create(t, "projects.create", `{"name":"my project/child"}`)
	ids := map[string]string{"P": project, "K": child}
	for _, body := range []string{
		`{"name":"aaa one","type":"training","tags":["x","y"],"project":"<P>","comment":"first","runtime":{"v":"1.3.2","n":2}}`,
		`{"name":"bbb (two)","type":"service","tags":["y"],"project":"<P>","system_tags":["serving-control-plane"],"hyperparams":{"Args":{"l.r":{"value":"0.1"}}}}`,
		`{"name":"CCC three","type":"service","system_tags":["hidden"],"tags":["x"]}`,
		`{"name":"ddd four","type":"custom","tags":[],"system_tags":["archived"],"project":"<K>","runtime":{"v":1.3,"flag":true}}`,
		`{"name":"eee five","type":"custom","tags":["-odd","z z"],"comment":"AAA"}`,
	} {
		for name, id := range ids {
			body = strings.ReplaceAll(body, "<"+name+">", id)
		}
		id := w.create(t, "tasks.create", body)
		ids[body[9:10]] = id // the first letter of its name
	}
	w.must(t, "tasks.started", `{"task":"`+ids["b"]+`"}`)
	created := func(letter string) string { return w.read(t, "task", ids[letter]).Text("created") }
	ids["Ta"], ids["Tb"], ids["Td"] = created("a"), created("b"), created("d")
	for _, c := range []struct{ rule, body, want string }{
		{"nothing asked, all but the hidden", `{}`, "abde"},
		{"null sets no condition", `{"name":null,"tags":null,"page":null}`, "abde"},
		{"unknown keys are ignored", `{"method":"get","search":"x"}`, "abde"},
		{"hidden ones when asked for", `{"search_hidden":true}`, "abCde"},
		{"hidden ones by id", `{"id":["<C>"]}`, "C"},
		{"by id, in the order of creation", `{"id":["<d>","<a>"]}`, "ad"},
		{"one id as a text", `{"id":"<a>"}`, "a"},
		{"an empty list of ids sets no condition", `{"id":[]}`, "abde"},
		{"pattern found anywhere", `{"name":"o"}`, "abd"},
		{"pattern keeps case", `{"name":"c","search_hidden":true}`, ""},
		{"escaped as Python does", `{"name":"^bbb\\ \\(two\\)$"}`, "b"},
		{"python's end of text", `{"name":"one\\Z"}`, "a"},
		{"empty pattern sets no condition", `{"name":""}`, "abde"},
		{"alternatives", `{"name":"^(aaa|eee)"}`, "ae"},
		{"comment is a pattern too", `{"comment":"^f"}`, "a"},
		{"any of the tags", `{"tags":["x","z z"]}`, "ae"},
		{"tag as a text", `{"tags":"y"}`, "ab"},
		{"legacy exclude", `{"tags":["-y"]}`, "de"},
		{"has and has not", `{"tags":["y","-x"]}`, "b"},
		{"all of the tags", `{"tags":["__$all","x","y"]}`, "a"},
		{"after an operator a dash is a dash", `{"tags":["__$any","-odd"]}`, "e"},
		{"not", `{"tags":["__$not","y"]}`, "de"},
		{"not is for the next value only", `{"tags":["__$not","x","y"]}`, "b"},
		{"or joins the buckets", `{"tags":["__$or","x","__$not","y"]}`, "ade"},
		{"and joins the buckets", `{"tags":["__$and","y","__$not","x"]}`, "b"},
		{"nop goes back to legacy", `{"tags":["__$all","y","__$nop","-x"]}`, "b"},
		{"null means missing or empty", `{"tags":[null]}`, "d"},
		{"null or a value", `{"tags":[null,"z z"]}`, "de"},
		{"not null", `{"project":["__$not",null]}`, "abd"},
		{"missing project", `{"project":[null]}`, "e"},
		{"not archived", `{"system_tags":["-archived"]}`, "abe"},
		{"type and status together", `{"type":["service"],"status":["created","in_progress"],"system_tags":["serving-control-plane"]}`, "b"},
		{"status", `{"status":["in_progress"]}`, "b"},
		{"project without those below", `{"project":["<P>"]}`, "ab"},
		{"project with those below", `{"project":["<P>"],"include_subprojects":true}`, "abd"},
		{"exact text", `{"runtime.v":"1.3.2"}`, "a"},
		{"exact number is no text", `{"runtime.v":1.3}`, "d"},
		{"exact number", `{"runtime.n":2.0}`, "a"},
		{"exact flag", `{"runtime.flag":true}`, "d"},
		{"a dotted parameter", `{"hyperparams.Args.l.r.value":["0.1"]}`, "b"},
		{"a parameter's value by its name", `{"hyperparams.Args.l.r":"0.1"}`, "b"},
		{"range, both ends inside", `{"created":["<Tb>","<Td>"]}`, "bd"},
		{"range open below", `{"created":[null,"<Tb>"]}`, "ab"},
		{"range open above", `{"created":["<Td>",null]}`, "de"},
		{"range open on both sides", `{"created":[null,null]}`, "abde"},
		{"a missing number is below every limit", `{"active_duration":[null,5]}`, "abde"},
		{"a missing number is above none", `{"active_duration":[0,5]}`, ""},
		{"time with a comparison", `{"last_update":[">=2026-01-01T00:00:00","<2027-01-01"]}`, "abde"},
		{"time before all", `{"last_update":"<2026-01-01"}`, ""},
		{"exact time", `{"last_update":"<Td>"}`, "d"},
		{"two bare times are a range", `{"last_change":["<Ta>","<Ta>"]}`, "a"},
		{"any of the fields, whatever the case", `{"_any_":{"fields":["name","comment"],"pattern":"aaa"}}`, "ae"},
		{"all of the fields", `{"_all_":{"fields":["name","comment"],"pattern":"i"}}`, ""},
		{"older names of both", `{"_or_":{"fields":["name"],"pattern":"four"}}`, "d"},
		{"any of the times", `{"_any_":{"fields":["created","started"],"datetime":["<=<Ta>"]}}`, "a"},
		{"text search", `{"search_text":"TWO)"}`, "b"},
		{"newest first", `{"order_by":["-created"]}`, "edba"},
		{"order by a text", `{"order_by":"name"}`, "abde"},
		{"what lacks the field comes last", `{"order_by":["started"]}`, "b***"},
		{"also the other way round", `{"order_by":["-started"]}`, "b***"},
		{"order by a dotted parameter", `{"order_by":["-hyperparams.Args.l.r.value"]}`, "b***"},
		{"text score is no order of ours", `{"search_text":"five","order_by":["@text_score"]}`, "e"},
		{"a page", `{"page":1,"page_size":3}`, "e"},
		{"a page behind the end", `{"page":9,"page_size":3}`, ""},
		{"start and size", `{"start":1,"size":2}`, "bd"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			body := c.body
			for _, name := range []string{"Ta", "Tb", "Td", "P", "C", "a", "d"} {
				body = strings.ReplaceAll(body, "<"+name+">", ids[name])
			}
			got := ""
			for _, name := range names(t, w.call(t, "tasks.get_all", body), "tasks") {
				got += name[:1]
			}
			if stars := strings.IndexByte(c.want, '*'); stars >= 0 && len(got) == len(c.want) {
				got = got[:stars] + c.want[stars:]
			}
			if got != c.want {
				t.Errorf("%s: got %q, want %q", body, got, c.want)
			}
		})
	}
}

func TestBadFiltersAreRefused(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct{ body, want, msg string }{
		{`{"name":"("}`, "400/21", "("},
		{`{"name":"(?<=a)b"}`, "400/21", "(?<=a)b"},
		{`{"name":"(a)\\1"}`, "400/21", ""},
		{`{"name":5}`, "400/12", "name"},
		{`{"tags":["__$nope","x"]}`, "400/16", "__$nope"},
		{`{"tags":{"x":1}}`, "400/12", "tags"},
		{`{"created":["x",null]}`, "400/12", "created"},
		{`{"created":"2024"}`, "400/12", "created"},
		{`{"last_update":"yesterday"}`, "400/12", "yesterday"},
		{`{"runtime.x":[1]}`, "400/12", "runtime.x"},
		{`{"_any_":{"pattern":"x"}}`, "400/12", "fields"},
		{`{"_any_":{"fields":["name"]}}`, "400/12", "pattern"},
		{`{"_any_":"x"}`, "400/12", "_any_"},
		{`{"filters":{"tags":{"any":{"include":["x"]}}}}`, "400/12", "filters"},
		{`{"page":-1}`, "400/12", "page"},
		{`{"page_size":0}`, "400/12", "page_size"},
		{`{"page":1.5}`, "400/12", "page"},
		{`{"size":"x"}`, "400/12", "size"},
		{`{"scroll_id":"other"}`, "400/12", "size"},
		{`{"start":1}`, "400/12", "size"},
		{`{"search_after":["a","b"]}`, "400/12", "order_by"},
		{`{"order_by":["name"],"search_after":["a"]}`, "400/12", "search_after"},
		{`{"order_by":["name"],"search_after":["a",1]}`, "400/12", "id"},
		{`{"order_by":["name"],"search_before":"a"}`, "400/12", "search_before"},
		{`{"order_by":["name"],"search_before":[["a"],"b"]}`, "400/12", "search_before"},
		{`{"order_by":["name"],"search_after":["a","b"],"search_before":["c","d"]}`, "400/12", "leave out"},
		{`{"order_by":["name"],"search_after":["a","b"],"page":1}`, "400/12", "leave out page"},
		{`{"order_by":["@text_score"]}`, "400/16", "search_text"},
		{`{"order_by":[5]}`, "400/12", "order_by"},
		{`{"only_fields":[5]}`, "400/12", "only_fields"},
		{`{"only_fields":["nosuch"]}`, "400/14", "nosuch"},
		{`{"only_fields":["id","-nosuch.x"]}`, "400/14", "nosuch"},
		{`{"only_fields":["project.name"]}`, "400/14", "project.name"},
		{`{"order_by":["-nosuch"]}`, "400/14", "nosuch"},
		{`{"order_by":["project.name"]}`, "400/14", "project.name"},
		{`{"search_text":5}`, "400/12", "search_text"},
	} {
		r := w.call(t, "tasks.get_all", c.body)
		if r.code() != c.want || !strings.Contains(r.Meta.ResultMsg, c.msg) {
			t.Errorf("%s: %s %q, want %s and %q", c.body, r.code(), r.Meta.ResultMsg, c.want, c.msg)
		}
	}
}

func TestPagesHoldAtMost500(t *testing.T) {
	w := newWire(t)
	for i := range 501 {
		w.model(t, fmt.Sprintf(`,"comment":"%03d"`, i))
	}
	for body, want := range map[string]int{`{}`: 500, `{"page_size":1000}`: 500, `{"page":1,"page_size":500}`: 1, `{"page":1,"page_size":1000}`: 1, `{"page_size":7}`: 7} {
		if got := len(w.must(t, "models.get_all", body)["models"].([]any)); got != want {
			t.Errorf("%s: %d documents, want %d", body, got, want)
		}
	}
	scroll, seen := `null`, map[string]bool{}
	for {
		data := w.must(t, "models.get_all", `{"size":200,"only_fields":["comment"],"scroll_id":`+scroll+`}`)
		found := data["models"].([]any)
		for _, doc := range found {
			seen[doc.(map[string]any)["comment"].(string)] = true
		}
		if len(found) == 0 {
			break
		}
		scroll = `"` + data["scroll_id"].(string) + `"`
	}
	if len(seen) != 501 {
		t.Errorf("scrolling met %d of 501", len(seen))
	}
}

func TestListsGoOnFromAPlaceInTheirOrder(t *testing.T) {
	w := newWire(t)
	ids := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		comment := "right"
		if name < "c" {
			comment = "left"
		}
		ids[name] = w.create(t, "tasks.create", `{"type":"training","name":"`+name+` task","comment":"`+comment+`"}`)
	}
	at := func(letter string) string { return w.read(t, "task", ids[letter]).Text("created") }
	place := strings.NewReplacer("<a>", ids["a"], "<b>", ids["b"], "<c>", ids["c"], "<d>", ids["d"], "<e>", ids["e"], "<Tb>", at("b"), "<Td>", at("d"))
	for _, c := range []struct{ rule, body, want string }{
		{"after", `{"order_by":["-created"],"search_after":["<Td>","<d>"]}`, "cba"},
		{"a page of that", `{"order_by":["-created"],"search_after":["<Td>","<d>"],"page_size":2,"page":0}`, "cb"},
		{"before, in the same order", `{"order_by":["-created"],"search_before":["<Tb>","<b>"]}`, "edc"},
		{"the page before", `{"order_by":["-created"],"search_before":["<Tb>","<b>"],"size":2}`, "dc"},
		{"nothing is the end", `{"order_by":["-created"],"search_before":[],"page_size":2}`, "ba"},
		{"or the beginning", `{"order_by":["-created"],"search_after":[],"page_size":2}`, "ed"},
		{"the end without an order", `{"search_before":[],"page_size":2}`, "de"},
		{"by two fields", `{"order_by":["comment","-name"],"search_after":["left","a task","<a>"]}`, "edc"},
		{"by two fields, before", `{"order_by":["comment","-name"],"search_before":["right","d task","<d>"]}`, "bae"},
		{"where nothing stands any more", `{"order_by":["name"],"search_after":["bb","gone"]}`, "cde"},
		{"with a filter", `{"order_by":["name"],"comment":"right","search_before":["e task","<e>"]}`, "cd"},
		{"by a field that none has", `{"order_by":["hyperparams.A.x"],"search_after":[1,"<a>"],"name":"^a"}`, "a"},
		{"null is no place", `{"order_by":["name"],"search_after":null,"search_before":null}`, "abcde"},
	} {
		got := ""
		for _, name := range names(t, w.call(t, "tasks.get_all_ex", place.Replace(c.body)), "tasks") {
			got += name[:1]
		}
		if got != c.want {
			t.Errorf("%s: %s: got %q, want %q", c.rule, c.body, got, c.want)
		}
	}
}

// As on a ClearML server a scroll keeps its id, and the server keeps its place.
func TestAScrollKeepsItsIDAndGoesOnWithEachCall(t *testing.T) {
	w := newWire(t)
	for _, name := range []string{"aaa", "bbb", "ccc", "ddd", "eee"} {
		w.create(t, "tasks.create", `{"type":"training","name":"`+name+`"}`)
	}
	ask := func(id, more string) (page, next string) {
		t.Helper()
		r := w.call(t, "tasks.get_all", `{"size":2,"scroll_id":"`+id+`","only_fields":["name"]`+more+`}`)
		return strings.Join(names(t, r, "tasks"), " "), r.Data["scroll_id"].(string)
	}
	for _, order := range []string{"", `,"order_by":["name"]`} {
		first, id := ask("", order)
		if first != "aaa bbb" || len(id) != 32 {
			t.Errorf("%s the first page: %s, id %q", order, first, id)
		}
		for _, c := range []struct{ rule, more, want string }{
			{"the first id goes on", "", "ccc ddd"},
			{"to the end", "", "eee"},
			{"which stays empty", "", ""},
			{"what was read once more", `,"refresh_scroll":true`, "aaa bbb ccc ddd eee"},
			{"and no more of it", "", ""},
		} {
			if got, next := ask(id, order+c.more); got != c.want || next != id {
				t.Errorf("%s %s: %q, id %s; want %q, id %s", order, c.rule, got, next, c.want, id)
			}
		}
		if got, next := ask("unknown", order); got != "aaa bbb" || next == "unknown" || next == id {
			t.Errorf("%s an unknown id: %q, id %s", order, got, next)
		}
		_, id = ask("", order)
		w.pass(2 * time.Hour)
		if got, next := ask(id, order); got != "aaa bbb" || next == id {
			t.Errorf("%s an id that nobody used for two hours: %q, id %s", order, got, next)
		}
	}
	if n, err := w.store.Count(t.Context(), store.Scroll, nil); err != nil || n > 4 {
		t.Errorf("%d scrolls are kept (%v): those of hours ago are not removed", n, err)
	}
}

// Only a request with a scroll is remembered: lists that are read by pages write nothing.
func TestAPageWithoutAScrollIsNotRemembered(t *testing.T) {
	w := newWire(t)
	for _, body := range []string{`{}`, `{"page":0,"page_size":2}`, `{"start":0,"size":2}`, `{"order_by":["name"],"size":2,"search_after":[]}`} {
		if data := w.must(t, "tasks.get_all", body); data["scroll_id"] != nil {
			t.Errorf("%s: scroll_id %v", body, data["scroll_id"])
		}
	}
	if n, err := w.store.Count(t.Context(), store.Scroll, nil); err != nil || n != 0 {
		t.Errorf("%d scrolls are kept (%v)", n, err)
	}
}

// What is written meanwhile moves no page of a list that is sorted.
func TestScrollingInAnOrderMeetsEachDocumentOnce(t *testing.T) {
	w := newWire(t)
	for i := range 5 {
		w.create(t, "tasks.create", fmt.Sprintf(`{"type":"training","name":"task %d"}`, i))
	}
	for _, order := range []string{"-created", "name", "project", "hyperparams.A.x"} {
		var seen []string
		for scroll := ""; ; {
			data := w.call(t, "tasks.get_all_ex", `{"size":2,"order_by":["`+order+`"],"only_fields":["name","project.name"],"name":"^task","scroll_id":"`+scroll+`"}`)
			page := names(t, data, "tasks")
			next := data.Data["scroll_id"].(string)
			seen = append(seen, page...)
			if len(page) == 0 {
				if next != scroll {
					t.Errorf("by %s: at the end scroll_id is %q after %q", order, next, scroll)
				}
				break
			}
			scroll = next
			if order == "-created" {
				w.create(t, "tasks.create", `{"type":"training","name":"task newer"}`) // before all, in this order
			}
		}
		for i := range 5 {
			if name := fmt.Sprint("task ", i); len(slices.DeleteFunc(slices.Clone(seen), func(s string) bool { return s != name })) != 1 {
				t.Errorf("by %s: met %v", order, seen)
			}
		}
	}
}

func TestFilterLanguageOfModels(t *testing.T) {
	w := newWire(t)
	task := w.task(t, "")
	one := w.create(t, "models.create", `{"name":"model one","uri":"http://f/1","ready":false,"tags":["a"],"framework":"ScikitLearn","metadata":{"k.x":{"key":"k.x","type":"str","value":"v"}},"task":"`+task+`"}`)
	two := w.create(t, "models.create", `{"name":"model two","uri":"http://f/2","ready":true,"metadata":[{"key":"k.x","value":"w"}]}`)
	old := w.create(t, "models.create", `{"name":"model old","uri":"http://f/1","system_tags":["archived","hidden"]}`)
	for _, c := range []struct {
		rule, body string
		want       []string
	}{
		{"hidden models are not left out", `{}`, []string{one, two, old}},
		{"ready when nothing was said", `{"ready":true}`, []string{two, old}},
		{"drafts", `{"ready":false}`, []string{one}},
		{"by where they lie", `{"uri":["http://f/1"],"system_tags":["-archived"]}`, []string{one}},
		{"by the task that made them", `{"task":["` + task + `"]}`, []string{one}},
		{"by metadata with a dot in its key", `{"metadata.k.x.value":"w"}`, []string{two}},
		{"by framework", `{"framework":["ScikitLearn"]}`, []string{one}},
		{"newest first", `{"order_by":["-created"],"page":0,"page_size":2}`, []string{old, two}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var got []string
			for _, doc := range w.must(t, "models.get_all", c.body)["models"].([]any) {
				got = append(got, doc.(map[string]any)["id"].(string))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestProjectionKeepsTheNesting(t *testing.T) {
	w := newWire(t)
	project := w.create(t, "projects.create", `{"name":"the project"}`)
	model := w.model(t, "")
	id := w.task(t, `,"project":"`+project+`","runtime":{"a.b":1,"a":{"b":2},"c":3},"models":{"input":[{"name":"n","model":"`+model+`"}]},"hyperparams":{"Args":{"l.r":{"value":"1"},"x":{"value":"2"}}}`)
	for _, c := range []struct{ rule, call, fields, want string }{
		{"the id always comes", "tasks.get_all", `["status"]`, `{"id":"ID","status":"created"}`},
		{"what is missing is left out", "tasks.get_all", `["status","started","runtime.y.z","script.branch"]`, `{"id":"ID","runtime":{},"script":{},"status":"created"}`},
		{"the longest key wins", "tasks.get_all", `["runtime.a.b"]`, `{"id":"ID","runtime":{"a.b":1}}`},
		{"two paths of one object", "tasks.get_all", `["runtime.c","runtime.a"]`, `{"id":"ID","runtime":{"a":{"b":2},"c":3}}`},
		{"a dotted parameter", "tasks.get_all", `["hyperparams.Args.l.r.value"]`, `{"hyperparams":{"Args":{"l.r":{"value":"1"}}},"id":"ID"}`},
		{"into lists", "tasks.get_all", `["models.input.model"]`, `{"id":"ID","models":{"input":[{"model":"MODEL"}]}}`},
		{"a trailing star", "tasks.get_all", `["runtime.*"]`, `{"id":"ID","runtime":{"a":{"b":2},"a.b":1,"c":3}}`},
		{"references stay ids", "tasks.get_all", `["project"]`, `{"id":"ID","project":"PROJECT"}`},
		{"references become objects", "tasks.get_all_ex", `["project.name","parent"]`, `{"id":"ID","project":{"id":"PROJECT","name":"the project"}}`},
		{"references within lists", "tasks.get_all_ex", `["models.input.model.name"]`, `{"id":"ID","models":{"input":[{"model":{"id":"MODEL","name":"a model"}}]}}`},
		{"references without a field", "tasks.get_all_ex", `["project"]`, `{"id":"ID","project":{"id":"PROJECT"}}`},
		{"one of them as a text", "tasks.get_all", `"name"`, `{"id":"ID","name":"a task"}`},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r := w.call(t, c.call, `{"only_fields":`+c.fields+`}`)
			want := strings.NewReplacer("ID", id, "PROJECT", project, "MODEL", model).Replace(c.want)
			want = strings.ReplaceAll(strings.ReplaceAll(want, "PROJECT", project), "MODEL", model)
			if !strings.Contains(r.text, `"data":{"tasks":[`+want+`]}`) {
				t.Errorf("got %s, want %s", r.text, want)
			}
		})
	}
	r := w.call(t, "tasks.get_all", `{"only_fields":["-runtime","-hyperparams.Args.x"]}`)
	if strings.Contains(r.text, `"runtime"`) || strings.Contains(r.text, `"x"`) || !strings.Contains(r.text, `"l.r"`) || !strings.Contains(r.text, `"comment"`) {
		t.Errorf("leaving out: %s", r.text)
	}
	r = w.call(t, "tasks.get_all_ex", `{"projection":["project.description"]}`)
	if !strings.Contains(r.text, `"project":{"description":"","id":"`+project+`"}`) {
		t.Errorf("projection is another name of only_fields: %s", r.text)
	}
	if r = w.call(t, "tasks.get_all_ex", `{"only_fields":["project.nothing"]}`); r.code() != "400/14" {
		t.Errorf("a field that no project has: %s", r.code())
	}
	w.must(t, "projects.delete", `{"project":"`+project+`","force":true}`)
	if r = w.call(t, "tasks.get_all_ex", `{"only_fields":["project.name"]}`); r.status != 200 {
		t.Errorf("a reference that leads nowhere: %s", r.text)
	}
}

func TestProjectsAreFoundByNameAndPlace(t *testing.T) {
	w := newWire(t)
	for _, name := range []string{"top", "top/mid", "top/mid/low", "other", "topper"} {
		w.create(t, "projects.create", `{"name":"`+name+`"}`)
	}
	top := w.must(t, "projects.get_all", `{"name":"^top$"}`)["projects"].([]any)[0].(map[string]any)["id"].(string)
	for _, c := range []struct{ rule, body, want string }{
		{"all places", `{"shallow_search":false}`, "other top top/mid top/mid/low topper"},
		{"roots", `{"shallow_search":true}`, "other top topper"},
		{"children", `{"shallow_search":true,"parent":["` + top + `"]}`, "top/mid"},
		{"everything below", `{"shallow_search":false,"parent":["` + top + `"]}`, "top/mid top/mid/low"},
		{"below nothing", `{"parent":["unknown"]}`, ""},
		{"base name", `{"basename":"^low$"}`, "top/mid/low"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			got := names(t, w.call(t, "projects.get_all", c.body), "projects")
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}
