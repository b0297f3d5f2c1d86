package ui

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// endpointPage is one url of a service: an endpoint, a canary, a monitoring rule with the options and
// revisions of the endpoints that it makes, or an endpoint that was removed.
type endpointPage struct {
	Doc       *clearml.Service
	Row       endpointRow
	Canary    *canaryRow    // nil: no canary
	Arms      []arm         // of the canary
	IsRule    bool          // a monitoring rule
	Versions  []endpointRow // that the rule has made
	Removed   time.Time     // zero: it is there
	Record    serving.Endpoint
	Address   string
	Options   serving.EndpointOptions
	Rule      string // the monitoring rule whose options hold where the endpoint has none
	Samples   samples
	Code      code
	Revisions []revisionRow // the newest
	Older     int           // the number of the first revision that is not among them, 0 for none
	Requests  []recordedRow
	Metrics   []metricRow
	Used      []string // canaries that the endpoint takes part in
	Console   console
	Errors    []lastError
	Charts    charted
	Drift     *driftPart // nil: no variable has a reference
}

// endpointLink is the path of the page of a url.
func endpointLink(service, endpoint string) string {
	return (&url.URL{Path: "/services/" + service + "/endpoints/" + strings.Trim(endpoint, "/")}).EscapedPath()
}

// revisionLink is the path of the page of a revision.
func revisionLink(service string, endpoint any, number int) string {
	return withQuery((&url.URL{Path: fmt.Sprintf("/services/%s/revisions/%s", service, endpoint)}).EscapedPath(), "number", number)
}

// Steady says that nothing is being loaded, so that the page need not ask often.
func (page endpointPage) Steady() bool {
	return page.Canary != nil || !slices.Contains([]serving.State{serving.StateLoading, serving.StateUpdating, statePending}, page.Row.State)
}

// The parts of the page that its script asks for again.
const (
	partLive    = "live"
	partConsole = "console"
	partDrift   = "drift"
)

func (p *Pages) endpoint(v *visit, s *operations.Service) error {
	at := serving.CleanURL(v.r.PathValue("url"))
	instances, err := v.instances(s.Doc.ID)
	if err != nil {
		return err
	}
	page := endpointPage{Doc: s.Doc, Address: addressOf(s.Config, instances)}
	rows, err := v.endpointRows(s.Config, instances)
	if err != nil {
		return err
	}
	found := slices.IndexFunc(rows, func(r endpointRow) bool { return r.URL == string(at) })
	canaries := canaryRows(s.Config, instances)
	split := slices.IndexFunc(canaries, func(r canaryRow) bool { return r.URL == string(at) })
	switch {
	case found >= 0 && (s.Config.Serves(at) || rows[found].Monitoring != ""): // else an instance has not taken up its removal
		page.Row = rows[found]
		page.Row.follow(s.Digests()[at], instances)
	case split >= 0:
		page.Row.URL, page.Canary = string(at), &canaries[split]
		page.Arms = armsOf(canaries[split], rows)
	case page.ofRule(s.Config, at, rows):
	default:
		h, err := s.History(string(at))
		if err != nil {
			return refusal{http.StatusNotFound, fmt.Sprintf("The service %s has no endpoint %s.", s.Doc.Name, at)}
		}
		page.Row.URL, page.Removed = string(at), h.Removed
	}
	if !page.IsRule {
		page.Record, page.Rule = recordOf(s.Config, at)
	}
	page.Revisions = revisionRows(s, string(at), instances)
	if len(page.Revisions) > serving.DefaultKeep {
		page.Older, page.Revisions = page.Revisions[serving.DefaultKeep].Number, page.Revisions[:serving.DefaultKeep]
	}
	page.Options, _ = serving.LookUp(s.Config.Options, string(at))
	for _, c := range canaries {
		if len(page.Used) < shownCanaries && slices.ContainsFunc(c.Shares, func(one share) bool { return one.Endpoint == string(at) }) {
			page.Used = append(page.Used, c.URL)
		}
	}
	for _, key := range sortedKeys(s.Config.Metrics) {
		if prefix, all := strings.CutSuffix(key, "*"); key == string(at) || (all && strings.HasPrefix(string(at), prefix)) {
			page.Metrics = append(page.Metrics, metricRowOf(key, s.Config.Metrics[key]))
		}
	}
	part := v.r.URL.Query().Get("part")
	if part == "" || part == partDrift {
		if page.Drift, err = v.driftOf(s, at); err != nil {
			return err
		}
	}
	if part == "" || part == partConsole {
		if page.Console, page.Errors, err = v.consoleOf(instances, string(at)); err != nil {
			return err
		}
	}
	if part == "" {
		if page.Removed.IsZero() {
			sh := shapeOf(s, string(at), instances)
			if len(sh.charts) > 0 {
				sh.collected = v.collected(s.Doc.ID, sh.target, sh.variables)
				sh.watched = v.watched(s, sh.target)
			}
			page.Charts = v.charted(withQuery("/services/"+s.Doc.ID+"/charts.json", "endpoint", at), sh.groups()...)
		}
		page.Code = v.codeOf(s.Doc.Artifacts, page.Record.PreprocessArtifact)
		page.Samples = v.samplesOf(s.Doc.Artifacts, page.Options.Golden)
		page.Requests = v.recordedRows(page.Options.Record, string(at))
	}
	return v.render("endpoint", string(at)+" · "+s.Doc.Name, page)
}

