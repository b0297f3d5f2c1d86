package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What nobody sends by mistake. Each is answered, or refused with 400: a code above it
// would say that it is our fault.

// A pattern's time grows with the text that it is looked for in and no faster; one that
// would grow huge is refused.
func TestPatternsThatBlowUpElsewhereAreAnsweredOrRefused(t *testing.T) {
	w := newWire(t)
	w.create(t, "tasks.create", fmt.Sprintf(`{"name":%q,"type":"training","comment":%q}`, strings.Repeat("a", 2000)+"!", strings.Repeat("ab", 30_000)))
	for _, c := range []struct {
		rule, pattern string
		want          []string
	}{
		{"nested repetitions", `^(a+)+$`, []string{"200/0"}},
		{"nested alternatives", `^(a|aa)+$`, []string{"200/0"}},
		{"many optional ones", "^" + strings.Repeat("a?", 500) + strings.Repeat("a", 500) + "$", []string{"200/0"}},
		{"overlapping stars", strings.Repeat("(.*)", 200) + "=", []string{"200/0"}},
		{"counts of counts", `((a{1000}){1000}){1000}`, []string{"400/21"}},
		{"a great count", `a{100000}`, []string{"400/21"}},
		{"deeply nested", strings.Repeat("(", 5000) + "a" + strings.Repeat(")", 5000), []string{"400/21"}},
		{"a great many alternatives", strings.Repeat("abc|", 50_000) + "x", []string{"200/0", "400/21"}},
		{"half a million letters", strings.Repeat("b", 500_000), []string{"200/0", "400/21"}},
		{"look-behind", `(?<=a)b`, []string{"400/21"}},
		{"a zero byte", "a\x00b", []string{"200/0", "400/21"}},
	} {
		pattern, _ := json.Marshal(c.pattern)
		for _, body := range []string{
			`{"name":` + string(pattern) + `}`, `{"comment":` + string(pattern) + `}`,
			`{"_any_":{"fields":["name","comment"],"pattern":` + string(pattern) + `}}`,
		} {
			r := w.call(t, "tasks.get_all", body)
			if !slices.Contains(c.want, r.code()) {
				t.Errorf("%s: %s %.200s, want %v", c.rule, r.code(), r.Meta.ResultMsg, c.want)
			}
		}
	}
}

func TestTenThousandTagsAreKeptAndFound(t *testing.T) {
	w := newWire(t)
	tags := make([]string, 10_000)
	for i := range tags {
		tags[i] = fmt.Sprintf("tag %d", i)
	}
	text, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	id := w.task(t, `,"tags":`+string(text))
	w.task(t, `,"tags":["another"]`)
	if got := len(w.read(t, "task", id).Strings("tags")); got != len(tags) {
		t.Errorf("%d tags came back", got)
	}
	for rule, list := range map[string]string{
		"one of them":    `["tag 9999"]`,
		"half of them":   `["tag 0",` + strings.Join(strings.Split(string(text), ",")[5000:], ","),
		"without others": `["tag 1","-another"]`,
	} {
		r := w.call(t, "tasks.get_all", `{"only_fields":["id"],"tags":`+list+`}`)
		if r.code() != "200/0" || !strings.Contains(r.text, `"tasks":[{"id":"`+id+`"}]`) {
			t.Errorf("%s: %s %.300s", rule, r.code(), r.text)
		}
	}
	if r := w.call(t, "tasks.get_all", `{"tags":["__$all",`+string(text[1:])+`}`); r.code() != "400/12" {
		t.Errorf("ten thousand conditions: %s %.300s, want 400/12", r.code(), r.text)
	}
	w.must(t, "tasks.update_tags", `{"ids":["`+id+`"],"remove_tags":`+string(text)+`}`)
	if got := len(w.read(t, "task", id).Strings("tags")); got != 0 {
		t.Errorf("%d tags are left", got)
	}
}

