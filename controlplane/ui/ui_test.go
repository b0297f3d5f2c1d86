package ui

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/leaktest"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// scripted answers calls of the API by their names.
type scripted map[string]string

func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	call := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	recorder := httptest.NewRecorder()
	text, known := s[call]
	status := http.StatusOK
	if !known {
		text, status = `{"meta":{"result_code":403,"result_subcode":21,"result_msg":"No write permission: guests may only read"}}`, http.StatusForbidden
	} else {
		text = `{"meta":{"result_code":200},"data":` + text + `}`
	}
	recorder.WriteHeader(status)
	_, err := io.WriteString(recorder, text)
	return recorder.Result(), err
}

func guest() scripted {
	return scripted{
		"auth.login": `{"token":"t"}`, "users.get_current_user": `{"user":{"id":"u","name":"reader","role":"guest"}}`,
		"models.get_frameworks": `{"frameworks":[]}`,
		"models.get_all_ex":     `{"models":[{"id":"m1","name":"one","uri":"http://files/a","tags":["x"]}]}`,
		"tasks.get_all":         `{"tasks":[]}`, "projects.get_all": `{"projects":[]}`,
	}
}

func newPages(t *testing.T, o Options) *Pages {
	t.Helper()
	o.APIURL, o.FilesURL = "http://api", "http://files"
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ask(t *testing.T, p *Pages, method, path, form string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: "t"})
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestAGuestIsOfferedNoChangeAndRefusedOne(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	for _, path := range []string{"/models", "/models/m1"} {
		page := ask(t, p, "GET", path, "")
		if page.Code != http.StatusOK || strings.Contains(page.Body.String(), `action="/models/`) || strings.Contains(page.Body.String(), "Upload a model") {
			t.Errorf("%s: %d %s", path, page.Code, page.Body)
		}
	}
	token := (&visit{token: "t"}).csrf()
	page := ask(t, p, "POST", "/models/m1/publish", "csrf="+token)
	if page.Code != http.StatusForbidden || !strings.Contains(page.Body.String(), "guests may only read") {
		t.Errorf("publish: %d %s", page.Code, page.Body)
	}
}

func TestOnlyOurOwnPathsArePages(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	for path, want := range map[string]bool{
		"/models": true, "/models/x": true, "/login": true, "/assets/a": true, "/models.get_all": false, "/v2.31/models.get_all": false,
		"/": false, "/files/x": false, "/api/v2/tasks.create": false, "/livez": false,
	} {
		if p.Serves(path) != want {
			t.Errorf("Serves(%q) = %v", path, !want)
		}
	}
}

func TestAFilterThatIsTypedAsksForALoginWithoutLosingThePage(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/models", http.NoBody)
	r.Header.Set("HX-Request", "true")
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || w.Header().Get("HX-Redirect") != "/login" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestTimesAreSaidAsPeopleSayThem(t *testing.T) {
	for age, want := range map[time.Duration]string{
		0: "just now", time.Minute: "1 minute ago", 59 * time.Second: "59 seconds ago", 90 * time.Minute: "1 hour ago",
		50 * time.Hour: "2 days ago", 100 * 24 * time.Hour: "3 months ago", 800 * 24 * time.Hour: "2 years ago", -time.Hour: "in 1 hour",
	} {
		if got := formatAge(age); got != want {
			t.Errorf("%s: %q; want %q", age, got, want)
		}
	}
}

func TestNumbersHaveFourDigits(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 1: "1", 0.123456: "0.1235", 1e6: "1000000", 1234567.8: "1.235e+06", 1e-9: "1e-09"} {
		if got := formatNumber(value); got != want {
			t.Errorf("%v: %q; want %q", value, got, want)
		}
	}
	if got := formatBytes(int64(1234567)); got != "1.235 MB" {
		t.Errorf("bytes: %q", got)
	}
	if got := formatCount(1234567); got != "1\u202f234\u202f567" {
		t.Errorf("count: %q", got)
	}
}

