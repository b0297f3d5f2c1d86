package ui

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// canaryRow is a canary as a bar of its shares.
type canaryRow struct {
	URL     string
	Prefix  string // of the endpoints, if they are chosen by one
	Shares  []share
	More    int // shares that are not shown
	Problem string
	// Live means that the shares are in use by an instance.
	Live    bool
	Rollout *rolloutRow // nil: it has no steps
}

// share is one part of a canary's bar.
type share struct {
	Endpoint string
	Weight   string // as configured
	Share    float64
	// From and Wide are the part's place in a bar that is 100 wide.
	From, Wide float64
	Series     int
}

// canaryRows shows the shares in use, or the configured ones while no instance serves the canary.
func canaryRows(config serving.Service, instances []instance) []canaryRow {
	live := map[serving.EndpointURL]serving.CanaryReport{}
	for _, i := range instances {
		if i.Alive() {
			for _, report := range i.Report.Canaries {
				live[report.URL] = report
			}
		}
	}
	var rows []canaryRow
	for _, key := range sortedKeys(config.Canaries) {
		c := config.Canaries[key]
		row := canaryRow{URL: string(serving.CleanURL(key)), Prefix: c.LoadEndpointPrefix}
		if report, ok := live[serving.CleanURL(key)]; ok && len(report.Shares) > 0 {
			row.Live, row.Problem = true, report.Problem
			row.Shares = liveShares(c, report.Shares)
		} else {
			row.Problem = report.Problem
			row.Shares = configuredShares(c)
		}
		row.Rollout = rolloutOf(config, serving.CleanURL(key), instances)
		row.Shares, row.More = firstOf(row.Shares, shownShares)
		lay(row.Shares)
		rows = append(rows, row)
	}
	return rows
}

func liveShares(c serving.Canary, shares map[serving.EndpointURL]float64) []share {
	var all []share
	for i, name := range c.LoadEndpoints {
		url := serving.CleanURL(name)
		all = append(all, share{Endpoint: string(url), Share: shares[url], Weight: weightAt(c, i)})
	}
	if len(all) > 0 {
		return all
	}
	urls := sortedKeys(shares)
	slices.SortStableFunc(urls, newestFirst)
	for i, url := range urls {
		all = append(all, share{Endpoint: string(url), Share: shares[url], Weight: weightAt(c, i)})
	}
	return all
}

// newestFirst compares endpoints by the number at their end, the order of a canary by prefix.
func newestFirst(a, b serving.EndpointURL) int {
	number := func(url serving.EndpointURL) int {
		_, last := cutLast(string(url))
		n, err := strconv.Atoi(last)
		if err != nil {
			return -1
		}
		return n
	}
	return number(b) - number(a)
}

func weightAt(c serving.Canary, i int) string {
	if i < 0 || i >= len(c.Weights) {
		return ""
	}
	return formatNumber(c.Weights[i])
}

func configuredShares(c serving.Canary) []share {
	total := 0.0
	for _, w := range c.Weights {
		total += w
	}
	var all []share
	for i, w := range c.Weights {
		name := fmt.Sprintf("%s… (newest %d)", c.LoadEndpointPrefix, i+1)
		if i < len(c.LoadEndpoints) {
			name = string(serving.CleanURL(c.LoadEndpoints[i]))
		}
		one := share{Endpoint: name, Weight: formatNumber(w)}
		if total > 0 {
			one.Share = w / total
		}
		all = append(all, one)
	}
	return all
}

// seriesColours is the number of colours for series in the style sheet.
const seriesColours = 8

// lay sets the place of each share in the bar.
func lay(shares []share) {
	round := func(f float64) float64 { return math.Round(f*100) / 100 }
	at := 0.0
	for i := range shares {
		shares[i].From, shares[i].Wide, shares[i].Series = round(at), round(shares[i].Share*100), i%seriesColours
		at += shares[i].Share * 100
	}
}

type canaryPage struct {
	Service, Name string
	URL           string
	New           bool
	Prefix        string
	Rows          []canaryField
	// Known are the endpoints that can take part.
	Known   []string
	Problem string
}