func TestHugeFiltersAreAnsweredOrRefused(t *testing.T) {
	w := newWire(t)
	id := w.task(t, "")
	many := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	different := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%032x",`, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		rule, body string
		want       []string
		finds      bool
	}{
		{"ten thousand ids", `{"id":[` + different(9_999) + `"` + id + `"]}`, []string{"200/0"}, true},
		{"ten thousand projects", `{"project":[` + different(9_990) + `null]}`, []string{"200/0"}, true},
		{"ten thousand values of a field without a column", `{"hyperparams.A.x.value":[` + different(9_990) + `null]}`, []string{"200/0"}, true},
		{"excluding as many", `{"tags":[` + strings.ReplaceAll(different(9_990), `"0`, `"-0`) + `"-y"]}`, []string{"200/0"}, true},
		{"as many in several lists", `{"parent":[` + different(3_300) + `null],"project":[` + different(3_300) + `null],"tags":[` + different(3_300) + `null]}`, []string{"200/0"}, true},
		{"a hundred thousand ids", `{"id":[` + different(100_000) + `"` + id + `"]}`, []string{"400/12"}, false},
		{"too many in several lists", `{"id":[` + different(9_000) + `"x"],"project":[` + different(9_000) + `"x"],"parent":[` + different(9_000) + `"x"],"user":[` + different(9_000) + `"x"]}`, []string{"400/12"}, false},
		{"a thousand conditions on fields of one's own", `{` + ownFields(1000) + `}`, []string{"400/12"}, false},
		{"as many as are allowed", `{` + ownFields(499) + `}`, []string{"200/0"}, true},
		{"ten thousand times the same operator", `{"tags":` + many(10_000, `"__$not"`) + `}`, []string{"200/0", "400/16"}, true},
		{"as many with values between", `{"tags":` + many(10_000, `"__$all","__$not","x"`) + `}`, []string{"200/0", "400/12"}, true},
		{"ten thousand fields of a pattern", `{"_any_":{"fields":` + many(10_000, `"name"`) + `,"pattern":"task"}}`, []string{"200/0", "400/12"}, true},
		{"ten thousand orders", `{"order_by":` + many(10_000, `"-created"`) + `}`, []string{"200/0", "400/12"}, true},
		{"ten thousand fields wanted", `{"only_fields":` + many(10_000, `"runtime.b.c"`) + `}`, []string{"200/0"}, true},
		{"a path of ten thousand parts", `{"only_fields":["runtime.` + strings.Repeat("a.", 10_000) + `a"],"order_by":["runtime.` + strings.Repeat("b.", 10_000) + `b"]}`, []string{"200/0", "400/12"}, true},
		{"a hundred thousand filters", `{"runtime.x":"1",` + strings.ReplaceAll(different(100_000), `",`, `":["x"],`) + `"z":1}`, []string{"200/0"}, false},
		{"a page far away", `{"page":1000000000000,"page_size":500}`, []string{"200/0", "400/12"}, false},
		{"a page beyond all numbers", `{"page":1e300}`, []string{"200/0", "400/12"}, false},
		{"a number beyond all numbers", `{"created":[1e999,null]}`, []string{"200/0", "400/12"}, false},
		{"lists in lists", `{"tags":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, []string{"400/12"}, false},
		{"too many of them", `{"tags":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `}`, []string{"400/0"}, false},
		{"a text of ten megabytes", `{"name":"^` + strings.Repeat("x", 10<<20) + `$"}`, []string{"200/0", "400/21"}, false},
		{"a search for it", `{"search_text":"` + strings.Repeat("x", 1<<20) + `"}`, []string{"200/0", "400/21"}, false},
	} {
		r := w.call(t, "tasks.get_all", c.body)
		if !slices.Contains(c.want, r.code()) {
			t.Errorf("%s: %s %.300s, want %v", c.rule, r.code(), r.Meta.ResultMsg, c.want)
		}
		if c.finds && r.status == 200 && !strings.Contains(r.text, id) {
			t.Errorf("%s: the task isn't found: %.300s", c.rule, r.text)
		}
	}
}

// ownFields are so many filters on parameters that no task has.
func ownFields(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(`"hyperparams.A.p%d.value":[null]`, i)
	}
	return strings.Join(parts, ",")
}

func TestHugeDocumentsAreKept(t *testing.T) {
	w := newWire(t)
	var params, lines strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&params, `,"p%d":{"value":"v"}`, i)
		fmt.Fprintf(&lines, "line %d\\n", i)
	}
	id := w.task(t, `,"hyperparams":{"A":{`+params.String()[1:]+`}},"script":{"diff":"`+strings.Repeat(lines.String(), 100)+`"},"comment":"`+strings.Repeat("long ", 10_000)+`"`)
	doc := w.read(t, "task", id)
	if n := len(doc.Object("hyperparams")["A"].(map[string]any)); n != 5000 {
		t.Errorf("%d parameters came back", n)
	}
	if n := len(doc.Text("comment")); n != 50_000 {
		t.Errorf("%d bytes of the comment came back", n)
	}
}