func TestFilesAreLinkedOnlyWhereABrowserMayGo(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	for uri, want := range map[string]string{
		"http://files/a%20b": "/files/a%20b", "https://other/x": "https://other/x", "javascript:alert(1)": "", "s3://bucket/x": "", "file:///etc/passwd": "",
	} {
		if got := p.fileLink(uri); got != want {
			t.Errorf("%s: %q; want %q", uri, got, want)
		}
	}
	if got := p.pictureLink("https://other/x.png"); got != "" {
		t.Errorf("a picture from elsewhere is loaded: %q", got)
	}
	if got := p.pictureLink("data:text/html;base64,xx"); got != "" {
		t.Errorf("a picture that is a page: %q", got)
	}
}

func TestADifferenceShowsWhatWasAddedAndRemoved(t *testing.T) {
	var said []string
	for _, line := range difference("a\nb\nc\nd\ne\nf\ng\nh\ni", "a\nb\nc\nd\nX\nf\ng\nh\ni") {
		said = append(said, line.Mark+line.Text)
	}
	if got := strings.Join(said, ","); got != " b, c, d,-e,+X, f, g, h,…" {
		t.Errorf("%s", got)
	}
}

func TestAHistorySaysWhichRecordsChanged(t *testing.T) {
	before, after := `{"a":1,"b":1}`, `{"b":2,"c":1}`
	step := configurationStep{Section: "endpoints", Action: "changed", Before: &before, After: &after}
	if got := step.Summary(); got != "endpoint b changed, endpoint c added, endpoint a removed" {
		t.Errorf("%s", got)
	}
	if (configurationEdit{Revertible: true, Sections: []configurationStep{{Section: "model_monitoring_eps"}}}).Revert() {
		t.Error("what an instance writes by itself is offered to be reverted")
	}
}

