package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

type servicesPage struct {
	Services []serviceRow
}

type serviceRow struct {
	Doc                            clearml.Service
	Endpoints, Canaries, Instances int
	Unreadable                     int // records
	Troubles                       []trouble
	serving.Counts
}

func (p *Pages) services(v *visit) error {
	rows, err := v.serviceRows()
	if err != nil {
		return err
	}
	return v.render("services", "Serving services", servicesPage{rows})
}

func (p *Pages) createService(v *visit) error {
	form := v.r.PostForm
	name := strings.TrimSpace(form.Get("name"))
	if name == "" {
		return refusal{http.StatusBadRequest, "The service needs a name."}
	}
	id, err := v.api.CreateService(v.r.Context(), clearml.NewService{Name: name, Project: cmp.Or(strings.TrimSpace(form.Get("project")), "DevOps"), Tags: words(form.Get("tags"))})
	if err != nil {
		return err
	}
	return v.done("/services/"+id, "The serving service is created. Add an endpoint to it.")
}

type servicePage struct {
	Doc *clearml.Service
	// Address is where clients send requests, "" when it is not known.
	Address      string
	Instances    []instance
	Health       map[string]health // of the machines, by the names of the instances
	Endpoints    []endpointRow
	Part         part // of the endpoints
	Canaries     []canaryRow
	MoreCanaries int // that are not shown
	Monitoring   []serving.Monitoring
	MoreRules    int // monitoring rules that are not shown
	Metrics      []metricRow
	MoreMetrics  int // rows that are not shown
	Broken       []serving.BrokenRecord
	Problems     []serving.Problem
	MoreProblems int // that are not shown, broken records included
	// Sparks says that the rows have small charts; NoSparks why they cannot be read.
	Sparks   bool
	NoSparks string
	// Reported is the time of the oldest report that the endpoints' counts come from.
	Reported time.Time
	// KeysRequired means that requests need one of Keys; Fresh was just made.
	KeysRequired bool
	Keys         []keyRow
	Fresh        *freshKey
}

// endpointRow is one url with its configuration and its state.
type endpointRow struct {
	URL        string
	Engine     string
	Model      ref
	Monitoring string // the rule that created it, "" for a static endpoint
	Code       string
	Live       []liveState
	State      serving.State
	Reason     string
	Options    serving.EndpointOptions
	// Rate and P99 are small charts of the last hour, nil for none.
	Rate, P99 *spark
	serving.Counts
}

// liveState is the state of an endpoint on one instance.
type liveState struct {
	Instance string
	Task     string // of the instance
	Digest   string // of the configuration that it serves
	serving.EndpointReport
}

// follow makes the state "pending" while an instance has not taken up the stored configuration,
// which has this digest.
func (row *endpointRow) follow(stored string, instances []instance) {
	pending := len(row.Live) == 0 && slices.ContainsFunc(instances, instance.Alive)
	for _, live := range row.Live {
		pending = pending || (live.Digest != "" && live.Digest != stored)
	}
	if pending {
		row.State, row.Reason = statePending, ""
	}
}

type metricRow struct {
	Endpoint  string
	Frequency string
	Variables []string
}

func (p *Pages) service(v *visit, s *operations.Service) error {
	return v.showService(s, nil)
}

func (v *visit) showService(s *operations.Service, fresh *freshKey) error {
	instances, err := v.instances(s.Doc.ID)
	if err != nil {
		return err
	}
	page := servicePage{
		Doc: s.Doc, Address: addressOf(s.Config, instances), Instances: instances, Broken: s.Config.Broken, Canaries: canaryRows(s.Config, instances),
		Reported: oldestAlive(instances), KeysRequired: s.Config.Access.Required, Keys: v.p.keyRows(s), Fresh: fresh,
	}
	rows, err := v.endpointRows(s.Config, instances)
	if err != nil {
		return err
	}
	page.Endpoints, page.Part = partOf(v, rows, shownEndpoints)
	targets := make([]target, len(page.Endpoints))
	for i, row := range page.Endpoints {
		targets[i] = targetOf(s.Config, row.URL)
	}
	page.Health = v.healthOf(s.Doc.ID)
	if page.Sparks = v.p.opts.Series != nil; page.Sparks {
		if err := v.sparks(s.Doc.ID, page.Endpoints, targets); err != nil {
			page.NoSparks = err.Error()
		}
	}
	if more := len(page.Canaries) - shownCanaries; more > 0 {
		page.Canaries, page.MoreCanaries = page.Canaries[:shownCanaries], more
	}
	for _, key := range sortedKeys(s.Config.Monitoring) {
		page.Monitoring = append(page.Monitoring, briefRule(s.Config.Monitoring[key]))
	}
	page.Monitoring, page.MoreRules = firstOf(page.Monitoring, shownRules)
	for _, key := range sortedKeys(s.Config.Metrics) {
		page.Metrics = append(page.Metrics, metricRowOf(key, s.Config.Metrics[key]))
	}
	page.Metrics, page.MoreMetrics = firstOf(page.Metrics, shownMetrics)
	for _, i := range instances {
		for _, problem := range i.Report.Problems {
			problem.Text = serving.Shorten(problem.Text, longestReason)
			if !slices.Contains(page.Problems, problem) {
				page.Problems = append(page.Problems, problem)
			}
		}
	}
	var more int
	page.Broken, page.MoreProblems = firstOf(page.Broken, shownProblems)
	page.Problems, more = firstOf(page.Problems, shownProblems)
	page.MoreProblems += more
	return v.render("service", s.Doc.Name, page)
}