// arm is an endpoint of a canary with its share.
type arm struct {
	share
	Row *endpointRow // nil: there is no such endpoint
}

// armsOf joins the shares of a canary with their endpoints.
func armsOf(c canaryRow, rows []endpointRow) []arm {
	var arms []arm
	for _, one := range c.Shares {
		a := arm{share: one}
		if i := slices.IndexFunc(rows, func(r endpointRow) bool { return r.URL == one.Endpoint }); i >= 0 {
			a.Row = &rows[i]
		}
		arms = append(arms, a)
	}
	return arms
}

// recordedRow is a recorded request with its answer.
type recordedRow struct {
	serving.Exchange
	In, Out string
}

// Good says that the answer is no error.
func (r recordedRow) Good() bool { return r.Status < http.StatusBadRequest }

// recordedRows are the newest recorded requests, as far as a page has room for them.
func (v *visit) recordedRows(record *serving.Record, at string) []recordedRow {
	const most, longest, all = 10, 1 << 10, 30 << 10
	left := room(all)
	var rows []recordedRow
	for _, e := range v.recorded(record, at, most) {
		rows = append(rows, recordedRow{e, left.take(readable(e.Body), longest), left.take(readable(e.Answer), longest)})
	}
	return rows
}

// ofRule fills the page of a monitoring rule, if the url is that of one.
func (page *endpointPage) ofRule(config serving.Service, at serving.EndpointURL, rows []endpointRow) bool {
	rule, ok := serving.LookUp(config.Monitoring, string(at))
	if !ok {
		return false
	}
	page.IsRule, page.Row.URL, page.Row.Engine = true, string(at), rule.EngineType
	page.Record = serving.Endpoint{EngineType: rule.EngineType, PreprocessArtifact: rule.PreprocessArtifact, Tensors: rule.Tensors, AuxiliaryCfg: rule.AuxiliaryCfg}
	for _, row := range rows {
		if serving.CleanURL(row.Monitoring) == at && len(page.Versions) < shownEndpoints {
			page.Versions = append(page.Versions, row)
		}
	}
	return true
}

// recordOf is the stored record of an endpoint, with the monitoring rule that has made it.
func recordOf(config serving.Service, at serving.EndpointURL) (e serving.Endpoint, rule string) {
	if e, ok := serving.LookUp(config.Endpoints, string(at)); ok {
		return e, ""
	}
	e, ok := serving.LookUp(config.MonitoringEndpoints, string(at))
	if !ok {
		return e, ""
	}
	rule, _ = cutLast(string(at))
	return e, rule
}

// addressOf is where clients send requests: what the service's settings name, else where an
// instance answers. It ends without a slash; "" means that no instance has reported one.
func addressOf(config serving.Service, instances []instance) string {
	if base := config.Parameters.ServingBaseURL; base != "" {
		return strings.TrimRight(base, "/")
	}
	for _, i := range instances {
		if i.Alive() && i.Report.URL != "" {
			return i.address()
		}
	}
	return ""
}

// address is where the instance answers requests, without a slash at the end.
func (i instance) address() string {
	return strings.TrimRight(i.Report.URL, "/") + "/" + cmp.Or(strings.Trim(i.Report.Path, "/"), "serve")
}

