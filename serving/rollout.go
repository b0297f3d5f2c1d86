package serving

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"
)

// AllEndpoints is the key of the options of all endpoints without their own: a request log.
const AllEndpoints = "*"

// EndpointOptions are settings for one URL that do not change answers: recording, golden samples,
// shadow traffic, limits, feedback, request log, tools for agents, and whether it is loaded at all. They are a configuration object of this product; the original ignores it.
type EndpointOptions struct {
	Record *Record `record:"record"` // nil: off, as for the others
	Golden *Golden `record:"golden"`
	Shadow *Shadow `record:"shadow"`
	Limits *Limits `record:"limits"`
	// Feedback keeps predictions for comparison with what turns out to be true.
	Feedback *Feedback   `record:"feedback"`
	Log      *RequestLog `record:"request_log"`
	Unloaded *Unloaded   `record:"unloaded"`
	// Tool offers the URL to agents, over the Model Context Protocol.
	Tool    *Tool `record:"tool"`
	Unknown map[string]json.RawMessage
}

// Record makes instances keep a share of the live requests with their answers.
type Record struct {
	Share   float64  `record:"share,always"` // 0 to 1
	Max     int      `record:"max"`          // newest exchanges kept by each instance; 0: DefaultRecordMax
	Redact  []string `record:"redact"`       // fields that are blanked before anything is written; see RedactJSON
	Unknown map[string]json.RawMessage
}

// DefaultRecordMax is the default number of kept exchanges.
const DefaultRecordMax = 1000

// Limit returns the number of kept exchanges.
func (r Record) Limit() int {
	if r.Max > 0 {
		return r.Max
	}
	return DefaultRecordMax
}

// Golden names the exchanges that a new model, code or version must reproduce before it gets
// traffic.
type Golden struct {
	Artifact  string  `record:"artifact,always"`  // of the service's task, holding exchanges
	Tolerance float64 `record:"tolerance,always"` // for numbers; see Compare
	// Timeout in seconds bounds one answer; 0: the instance's request timeout.
	Timeout float64 `record:"timeout"`
	Unknown map[string]json.RawMessage
}

// Limit returns the time limit of one answer: the shorter of the golden samples' and the instance's
// limit, 0 for none.
func (g Golden) Limit(request time.Duration) time.Duration {
	own := time.Duration(g.Timeout * float64(time.Second))
	if own > 0 && (request <= 0 || own < request) {
		return own
	}
	return request
}

// Shadow sends a copy of a share of the requests to another URL; the answers are compared and
// discarded.
type Shadow struct {
	To        string  `record:"to,always"`
	Share     float64 `record:"share,always"` // 0 to 1
	Tolerance float64 `record:"tolerance"`    // for numbers; see Compare
	Unknown   map[string]json.RawMessage
}

func (o EndpointOptions) empty() bool {
	return o.Record == nil && o.Golden == nil && o.Shadow == nil && o.Limits == nil && o.Feedback == nil && o.Log == nil && o.Tool == nil && o.Unloaded == nil && len(o.Unknown) == 0
}

// over returns o, with missing options taken from below.
func (o EndpointOptions) over(below EndpointOptions) EndpointOptions {
	o.Record = cmp.Or(o.Record, below.Record)
	o.Golden = cmp.Or(o.Golden, below.Golden)
	o.Shadow = cmp.Or(o.Shadow, below.Shadow)
	o.Limits = cmp.Or(o.Limits, below.Limits)
	o.Feedback = cmp.Or(o.Feedback, below.Feedback)
	o.Log = cmp.Or(o.Log, below.Log)
	o.Unloaded = cmp.Or(o.Unloaded, below.Unloaded)
	return o
}

// optionsOf returns the options of a URL itself.
func (s Service) optionsOf(url EndpointURL) EndpointOptions {
	key, _ := existing(s.Options, string(url))
	return s.Options[key]
}

// resolveOptions returns the options of each planned endpoint and canary: its own, and for
// endpoints of a monitoring also those of the monitoring, option by option. Options of a URL that
// is not served have no effect until it is served.
func (p *Plan) resolveOptions(s Service) {
	p.Options = map[EndpointURL]EndpointOptions{}
	if len(s.Options) == 0 {
		return
	}
	for _, url := range slices.Sorted(maps.Keys(p.Canaries)) {
		p.Options[url] = s.optionsOf(url)
		if p.Options[url].Golden != nil && !s.isEndpoint(string(url)) {
			p.problem(SectionOptions, string(url), "golden samples of a canary judge nothing: attach them to the endpoints that it chooses among")
		}
	}
	for url, e := range p.Endpoints {
		own := s.optionsOf(url)
		if e.Monitoring != "" {
			own = own.over(s.optionsOf(CleanURL(e.Monitoring)))
		}
		own = own.over(EndpointOptions{Log: s.Options[AllEndpoints].Log})
		p.Options[url] = own
	}
	maps.DeleteFunc(p.Options, func(_ EndpointURL, o EndpointOptions) bool { return o.empty() })
	for url, o := range p.Options {
		if o.Shadow != nil && CleanURL(o.Shadow.To) == url {
			o.Shadow = nil // a canary or a version that would copy to itself
			p.Options[url] = o
		}
	}
}