func TestPlotsAreDrawnByTheirKind(t *testing.T) {
	packedNumbers := base64.StdEncoding.EncodeToString([]byte{0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 64})
	for name, c := range map[string]struct {
		figure string
		check  func(plot) bool
	}{
		"lines":      {`{"data":[{"type":"scatter","x":[1,2,3],"y":[1,null,3]}]}`, func(p plot) bool { return len(p.Chart.Lines) == 2 }},
		"markers":    {`{"data":[{"mode":"markers","x":[1,2],"y":[1,2]}]}`, func(p plot) bool { return len(p.Chart.Dots) == 2 && len(p.Chart.Lines) == 0 }},
		"packed":     {`{"data":[{"x":[1,2],"y":{"dtype":"f8","bdata":"` + packedNumbers + `"}}]}`, func(p plot) bool { return len(p.Chart.Lines) == 1 }},
		"bars":       {`{"data":[{"type":"bar","x":["a","b"],"y":[1,-2]}]}`, func(p plot) bool { return len(p.Chart.Bars) == 2 && p.Chart.Bars[1].H > 0 }},
		"heatmap":    {`{"data":[{"type":"heatmap","z":[[1,2],[3,4]],"x":["a","b"],"y":["c","d"]}]}`, func(p plot) bool { return len(p.Chart.Cells) == 4 && p.Chart.Cells[3].Strength == 1 }},
		"one value":  {`{"data":[{"x":[1],"y":[5]}]}`, func(p plot) bool { return len(p.Chart.Lines) == 1 }},
		"table":      {`{"data":[{"type":"table","header":{"values":["h"]},"cells":{"values":[["x","y"]]}}]}`, func(p plot) bool { return len(p.Table.Rows) == 2 && p.Table.Header[0] == "h" }},
		"picture":    {`{"layout":{"images":[{"source":"data:image/png;base64,xx"}]}}`, func(p plot) bool { return len(p.Pictures) == 1 }},
		"unknown":    {`{"data":[{"type":"surface"},{"type":"bar"}]}`, func(p plot) bool { return p.Kinds == "surface, bar" }},
		"empty":      {`{"data":[]}`, func(p plot) bool { return p.Chart == nil && p.Table == nil }},
		"no figure":  {`[`, func(p plot) bool { return p.Kinds != "" }},
		"no numbers": {`{"data":[{"x":["a"],"y":["b"]}]}`, func(p plot) bool { return p.Chart == nil }},
	} {
		if p := draw(plotEvent{Variant: "v", Text: c.figure}); !c.check(p) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzDraw(f *testing.F) {
	f.Add(`{"data":[{"type":"bar","x":["a"],"y":[1e308,-1e308]}]}`)
	f.Add(`{"data":[{"type":"heatmap","z":[[1],[2,3]]}]}`)
	f.Add(`{"data":[{"z":{"dtype":"i1","bdata":"AAAA","shape":"3, 1"},"type":"heatmap"}]}`)
	f.Fuzz(func(t *testing.T, figure string) {
		p := draw(plotEvent{Text: figure})
		if p.Chart == nil {
			return
		}
		for _, line := range p.Chart.Lines {
			if strings.Contains(line.Points, "NaN") {
				t.Errorf("%q draws %s", figure, line.Points)
			}
		}
	})
}

func TestTicksAreRound(t *testing.T) {
	low, high, step := niceRange(0.03, 9.7)
	if low != 0 || high != 10 || step != 2 {
		t.Errorf("%v %v %v", low, high, step)
	}
	if low, high, _ := niceRange(5, 5); !(low < 5 && high > 5) || math.IsNaN(low) {
		t.Errorf("a single value: %v %v", low, high)
	}
}

func TestACanaryFormIsReadByItsLines(t *testing.T) {
	c, err := canaryOf(map[string][]string{"endpoint": {"c"}, "target": {"a", "", "b"}, "weight": {"0,5", "", "2"}})
	if err != nil || len(c.Weights) != 2 || c.Weights[0] != 0.5 || c.LoadEndpoints[1] != "b" {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := canaryOf(map[string][]string{"endpoint": {"c"}, "target": {"a"}, "weight": {""}}); err == nil {
		t.Error("an endpoint without a weight is taken")
	}
}

func TestSharesOfAPrefixBeginWithTheNewest(t *testing.T) {
	config := serving.Service{Canaries: map[string]serving.Canary{"c": {Endpoint: "c", LoadEndpointPrefix: "m", Weights: []float64{0.1, 0.9}}}}
	live := instance{Instance: clearml.Instance{Seen: time.Now()}, now: time.Now()}
	live.Report.Canaries = []canaryReport{{URL: "c", Shares: map[string]float64{"m/9": 0.9, "m/10": 0.1}}}
	rows := canaryRows(config, []instance{live})
	if len(rows) != 1 || !rows[0].Live || rows[0].Shares[0].Endpoint != "m/10" || rows[0].Shares[0].Weight != "0.1" || rows[0].Shares[1].From != 10 {
		t.Errorf("%+v", rows)
	}
}

func TestAnInstanceIsLostAfterTheTimeThatTheCommandLineUses(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]string{serving.AliveFor: "running", serving.AliveFor + time.Second: "lost"} {
		if got := (instance{Instance: clearml.Instance{Seen: now.Add(-age)}, now: now}).State(); got != want {
			t.Errorf("after %s: %s, want %s", age, got, want)
		}
	}
}

func TestCountsOfEndpointsCarryTheAgeOfTheOldestReport(t *testing.T) {
	now := time.Now()
	seen := func(age time.Duration) instance {
		return instance{Instance: clearml.Instance{Seen: now.Add(-age)}, now: now}
	}
	if got := oldestAlive([]instance{seen(time.Second), seen(12 * time.Second), seen(time.Hour)}); !got.Equal(now.Add(-12 * time.Second)) {
		t.Errorf("oldest report %s ago", now.Sub(got))
	}
	if got := oldestAlive([]instance{seen(time.Hour)}); !got.IsZero() {
		t.Errorf("no instance is alive, but a report is from %s ago", now.Sub(got))
	}
}

func TestThePlaygroundAsksOnlyWhereTheInstanceIs(t *testing.T) {
	page := playgroundPage{Doc: &clearml.Service{ID: "s", Name: "s"}, Endpoint: "m/1", Endpoints: []string{"m/1"}}
	for address, want := range map[string]string{
		"http://host:8080": "http://host:8080/serve/m/1", "https://host/prefix?x=1": "https://host/serve/m/1", "file:///etc": "",
		"http://user:secret@host": "", "": "", "//host": "", "gopher://host": "",
	} {
		page.Instances = []instance{{Report: instanceReport{URL: address, Key: "k"}}}
		got, key, err := page.target()
		if (err == nil) != (want != "") || (err == nil && (got.String() != want || key != "k")) {
			t.Errorf("%q: %v, %v; want %q", address, got, err, want)
		}
	}
	page.Instances = []instance{{Report: instanceReport{URL: "http://host", Path: "models"}}}
	if got, _, err := page.target(); err != nil || got.String() != "http://host/models/m/1" {
		t.Errorf("with another path: %v, %v", got, err)
	}
}

func TestNoConnectionIsMadeToWhereNoInstanceIs(t *testing.T) {
	for address, want := range map[string]bool{
		"169.254.169.254": true, "[::ffff:169.254.169.254]": true, "[fe80::1%eth0]": true, "[fd00:ec2::254]": true, "100.100.100.200": true, "0.0.0.0": true,
		"[::]": true, "224.0.0.1": true, "255.255.255.255": true, "127.0.0.1": false, "10.0.0.5": false, "[::1]": false, "[fd00::7]": false, "192.0.2.1": false,
	} {
		if err := refuseForbidden("tcp", address+":80", nil); (err != nil) != want {
			t.Errorf("%s: %v; refused: want %v", address, err, want)
		}
	}
	if err := refuseForbidden("tcp", "no address", nil); err == nil {
		t.Error("what is no address is let through")
	}
}

func TestCommandsToCopyHoldAnyBody(t *testing.T) {
	if got := curlOf("http://h/serve/m", `{"a": "it's"}`, false); !strings.Contains(got, `-d '{"a":"it'\''s"}'`) {
		t.Errorf("%s", got)
	}
	if got := pythonOf("http://h", "\"quote\"\n", false); !strings.Contains(got, `data="\"quote\""`) {
		t.Errorf("%s", got)
	}
}

func TestCommandsToCopyHoldNoKey(t *testing.T) {
	if got := curlOf("http://h", "{}", true); !strings.Contains(got, `-H "Authorization: Bearer $ACCESS_KEY"`) {
		t.Errorf("%s", got)
	}
	if got := pythonOf("http://h", "{}", true); !strings.Contains(got, `os.environ["ACCESS_KEY"]`) || !strings.HasPrefix(got, "import os\n") {
		t.Errorf("%s", got)
	}
}

func TestAReportOfANewerInstanceIsRead(t *testing.T) {
	var report instanceReport
	err := json.Unmarshal([]byte(`{"instance":"h:1","endpoints":[{"endpoint":"m","state":"failed","failure":{"step":"load","reason":"boom"},"later":{}}],"more":1}`), &report)
	if err != nil || report.Endpoints[0].Reason() != "load: boom" {
		t.Errorf("%+v %v", report, err)
	}
	warned := `{"endpoints":[{"endpoint":"m","state":"ready","model":{"state":"ready","warnings":["made by scikit-learn 1.2.2"],"last_death":"exit 1"}}]}`
	report = instanceReport{}
	if err := json.Unmarshal([]byte(warned), &report); err != nil || report.Endpoints[0].Reason() != "made by scikit-learn 1.2.2" {
		t.Errorf("%+v %v", report, err)
	}
}