// consoleOf is what the instances that are alive have logged about one url, and the errors in it.
func (v *visit) consoleOf(instances []instance, at string) (console, []lastError, error) {
	const searched, room = 3000, 40 << 10
	own := console{Source: "?part=" + partConsole, Live: true}
	for _, i := range instances {
		if !i.Alive() {
			continue
		}
		var log struct {
			Events []consoleEntry `json:"events"`
		}
		if err := v.api.Call(v.r.Context(), "events.get_task_log", map[string]any{"task": i.TaskID, "batch_size": searched, "order": "asc"}, &log); err != nil {
			return own, nil, err
		}
		for _, event := range log.Events {
			if event.Text = linesOf(event.Text, at); event.Text != "" {
				own.Entries = append(own.Entries, event)
			}
		}
	}
	slices.SortStableFunc(own.Entries, func(a, b consoleEntry) int { return a.At.Compare(b.At.Time) })
	errors := errorsOf(own.Entries)
	left := room
	for n := len(own.Entries) - 1; n >= 0; n-- {
		lines := strings.Split(own.Entries[n].Text, "\n")
		fit := fitting(lines, &left)
		own.Entries[n].Text = strings.Join(lines[len(lines)-fit:], "\n")
		if fit < len(lines) {
			own.Entries = own.Entries[n:]
			break
		}
	}
	return own, errors, nil
}

// linesOf are the lines of a log that have the fact endpoint=at, with what follows below them.
func linesOf(log, at string) string {
	var own []string
	inside := false
	for line := range strings.SplitSeq(log, "\n") {
		if !strings.HasPrefix(line, " ") {
			inside = tellsOf(line, " endpoint="+at) || tellsOf(line, " endpoint="+quoteFact(at))
		}
		if inside {
			own = append(own, line)
		}
	}
	return strings.Join(own, "\n")
}

func tellsOf(line, fact string) bool {
	_, rest, found := strings.Cut(line, fact)
	return found && (rest == "" || rest[0] == ' ')
}

func quoteFact(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		return text
	}
	return string(quoted)
}

// setOptions stores one of an endpoint's options, or takes it off.
func (p *Pages) setOptions(v *visit, s *operations.Service) error {
	form := formReader{form: v.r.PostForm}
	at := string(serving.CleanURL(form.text("endpoint")))
	old, _ := serving.LookUp(s.Config.Options, at)
	change, err := v.readOption(s, at, &form)
	if err == nil {
		err = form.err
	}
	if form.text("off") != "" {
		change, err = offOf(form.text("option")), nil
	}
	checked := s.Config
	if err == nil {
		err = checked.SetOptions(at, change)
	}
	if err != nil {
		return refusal{http.StatusBadRequest, err.Error()}
	}
	err = s.Edit(v.r.Context(), func(c *serving.Service) (serving.Section, error) {
		return serving.SectionOptions, c.SetOptions(at, change)
	})
	if err != nil {
		return err
	}
	if old.Golden != nil {
		if err := s.DropUnusedSamples(v.r.Context(), old.Golden.Artifact); err != nil {
			return err
		}
	}
	return v.done(endpointLink(s.Doc.ID, at), "Stored.")
}

// readOption reads the form of one option: what it changes.
func (v *visit) readOption(s *operations.Service, at string, form *formReader) (func(*serving.EndpointOptions), error) {
	switch form.text("option") {
	case "limits":
		limits := form.limits()
		return func(o *serving.EndpointOptions) {
			if o.Limits != nil {
				limits.Unknown = o.Limits.Unknown
			}
			o.Limits = &limits
		}, nil
	case "record":
		record := serving.Record{Share: form.percent("share"), Max: form.whole("max"), Redact: words(form.text("redact"))}
		return func(o *serving.EndpointOptions) {
			if o.Record != nil {
				record.Unknown = o.Record.Unknown
			}
			o.Record = &record
		}, nil
	case "shadow":
		shadow := serving.Shadow{To: form.text("to"), Share: form.percent("share"), Tolerance: form.number("tolerance")}
		return func(o *serving.EndpointOptions) {
			if o.Shadow != nil {
				shadow.Unknown = o.Shadow.Unknown
			}
			o.Shadow = &shadow
		}, nil
	case "golden":
		golden := serving.Golden{Tolerance: form.number("tolerance"), Timeout: form.number("timeout")}
		if form.err != nil || form.text("off") != "" {
			return nil, form.err
		}
		data := []byte(v.r.PostForm.Get("samples"))
		if _, err := serving.ParseExchanges(data); err != nil {
			return nil, fmt.Errorf("samples: %w", err)
		}
		var err error
		golden.Artifact, err = s.StoreSamples(v.r.Context(), at, data)
		return func(o *serving.EndpointOptions) { o.Golden = &golden }, err
	}
	return nil, errors.New("the form names no option of an endpoint")
}