// SetOptions changes the options of a URL, which need not be served yet, and drops a record that
// could not be read. Empty options are removed.
func (s *Service) SetOptions(url string, change func(*EndpointOptions)) error {
	if url != AllEndpoints {
		if err := validateURL("endpoint", url); err != nil {
			return err
		}
	}
	key, _ := existing(s.Options, string(CleanURL(url)))
	options := s.Options[key]
	before := options.Golden
	change(&options)
	if options.Golden != nil && options.Golden != before {
		if err := s.MayHaveGolden(url); err != nil {
			return err
		}
	}
	if err := options.validate(CleanURL(url)); err != nil {
		return err
	}
	next := cloned(s.Options)
	delete(next, key)
	if !options.empty() {
		next[string(CleanURL(url))] = options
	}
	s.Options = next
	s.forget(SectionOptions, string(CleanURL(url)))
	return nil
}

// Serves reports whether the URL is an endpoint, a canary, or a monitoring (for all its versions).
func (s Service) Serves(url EndpointURL) bool {
	key := string(url)
	_, static := existing(s.Endpoints, key)
	_, made := existing(s.MonitoringEndpoints, key)
	_, monitoring := existing(s.Monitoring, key)
	_, canary := existing(s.Canaries, key)
	return static || made || monitoring || canary
}

// MayHaveGolden says why golden samples of a URL would have no effect: it is a canary.
func (s Service) MayHaveGolden(url string) error {
	if _, canary := existing(s.Canaries, string(CleanURL(url))); canary && !s.isEndpoint(url) {
		return fmt.Errorf("golden: '%s' is a canary, which has no model to judge: attach the samples to the endpoints that it chooses among", CleanURL(url))
	}
	return nil
}

// isEndpoint reports whether the URL has models of its own.
func (s Service) isEndpoint(url string) bool {
	key := string(CleanURL(url))
	_, static := existing(s.Endpoints, key)
	_, monitoring := existing(s.Monitoring, key)
	_, made := existing(s.MonitoringEndpoints, key)
	return static || monitoring || made
}

func (o EndpointOptions) validate(url EndpointURL) error {
	if all := (EndpointOptions{Log: o.Log, Unknown: o.Unknown}); url == AllEndpoints && !reflect.DeepEqual(o, all) {
		return errors.New("only the request log can be set for all endpoints (*)")
	}
	if r := o.Record; r != nil {
		if err := validateShare(r.Share); err != nil {
			return fmt.Errorf("record: %w", err)
		}
		if r.Max < 0 || r.Max > maxRecordMax {
			return fmt.Errorf("record: %w", &FieldError{Field: "max", Value: fmt.Sprint(r.Max), Why: fmt.Sprintf("is not usable: give 1 to %d", maxRecordMax)})
		}
		if err := validateRedact(r.Redact); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	if g := o.Golden; g != nil {
		if g.Artifact == "" {
			return fmt.Errorf("golden: %w", &FieldError{Field: "artifact", Why: "is missing"})
		}
		if err := validateTolerance(g.Tolerance); err != nil {
			return fmt.Errorf("golden: %w", err)
		}
		if math.IsNaN(g.Timeout) || g.Timeout < 0 || g.Timeout > maxTimeout {
			return fmt.Errorf("golden: %w", &FieldError{Field: "timeout", Value: fmt.Sprint(g.Timeout), Why: "is not a number of seconds"})
		}
	}
	if sh := o.Shadow; sh != nil {
		if err := validateURL("to", sh.To); err != nil {
			return fmt.Errorf("shadow: %w", err)
		}
		if CleanURL(sh.To) == url {
			return fmt.Errorf("shadow: endpoint '%s' would copy its requests to itself", url)
		}
		if err := validateShare(sh.Share); err != nil {
			return fmt.Errorf("shadow: %w", err)
		}
		if err := validateTolerance(sh.Tolerance); err != nil {
			return fmt.Errorf("shadow: %w", err)
		}
	}
	if o.Limits != nil {
		if err := o.Limits.validate(); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
	}
	if o.Feedback != nil {
		if err := o.Feedback.validate(); err != nil {
			return fmt.Errorf("feedback: %w", err)
		}
	}
	if o.Log != nil {
		if err := o.Log.validate(); err != nil {
			return fmt.Errorf("request_log: %w", err)
		}
	}
	if o.Tool != nil {
		if err := o.Tool.validate(); err != nil {
			return fmt.Errorf("tool: %w", err)
		}
	}
	return nil
}

const (
	maxRecordMax = 1_000_000
	maxTimeout   = 24 * 3600
)

func validateShare(share float64) error {
	if math.IsNaN(share) || share <= 0 || share > 1 {
		return &FieldError{Field: "share", Value: fmt.Sprint(share), Why: "is not a share of requests: give a number above 0, at most 1"}
	}
	return nil
}

func validateTolerance(t float64) error {
	if math.IsNaN(t) || math.IsInf(t, 0) || t < 0 {
		return &FieldError{Field: "tolerance", Value: fmt.Sprint(t), Why: "is not a tolerance: give a number, 0 or more"}
	}
	return nil
}

func (r *Record) setDefaults() { r.Share = 1 }

func (s *Shadow) setDefaults() { s.Share = 1 }

func (l *RequestLog) setDefaults() { l.Share = 1 }

func decodeOptions(key string, f *fields) (o EndpointOptions, err error) {
	if f.into(&o); f.err != nil {
		return o, f.err
	}
	return o, o.validate(CleanURL(key))
}

func (f *fields) numberOr(name string, otherwise float64) float64 {
	if n := f.optionalNumber(name); n != nil {
		return *n
	}
	return otherwise
}