// How much of a service is on one page, and how much of a text.
const (
	shownEndpoints = 50
	shownCanaries  = 20
	shownShares    = 50 // of a canary
	shownRules     = 20
	shownMetrics   = 50
	shownProblems  = 20
	longestReason  = 300
	longestNames   = 300 // of the variables of a row, and of the tags of a rule
)

// firstOf returns the first elements, and how many are left out.
func firstOf[T any](all []T, most int) (first []T, more int) {
	if len(all) <= most {
		return all, 0
	}
	return all[:most:most], len(all) - most
}

// clipAll bounds the sum of some texts.
func clipAll(texts []string, most int) []string {
	var kept []string
	for i, text := range texts {
		if most <= 0 {
			return append(kept, fmt.Sprintf("and %d more", len(texts)-i))
		}
		text = serving.Shorten(text, most)
		kept, most = append(kept, text), most-len(text)
	}
	return kept
}

// briefRule is a rule as far as a page has room for it.
func briefRule(rule serving.Monitoring) serving.Monitoring {
	rule.Name, rule.Project, rule.Tags = serving.Shorten(rule.Name, longestReason), serving.Shorten(rule.Project, longestReason), clipAll(rule.Tags, longestNames)
	return rule
}

func metricRowOf(key string, m serving.MetricLogging) metricRow {
	row := metricRow{Endpoint: key, Frequency: "the service's"}
	if m.LogFrequency != nil {
		row.Frequency = formatNumber(*m.LogFrequency*100) + " %"
	}
	for _, name := range sortedKeys(m.Metrics) {
		text := name + " (" + m.Metrics[name].Type
		if buckets := m.Metrics[name].Buckets; len(buckets) > 0 {
			text += ": " + strings.Trim(fmt.Sprint(buckets), "[]")
		}
		row.Variables = append(row.Variables, text+")")
	}
	row.Variables = clipAll(row.Variables, longestNames)
	return row
}

// endpointRows joins the configuration with the reports of the instances.
func (v *visit) endpointRows(config serving.Service, instances []instance) ([]endpointRow, error) {
	rows := map[string]*endpointRow{}
	var ids []string
	add := func(url string, e serving.Endpoint, monitoring string) {
		rows[url] = &endpointRow{URL: url, Engine: e.EngineType, Model: ref{ID: string(e.ModelID)}, Monitoring: monitoring, Code: e.PreprocessArtifact}
		if e.ModelID != "" {
			ids = append(ids, string(e.ModelID))
		}
	}
	for key, e := range config.MonitoringEndpoints {
		by, _ := cutLast(key)
		add(string(serving.CleanURL(key)), e, by)
	}
	for key, e := range config.Endpoints {
		add(string(serving.CleanURL(key)), e, "")
	}
	for _, i := range instances {
		if !i.Alive() {
			continue
		}
		for _, report := range i.Report.Endpoints {
			if i.Report.Role != "" && report.State == serving.StateReady {
				continue // it answers no requests: what matters is why it cannot hold the model
			}
			url := string(report.URL)
			row := rows[url]
			if row == nil {
				row = &endpointRow{URL: url, Engine: report.Engine, Model: ref{ID: string(report.ModelID)}, Monitoring: report.Monitoring}
				rows[url] = row
			}
			report.Model.LastDeath = serving.Shorten(report.Model.LastDeath, longestReason)
			row.Live = append(row.Live, liveState{i.Name(), i.TaskID, i.Report.Digests[report.URL], report})
		}
	}
	models, err := v.readModels(ids)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, m := range models {
		names[m.ID] = m.Name
	}
	var all []endpointRow
	for _, url := range sortedKeys(rows) {
		row := rows[url]
		row.Model.Name = names[row.Model.ID]
		row.Options, _ = serving.LookUp(config.Options, url)
		row.sum()
		all = append(all, *row)
	}
	return all, nil
}

// statePending is the state of an endpoint while an instance has not taken up what is stored.
const statePending serving.State = "pending"