// offOf takes one option off.
func offOf(option string) func(*serving.EndpointOptions) {
	return func(o *serving.EndpointOptions) {
		switch option {
		case "limits":
			o.Limits = nil
		case "record":
			o.Record = nil
		case "shadow":
			o.Shadow = nil
		case "golden":
			o.Golden = nil
		}
	}
}

// formReader reads fields of a form; err is what is wrong with the first bad one.
type formReader struct {
	form url.Values
	err  error
}

func (f *formReader) text(name string) string { return strings.TrimSpace(f.form.Get(name)) }

// number is a number of 0 or more; 0 when the field is empty.
func (f *formReader) number(name string) float64 {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseFloat(strings.ReplaceAll(text, ",", "."), 64)
	if err != nil {
		f.fail(name, text, "is no number")
	}
	return n
}

func (f *formReader) whole(name string) int {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		f.fail(name, text, "is no whole number")
	}
	return n
}

// percent is a share of requests.
func (f *formReader) percent(name string) float64 { return f.number(name) / 100 }

// size is a number of bytes, with a unit if it likes.
func (f *formReader) size(name string) int64 {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		f.fail(name, text, "is no size: give bytes or a unit, such as 512MiB or 2GB")
	}
	return int64(n) //nolint:gosec // checked above
}

func (f *formReader) fail(name, text, why string) {
	if f.err == nil {
		f.err = &serving.FieldError{Field: name, Value: strconv.Quote(text), Why: why}
	}
}

// limits reads the fields of an endpoint's limits; an empty one is the instance's default.
func (f *formReader) limits() serving.Limits {
	l := serving.Limits{
		Deadline: f.number("deadline"), MaxWorkers: f.whole("max_workers"), MaxQueue: f.whole("max_queue"), Memory: f.size("memory_limit"),
		RecycleRequests: f.whole("recycle_requests"), RecycleMemory: f.size("recycle_memory"), IdleTimeout: f.number("idle_timeout"),
	}
	if f.text("min_workers") != "" {
		least := f.whole("min_workers")
		l.MinWorkers = &least
	}
	return l
}

// limitField is a limit of an endpoint in words and in its form.
type limitField struct {
	Name, Label, Value, Default string
}

// LimitFields are all limits, with the values that are set.
func (page endpointPage) LimitFields() []limitField {
	var l serving.Limits
	if page.Options.Limits != nil {
		l = *page.Options.Limits
	}
	number := func(n float64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	size := func(n int64) string {
		switch {
		case n == 0:
			return ""
		case n%(1<<20) == 0:
			return fmt.Sprintf("%dMiB", n>>20)
		}
		return strconv.FormatInt(n, 10)
	}
	least := ""
	if l.MinWorkers != nil {
		least = strconv.Itoa(*l.MinWorkers)
	}
	return []limitField{
		{"deadline", "Seconds for a request", number(l.Deadline), "the instance's"},
		{"min_workers", "Least workers", least, "the instance's"},
		{"max_workers", "Most workers", number(float64(l.MaxWorkers)), "the least"},
		{"idle_timeout", "Seconds idle", number(l.IdleTimeout), "60"},
		{"max_queue", "Requests waiting", number(float64(l.MaxQueue)), "4096"},
		{"memory_limit", "Memory of a worker", size(l.Memory), "any"},
		{"recycle_requests", "New worker after requests", number(float64(l.RecycleRequests)), "the instance's"},
		{"recycle_memory", "New worker above memory", size(l.RecycleMemory), "never"},
	}
}

// Percent is a share for a form.
func (endpointPage) Percent(share float64) string {
	return strconv.FormatFloat(share*100, 'f', -1, 64)
}

// Graph describes the graph that the endpoint is, empty for others.
func (page endpointPage) Graph() []serving.GraphLine {
	graph, err := serving.GraphOf(page.Record.EngineType, page.Record.AuxiliaryCfg)
	if err != nil || graph == nil {
		return nil // the state says what is wrong
	}
	return graph.Lines()
}

// IsGraph says that the endpoint is made of others, and has neither model nor code.
func (page endpointPage) IsGraph() bool { return page.Record.EngineType == serving.EngineGraph }

// Auxiliary are the settings of the engine, as text.
func (page endpointPage) Auxiliary() string {
	switch settings := page.Record.AuxiliaryCfg.(type) {
	case nil:
		return ""
	case string:
		return settings
	default:
		text, err := json.MarshalIndent(settings, "", "  ")
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
}
