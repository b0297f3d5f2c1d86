package ui

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/leaktest"
	"clearmlserving/operations"
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
	now := time.Now()
	for age, want := range map[time.Duration]string{
		0: "now", time.Minute: "1 minute ago", 59 * time.Second: "59 seconds ago", 90 * time.Minute: "1 hour ago",
		50 * time.Hour: "2 days ago", 100 * 24 * time.Hour: "3 months ago", 800 * 24 * time.Hour: "2 years ago", -time.Hour: "1 hour from now",
	} {
		if got := (&Pages{now: func() time.Time { return now }}).moment(now.Add(-age)).Text; got != want {
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
	for size, want := range map[int64]string{0: "–", -1: "–", 512: "512 B", 1536: "1.5 KiB", 1234567: "1.2 MiB", 3 << 30: "3.0 GiB"} {
		if got := formatBytes(size); got != want {
			t.Errorf("%d bytes: %q; want %q", size, got, want)
		}
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
	for _, c := range []struct{ before, after, want string }{
		{"a\nb\nc\nd\ne\nf\ng\nh\ni", "a\nb\nc\nd\nX\nf\ng\nh\ni", " b, c, d,-e,+X, f, g, h"},
		{"a\n1\n2\n3\n4\n5\n6\n7\nb", "X\n1\n2\n3\n4\n5\n6\n7\nY", "-a,+X, 1, 2, 3,…, 5, 6, 7,-b,+Y"},
		{"", "a\n", "+a"},
		{"a", "", "-a"},
		{"a", "a\n", ""},
		{"@@ a", "-- a", "-@@ a,+-- a"},
	} {
		var said []string
		for _, line := range difference(c.before, c.after) {
			said = append(said, line.Mark+line.Text)
		}
		if got := strings.Join(said, ","); got != c.want {
			t.Errorf("%q to %q: %s; want %s", c.before, c.after, got, c.want)
		}
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

// plots answers like a task with one figure of each way to show it.
func plots() scripted {
	s := guest()
	s["tasks.get_all_ex"] = `{"tasks":[{"id":"t1","name":"one"}]}`
	s["events.get_task_plots"] = `{"plots":[
		{"metric":"matplotlib","variant":"v","plot_str":"{\"layout\":{\"images\":[{\"source\":\"http://files/a.png\"},{\"source\":\"https://other/b.png\"}]}}"},
		{"metric":"no figure","variant":"v","plot_str":"["},
		{"metric":"loss","variant":"a&b","iter":3,"plot_str":"{\"data\":[{\"type\":\"bar\",\"y\":[1]}]}"}]}`
	return s
}

func TestAPlotIsGivenToTheScriptAndAPictureIsShownByThePage(t *testing.T) {
	page := ask(t, newPages(t, Options{API: plots()}), "GET", "/experiments/t1/plots", "").Body.String()
	for _, want := range []string{
		`data-figure="/experiments/t1/plot.json?metric=loss&amp;variant=a%26b"`, `src="/files/a.png"`,
		`<noscript>Drawn with JavaScript only. <a href="/experiments/t1/plot.json?metric=loss&amp;variant=a%26b">`, `variant=v" data-values`, "charts.js",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in %s", want, page)
		}
	}
	if !strings.Contains(page, "on another server") || strings.Contains(page, "other/b.png") || strings.Contains(page, `data-figure="/experiments/t1/plot.json?metric=matplotlib`) {
		t.Errorf("%s", page)
	}
}

func TestTheJSONOfAPlotNeedsTheRightsOfThePage(t *testing.T) {
	const path = "/experiments/t1/plot.json?metric=loss&variant=a%26b"
	pages := newPages(t, Options{API: plots()})
	if got := ask(t, pages, "GET", path, ""); got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/json" || !json.Valid(got.Body.Bytes()) {
		t.Errorf("%d %v %s", got.Code, got.Header(), got.Body)
	}
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody))
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login") {
		t.Errorf("without a login: %d %v", w.Code, w.Header())
	}
	refused := plots()
	delete(refused, "events.get_task_plots")
	if got := ask(t, newPages(t, Options{API: refused}), "GET", path, ""); got.Code != http.StatusForbidden {
		t.Errorf("without the right to read: %d %s", got.Code, got.Body)
	}
}