// sum sets the state to the worst one of all instances, and adds up the counts.
func (row *endpointRow) sum() {
	worst := []serving.State{serving.StateFailed, serving.StateRefused, serving.StateDegraded, serving.StateUpdating, serving.StateLoading, serving.StateUnloaded, serving.StateReady}
	row.State = "not served"
	at := len(worst)
	for _, live := range row.Live {
		row.Add(live.Counts)
		n := slices.Index(worst, live.State)
		if n >= 0 && n < at {
			at, row.State, row.Reason = n, live.State, serving.Shorten(live.Note(), longestReason)
		} else if n < 0 && at == len(worst) {
			row.State = live.State
		}
	}
}

// cutLast separates the last part of a url.
func cutLast(url string) (before, last string) {
	i := strings.LastIndexByte(url, '/')
	if i < 0 {
		return url, ""
	}
	return url[:i], url[i+1:]
}

func (p *Pages) removeEndpoint(v *visit, s *operations.Service) error {
	url := v.r.PostForm.Get("endpoint")
	removed, err := s.Remove(v.r.Context(), url)
	if err != nil {
		return err
	}
	return v.done("/services/"+s.Doc.ID, fmt.Sprintf("Removed the %s %s. The history can bring it back.", removed, url))
}

// removeMetrics removes the logging of an endpoint's values.
func (p *Pages) removeMetrics(v *visit, s *operations.Service) error {
	endpoint := v.r.PostForm.Get("endpoint")
	err := s.Edit(v.r.Context(), func(c *serving.Service) (serving.Section, error) {
		return serving.SectionMetrics, c.RemoveMetrics(endpoint, nil)
	})
	if err != nil {
		return err
	}
	return v.done("/services/"+s.Doc.ID, fmt.Sprintf("Values of %s are not logged any more. The history can bring that back.", endpoint))
}

// instance is a process of a service with its own report.
type instance struct {
	clearml.Instance
	Report serving.InstanceReport
	now    time.Time
	// Trouble is why the report cannot be read, "" if it can.
	Trouble string
}

// Alive reports whether the instance has given a sign of life recently.
func (i instance) Alive() bool { return serving.Alive(i.Seen, i.now) }

// State is running, or lost when the instance is not alive.
func (i instance) State() string {
	if i.Alive() {
		return "running"
	}
	return "lost"
}

// Reported is when the instance's report was made.
func (i instance) Reported() time.Time { return i.Report.At(i.Seen) }

// oldestAlive is the time of the oldest report of the instances that are alive; zero if none is.
func oldestAlive(instances []instance) time.Time {
	var oldest time.Time
	for _, i := range instances {
		if i.Alive() && (oldest.IsZero() || i.Reported().Before(oldest)) {
			oldest = i.Reported()
		}
	}
	return oldest
}

// Name is the name in the instance's report, or its task's id.
func (i instance) Name() string { return cmp.Or(i.Report.Name, shortID(i.TaskID)) }

// instances lists the instances of some services, running or lost.
func (v *visit) instances(services ...string) ([]instance, error) {
	listed, err := v.api.InstancesOf(v.r.Context(), services, "inference")
	var found []instance
	for _, one := range listed {
		i := instance{Instance: one, now: v.api.ServerTime()}
		if one.Report != "" {
			if i.Report, err = serving.ParseReport(one.Report); err != nil {
				i.Trouble = err.Error()
			}
		}
		found = append(found, i)
	}
	return found, err
}

type instancePage struct {
	Doc      *clearml.Service
	Instance instance
	// Endpoints are some of those in the instance's report.
	Endpoints []serving.EndpointReport
	Part      part
	Console   console
	Charts    charted
	Machine   []scalarMetric
}

func (p *Pages) instance(v *visit, s *operations.Service) error {
	task := v.r.PathValue("task")
	instances, err := v.instances(s.Doc.ID)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(instances, func(i instance) bool { return i.TaskID == task })
	if at < 0 {
		return refusal{http.StatusNotFound, "This instance has ended. Its console stays on the experiment of its task."}
	}
	page := instancePage{Doc: s.Doc, Instance: instances[at]}
	page.Endpoints, page.Part = partOf(v, page.Instance.Report.Endpoints, shownEndpoints)
	if page.Console, err = v.console(task); err != nil {
		return err
	}
	page.Console.Live = page.Instance.Alive() && !page.Console.Past
	page.Charts = v.charted(withQuery("/services/"+s.Doc.ID+"/charts.json", "instance", page.Instance.Name()), machineGroups("")...)
	if page.Charts.Missing != "" { // what the instance has reported to its task
		if page.Machine, err = v.scalarMetrics([]string{task}); err != nil {
			return err
		}
	}
	return v.render("instance", page.Instance.Name(), page)
}