// canaryField is one line of the form.
type canaryField struct {
	Endpoint, Weight string
	Series           int
}

// spareFields is the number of empty lines for further endpoints.
const spareFields = 2

func (p *Pages) canaryForm(v *visit, s *operations.Service) error {
	page := newCanaryPage(s)
	page.URL = v.r.URL.Query().Get("endpoint")
	c, ok := serving.LookUp(s.Config.Canaries, page.URL)
	if page.New = page.URL == ""; !page.New && !ok {
		return refusal{http.StatusNotFound, fmt.Sprintf("The service %s has no canary %s.", s.Doc.Name, page.URL)}
	}
	page.Prefix = c.LoadEndpointPrefix
	for i := range max(len(c.Weights), len(c.LoadEndpoints)) {
		field := canaryField{Weight: weightAt(c, i), Series: i % seriesColours}
		if i < len(c.LoadEndpoints) {
			field.Endpoint = c.LoadEndpoints[i]
		}
		page.Rows = append(page.Rows, field)
	}
	page.addSpare()
	return v.render("canary", "Canary "+page.URL, page)
}

func newCanaryPage(s *operations.Service) canaryPage {
	page := canaryPage{Service: s.Doc.ID, Name: s.Doc.Name}
	for key := range s.Config.Endpoints {
		page.Known = append(page.Known, string(serving.CleanURL(key)))
	}
	for key := range s.Config.MonitoringEndpoints {
		page.Known = append(page.Known, string(serving.CleanURL(key)))
	}
	slices.Sort(page.Known)
	return page
}

func (page *canaryPage) addSpare() {
	for range spareFields {
		page.Rows = append(page.Rows, canaryField{Series: len(page.Rows) % seriesColours})
	}
}

// saveCanary stores a canary by the rules of the command line. A form with a mistake is shown
// again with a message.
func (p *Pages) saveCanary(v *visit, s *operations.Service) error {
	form := v.r.PostForm
	c, err := canaryOf(form)
	if err == nil {
		err = s.SetCanary(v.r.Context(), c, nil) // its weights are a person's from now on: steps end
	}
	if err == nil {
		return v.done("/services/"+s.Doc.ID, fmt.Sprintf("The canary %s is stored; instances follow it now.", serving.CleanURL(c.Endpoint)))
	}
	told := explain(err)
	if told.Status >= http.StatusInternalServerError && c.Validate() == nil {
		return err
	}
	page := newCanaryPage(s)
	page.URL, page.Prefix, page.New = form.Get("endpoint"), form.Get("prefix"), form.Get("new") != ""
	page.Problem = err.Error()
	for i, weight := range form["weight"] {
		field := canaryField{Weight: weight, Series: i % seriesColours}
		if i < len(form["target"]) {
			field.Endpoint = form["target"][i]
		}
		page.Rows = append(page.Rows, field)
	}
	return v.renderStatus(http.StatusBadRequest, "canary", "Canary "+page.URL, page)
}

var errNoWeight = errors.New("every endpoint needs a weight, and every weight an endpoint")

// canaryOf reads the form without its empty lines.
func canaryOf(form map[string][]string) (serving.Canary, error) {
	one := func(name string) string {
		if len(form[name]) == 0 {
			return ""
		}
		return strings.TrimSpace(form[name][0])
	}
	c := serving.Canary{Endpoint: one("endpoint"), LoadEndpointPrefix: one("prefix")}
	targets := form["target"]
	for i, text := range form["weight"] {
		target := ""
		if i < len(targets) {
			target = strings.TrimSpace(targets[i])
		}
		text = strings.TrimSpace(text)
		if text == "" && target == "" {
			continue
		}
		if c.LoadEndpointPrefix == "" && (text == "") != (target == "") {
			return c, errNoWeight
		}
		weight, err := strconv.ParseFloat(strings.ReplaceAll(text, ",", "."), 64)
		if err != nil {
			return c, fmt.Errorf("the weight %q is no number: write 0.1 or 10", text)
		}
		c.Weights = append(c.Weights, weight)
		if target != "" {
			c.LoadEndpoints = append(c.LoadEndpoints, target)
		}
	}
	return c, c.Validate()
}
