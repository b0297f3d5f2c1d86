package serving

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Plan is what a service's configuration asks to be served at one moment.
type Plan struct {
	Endpoints map[EndpointURL]PlannedEndpoint
	Canaries  map[EndpointURL]CanaryTable
	Options   map[EndpointURL]EndpointOptions // of those endpoints and canaries that have some
	Access    Access
	Problems  []Problem // records that are left out or only partly used, and why
	// Unclear says why it is not known which urls are configured, "" when it is: a
	// section that defines urls cannot be read and has no last good form.
	Unclear string
	// Unusable holds the urls whose records cannot be read and have no last good form.
	Unusable map[EndpointURL]string
}

// PlannedEndpoint is an endpoint to serve, with where it comes from.
type PlannedEndpoint struct {
	Endpoint
	Monitoring string     // base url of the monitoring that made it, "" for a static one
	Code       *ModelCode // code that the model brings, instead of the preprocess artifact
	Metrics    MetricLogging
}

// Problem says what of the configuration is not served as written.
type Problem struct {
	Section Section
	Key     string
	Text    string
}

// String names the section, the record and what is wrong with it.
func (p Problem) String() string {
	where := string(p.Section)
	if p.Key != "" {
		where += " " + strconv.Quote(p.Key)
	}
	if strings.HasPrefix(p.Text, where) {
		return p.Text
	}
	return where + ": " + p.Text
}

// Resolve turns configuration and the models that monitoring found (per base
// url, newest first, already cut to the monitoring's maximum) into a plan. The
// versions must hold a number for every model: see Versions.Assign.
func Resolve(s Service, found map[string][]MonitoredModel, versions Versions) Plan {
	p := Plan{Endpoints: map[EndpointURL]PlannedEndpoint{}, Canaries: map[EndpointURL]CanaryTable{}}
	for _, b := range s.Broken {
		p.problem(b.Section, b.Key, b.Err.Error())
		p.unusable(b)
	}
	if _, err := s.Parameters.LogShare(1); err != nil {
		p.problem(SectionGeneral, ParamMetricLoggingFreq, err.Error())
	}
	for _, key := range slices.Sorted(maps.Keys(s.Endpoints)) {
		e := s.Endpoints[key]
		p.add(SectionEndpoints, key, CleanURL(key), PlannedEndpoint{Endpoint: e})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Monitoring)) {
		p.addMonitored(key, s.Monitoring[key], found, versions)
	}
	exists := make(map[EndpointURL]bool, len(p.Endpoints))
	for url := range p.Endpoints {
		exists[url] = true
	}
	canaries := make(map[EndpointURL]bool, len(s.Canaries))
	for key := range s.Canaries {
		canaries[CleanURL(key)] = true
	}
	for _, key := range slices.Sorted(maps.Keys(s.Canaries)) {
		table := resolveCanary(s.Canaries[key], exists, canaries)
		if table.Problem != "" {
			p.problem(SectionCanary, key, table.Problem)
		}
		p.Canaries[CleanURL(key)] = table
	}
	for url, e := range p.Endpoints {
		e.Metrics = s.MetricsFor(url)
		p.Endpoints[url] = e
	}
	p.resolveOptions(s)
	p.Access = s.accessInForce()
	return p
}

func (p *Plan) addMonitored(key string, m Monitoring, found map[string][]MonitoredModel, versions Versions) {
	base := string(CleanURL(m.BaseServingURL))
	for _, model := range found[key] {
		n, numbered := versions[base][model.ID]
		if !numbered {
			p.problem(SectionMonitoring, key, fmt.Sprintf("model %s has no version number yet", model.ID))
			continue
		}
		e := Endpoint{
			EngineType: m.EngineType, ServingURL: base, Version: strconv.Itoa(n), ModelID: model.ID,
			PreprocessArtifact: m.PreprocessArtifact, Tensors: m.Tensors, AuxiliaryCfg: m.AuxiliaryCfg,
		}
		p.add(SectionMonitoring, key, e.URL(), PlannedEndpoint{Endpoint: e, Monitoring: key, Code: model.Code})
	}
}

// add keeps the first of two records that mean the same url: static endpoints
// come before monitored ones, as in the original.
func (p *Plan) add(section Section, key string, url EndpointURL, e PlannedEndpoint) {
	if _, taken := p.Endpoints[url]; taken {
		p.problem(section, key, fmt.Sprintf("url %q is taken by another endpoint", url))
		return
	}
	p.Endpoints[url] = e
}

func (p *Plan) problem(section Section, key, text string) {
	p.Problems = append(p.Problems, Problem{Section: section, Key: key, Text: text})
}

// unusable remembers the urls that a broken record or section leaves unanswered.
func (p *Plan) unusable(b BrokenRecord) {
	defines := b.Section == SectionEndpoints || b.Section == SectionMonitoring || b.Section == SectionCanary
	switch {
	case b.Kept || !defines:
	case b.Key == "":
		p.Unclear = b.Err.Error()
	default:
		if p.Unusable == nil {
			p.Unusable = map[EndpointURL]string{}
		}
		p.Unusable[CleanURL(b.Key)] = b.Err.Error()
	}
}

// MonitoringRecords returns the endpoints that monitoring made, in the form in
// which they are written back to the control plane.
func (p Plan) MonitoringRecords() map[string]Endpoint {
	records := map[string]Endpoint{}
	for url, e := range p.Endpoints {
		if e.Monitoring != "" {
			records[string(url)] = e.Endpoint
		}
	}
	return records
}

// MetricsFor returns what is logged for a url: an exact definition wins over a
// wildcard, a longer wildcard over a shorter one.
func (s Service) MetricsFor(url EndpointURL) MetricLogging {
	best, length := MetricLogging{}, -1
	for key, m := range s.Metrics {
		name := string(CleanURL(key))
		if name == string(url) {
			return m
		}
		prefix, wildcard := strings.CutSuffix(name, "*")
		if wildcard && strings.HasPrefix(string(url), prefix) && len(prefix) > length {
			best, length = m, len(prefix)
		}
	}
	return best
}
