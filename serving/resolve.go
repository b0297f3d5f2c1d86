package serving

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Plan is the set of endpoints that a service's configuration defines at one moment.
type Plan struct {
	Endpoints map[EndpointURL]PlannedEndpoint
	Canaries  map[EndpointURL]CanaryTable
	Options   map[EndpointURL]EndpointOptions // of those endpoints and canaries that have options
	Rollouts  map[EndpointURL]Rollout         // of canaries with steps
	Access    Access
	Problems  []Problem // records that are omitted or only partly used, and why
	// Unclear says why the configured URLs are unknown, "" if they are known: a section that
	// defines URLs cannot be read and has no last good form.
	Unclear string
	// Unusable has the URLs whose records cannot be read and have no last good form.
	Unusable map[EndpointURL]string
}

// PlannedEndpoint is an endpoint to serve, with its origin.
type PlannedEndpoint struct {
	Endpoint
	Monitoring string        // base URL of the monitoring that made it, "" for a static endpoint
	Code       *ModelCode    // code of the model, used instead of the preprocess artifact
	State      RevisionState // of a version made by a monitoring: see MonitoredModel
	Unready    bool          // a version that gets no share yet: other versions can answer
	Unloaded   *Unloaded     // it is out of service; nil: it is not
	Metrics    MetricLogging
	Drift      DriftSettings
	// Parameters are the settings of the service.
	Parameters Parameters
	// Reference is a summary of the data that variables are compared with, in the form of package
	// drift: that of the settings, or of the model. Nil: none.
	Reference json.RawMessage
}

// Problem is a part of the configuration that is not served as written.
type Problem struct {
	Section Section
	Key     string
	Text    string
}

// String has the section, the record and the problem.
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

// Resolve turns the configuration and the models found by monitoring (per base URL, newest first)
// into a plan. The versions must have a number for every model: see Versions.Assign. Beyond the
// monitoring's maximum, models whose versions were good are planned as long as newer ones are not.
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
	usable := make(map[EndpointURL]bool, len(p.Endpoints))
	for url, e := range p.Endpoints {
		e.Unloaded = s.unloaded(url, e)
		p.Endpoints[url] = e
		usable[url] = e.State != RevisionRefused && !e.Unready && e.Unloaded == nil
	}
	canaries := make(map[EndpointURL]bool, len(s.Canaries))
	for key := range s.Canaries {
		canaries[CleanURL(key)] = true
	}
	for _, key := range slices.Sorted(maps.Keys(s.Canaries)) {
		table := resolveCanary(s.Canaries[key], usable, canaries)
		if table.Problem != "" {
			p.problem(SectionCanary, key, table.Problem)
		}
		p.Canaries[CleanURL(key)] = table
	}
	for url, e := range p.Endpoints {
		e.Metrics = s.MetricsFor(url)
		e.Drift = s.DriftFor(url)
		e.Reference = e.Drift.Reference
		e.Parameters = s.Parameters
		p.Endpoints[url] = e
	}
	p.resolveOptions(s)
	p.resolveRollouts(s)
	p.Access = s.accessInForce()
	return p
}

// addMonitored plans the newest versions, and older ones that answer until the newest can: good ones,
// and on an instance those that are live while fewer newer ones are.
func (p *Plan) addMonitored(key string, m Monitoring, found map[string][]MonitoredModel, versions Versions) {
	base := string(CleanURL(m.BaseServingURL))
	good, live := 0, 0
	var planned []MonitoredModel
	for i, model := range found[key] {
		newest := m.MaxVersions <= 0 || i < m.MaxVersions
		fallback := (model.State == RevisionGood && good < m.MaxVersions) || (model.Live && live < m.MaxVersions)
		if !newest && !fallback {
			continue
		}
		if model.State == RevisionGood {
			good++
		}
		if model.Live {
			live++
		}
		planned = append(planned, model)
	}
	answers := func(model MonitoredModel) bool { return model.Live || (live == 0 && model.State == RevisionGood) }
	one := slices.ContainsFunc(planned, answers)
	for _, model := range planned {
		n, numbered := versions[base][model.ID]
		if !numbered {
			p.problem(SectionMonitoring, key, fmt.Sprintf("model %s has no version number yet", model.ID))
			continue
		}
		e := m.Version(n, model.ID)
		p.add(SectionMonitoring, key, e.URL(), PlannedEndpoint{Endpoint: e, Monitoring: key, Code: model.Code, State: model.State, Unready: one && !answers(model)})
	}
}

// Version is the endpoint that a monitoring makes for a model.
func (m Monitoring) Version(number int, id ModelID) Endpoint {
	return Endpoint{
		EngineType: m.EngineType, ServingURL: string(CleanURL(m.BaseServingURL)), Version: strconv.Itoa(number), ModelID: id,
		PreprocessArtifact: m.PreprocessArtifact, Tensors: m.Tensors, AuxiliaryCfg: m.AuxiliaryCfg,
	}
}

// add keeps the first of two records for the same URL: static endpoints come before monitored ones,
// as in the original.
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

// unusable collects the URLs that a broken record or section leaves unanswered.
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

// MonitoringRecords returns the endpoints made by monitoring, in the form in which they are written
// back to the control plane.
func (p Plan) MonitoringRecords() map[string]Endpoint {
	records := map[string]Endpoint{}
	for url, e := range p.Endpoints {
		if e.Monitoring != "" {
			records[string(url)] = e.Endpoint
		}
	}
	return records
}

// MetricsFor returns the logged metrics of a URL: an exact definition wins over a wildcard, a
// longer wildcard over a shorter one.
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