func TestScalarsAreAFigure(t *testing.T) {
	api := guest()
	api["events.scalar_metrics_iter_histogram"] = `{"loss":{"b":{"x":[1,2],"y":[0.5,0.25]},"a":{"x":[],"y":[]}}}`
	got := ask(t, newPages(t, Options{API: api}), "GET", "/experiments/scalars.json?metric=loss&ids=t1", "").Body.String()
	if want := `{"data":[{"name":"a","x":[],"y":[]},{"name":"b","x":[1,2],"y":[0.5,0.25]}],"layout":{"xaxis":{"title":{"text":"iteration"}}}}`; got != want {
		t.Errorf("%s", got)
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
	live.Report.Canaries = []serving.CanaryReport{{URL: "c", Shares: map[serving.EndpointURL]float64{"m/9": 0.9, "m/10": 0.1}}}
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
	late := seen(time.Second)
	late.Report.Reported = now.Add(-15 * time.Second) // a sign of life needs no report
	if got := oldestAlive([]instance{late}); !got.Equal(late.Report.Reported) {
		t.Errorf("report %s ago", now.Sub(got))
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
		page.Instances = []instance{{Report: serving.InstanceReport{URL: address, Key: "k"}}}
		got, key, err := page.target()
		if (err == nil) != (want != "") || (err == nil && (got.String() != want || key != "k")) {
			t.Errorf("%q: %v, %v; want %q", address, got, err, want)
		}
	}
	page.Instances = []instance{{Report: serving.InstanceReport{URL: "http://host", Path: "models"}}}
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

func TestSizesOfEveryPageAreShown(t *testing.T) {
	p := newPages(t, Options{API: guest()})
	var report serving.InstanceReport
	report.Memory = 3 << 20
	one := instance{Report: report}
	var task taskDoc
	task.Execution.Artifacts = []clearml.Artifact{{Key: "a", Size: 1536}}
	doc := &clearml.Service{ID: "s", Name: "s"}
	for name, c := range map[string]struct {
		page any
		want string
	}{
		"playground": {playgroundPage{Doc: doc, Endpoints: []string{"m"}, Reply: &reply{Size: 512}}, "512 B"},
		"experiment": {experimentPage{Tab: "artifacts", Task: task}, "1.5 KiB"},
		"instance":   {instancePage{Doc: doc, Instance: one}, "3.0 MiB"},
		"service":    {servicePage{Doc: doc, Instances: []instance{one}}, "3.0 MiB"},
	} {
		var out strings.Builder
		if err := p.templates[name].ExecuteTemplate(&out, "layout", frame{Page: c.page}); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: no %s: %v", name, c.want, err)
		}
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
	var report serving.InstanceReport
	err := json.Unmarshal([]byte(`{"instance":"h:1","endpoints":[{"endpoint":"m","state":"failed","failure":{"step":"load","reason":"boom"},"later":{}}],"more":1}`), &report)
	if err != nil || report.Endpoints[0].Note() != "load: boom" {
		t.Errorf("%+v %v", report, err)
	}
	warned := `{"endpoints":[{"endpoint":"m","state":"ready","model":{"state":"ready","warnings":["made by scikit-learn 1.2.2"],"last_death":"exit 1"}}]}`
	report = serving.InstanceReport{}
	if err := json.Unmarshal([]byte(warned), &report); err != nil || report.Endpoints[0].Note() != "made by scikit-learn 1.2.2" {
		t.Errorf("%+v %v", report, err)
	}
}

func TestThePreviewOfAnArtifactIsShown(t *testing.T) {
	var task taskDoc
	if err := json.Unmarshal([]byte(`{"execution":{"artifacts":[{"key":"a","type_data":{"preview":"the first rows"}}]}}`), &task); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := newPages(t, Options{API: guest()}).templates["experiment"].ExecuteTemplate(&out, "layout", frame{Page: experimentPage{Tab: "artifacts", Task: task}})
	if err != nil || !strings.Contains(out.String(), "the first rows") {
		t.Errorf("no preview: %v", err)
	}
}

func TestTheOverviewTellsFirstWhatIsWrong(t *testing.T) {
	now := time.Now()
	of := func(name string, age time.Duration, endpoints ...serving.EndpointReport) instance {
		return instance{
			Instance: clearml.Instance{TaskID: name, Seen: now.Add(-age)}, now: now,
			Report: serving.InstanceReport{Name: name, Status: serving.Status{Endpoints: endpoints}},
		}
	}
	failed := serving.EndpointReport{URL: "m", State: serving.StateFailed, Failure: &serving.LoadFailure{Step: "load", Reason: "SyntaxError: x\nmore"}}
	stale := serving.EndpointReport{URL: "n", State: serving.StateRefused, Revision: 11, Refusal: &serving.Refusal{Revision: 12, Step: "golden", Reason: "sample 1"}}
	fine := serving.EndpointReport{URL: "o", State: serving.StateReady}
	service := &operations.Service{Doc: &clearml.Service{ID: "s", Name: "shop"}}
	got := troublesOf(service, []instance{of("a", 0, failed, fine), of("b", 0, failed, stale), of("gone", time.Hour, failed), of("a", time.Hour)})
	want := []string{"instance gone of shop is lost: its last sign of life was at", "m of shop is failed: load: SyntaxError: x (on a, b)", "n of shop is refused: revision 12 refused: golden: sample 1; 11 serves (on b)"}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if said := got[i].What + ": " + got[i].Why; !strings.HasPrefix(said, want[i]) {
			t.Errorf("%q, want %q", said, want[i])
		}
	}
	var out strings.Builder
	page := overviewPage{Troubles: got, Services: []serviceRow{{Doc: *service.Doc, Instances: 2, Troubles: got}}}
	err := newPages(t, Options{API: guest()}).templates["overview"].ExecuteTemplate(&out, "layout", frame{Page: page})
	text := out.String()
	if first := strings.Index(text, "m of shop is failed"); err != nil || first < 0 || first > strings.Index(text, "2 running") {
		t.Errorf("%v: %s", err, text)
	}
}
