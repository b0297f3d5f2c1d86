package serving

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// DriftSettings say what is drift at an endpoint or, when Endpoint ends in "*", at every endpoint
// below that prefix. Fields that are not set are those of a shorter prefix, or the defaults.
type DriftSettings struct {
	Endpoint string `record:"endpoint,required"`
	// Reference replaces that of the model: a summary in the form of package drift.
	Reference json.RawMessage
	// FalseAlarms are allowed within Days, over all variables of the service.
	FalseAlarms *float64 `record:"false_alarms"`
	Days        *float64 `record:"days"`
	MinPSI      *float64 `record:"min_psi"` // smaller drift is no drift
	Ignore      []string `record:"ignore"`  // variables that are not watched; "*" for all
	Unknown     map[string]json.RawMessage
}

// MetadataReference is the key of a model's metadata that has the reference of its variables.
const MetadataReference = "clearml_serving_reference"

// MaxReference bounds the bytes of a reference.
const MaxReference = 1 << 20

// DriftFor returns the settings of a URL: each field of the most specific record that has it.
func (s Service) DriftFor(url EndpointURL) DriftSettings {
	type match struct {
		settings DriftSettings
		length   int
	}
	var found []match
	for key, d := range s.Drift {
		name := string(CleanURL(key))
		prefix, wildcard := strings.CutSuffix(name, "*")
		switch {
		case name == string(url):
			found = append(found, match{d, math.MaxInt})
		case wildcard && strings.HasPrefix(string(url), prefix):
			found = append(found, match{d, len(prefix)})
		}
	}
	slices.SortFunc(found, func(a, b match) int { return cmp.Compare(b.length, a.length) })
	all := DriftSettings{Endpoint: string(url)}
	for _, m := range found {
		all.Reference = firstSet(all.Reference, m.settings.Reference)
		all.Ignore = firstSet(all.Ignore, m.settings.Ignore)
		all.FalseAlarms = cmp.Or(all.FalseAlarms, m.settings.FalseAlarms)
		all.Days = cmp.Or(all.Days, m.settings.Days)
		all.MinPSI = cmp.Or(all.MinPSI, m.settings.MinPSI)
	}
	return all
}

func firstSet[S ~[]E, E any](a, b S) S {
	if a != nil {
		return a
	}
	return b
}

// Watches reports whether a variable is not ignored.
func (d DriftSettings) Watches(variable string) bool {
	return !slices.Contains(d.Ignore, variable) && !slices.Contains(d.Ignore, "*")
}

// Validate checks a record before it is stored.
func (d DriftSettings) Validate() error {
	if d.Endpoint == "" {
		return &FieldError{Field: "endpoint", Why: "is missing"}
	}
	positive := func(field string, value *float64, most float64) error {
		if value != nil && !(*value > 0 && *value <= most) {
			return &FieldError{Field: field, Value: fmt.Sprint(*value), Why: fmt.Sprintf("is not usable: give a number above 0, at most %g", most)}
		}
		return nil
	}
	if err := cmp.Or(positive("false_alarms", d.FalseAlarms, 1e6), positive("days", d.Days, 36500)); err != nil {
		return err
	}
	if p := d.MinPSI; p != nil && !(*p >= 0 && *p <= 10) {
		return &FieldError{Field: "min_psi", Value: fmt.Sprint(*p), Why: "is not usable: give a number from 0 to 10"}
	}
	if len(d.Reference) > MaxReference {
		return &FieldError{Field: "reference", Why: fmt.Sprintf("has %d bytes, at most %d are stored", len(d.Reference), MaxReference)}
	}
	return nil
}

func (d DriftSettings) empty() bool {
	return d.Reference == nil && d.FalseAlarms == nil && d.Days == nil && d.MinPSI == nil && d.Ignore == nil && len(d.Unknown) == 0
}

// SetDrift changes the settings of an endpoint or a prefix, and drops a record that could not be read.
// Empty settings are removed.
func (s *Service) SetDrift(endpoint string, change func(*DriftSettings)) error {
	key := string(CleanURL(endpoint))
	if !strings.HasSuffix(key, "*") {
		if err := validateURL("endpoint", key); err != nil {
			return err
		}
		if !s.canLog(key) {
			return fmt.Errorf("drift: there is no endpoint '%s': %w", key, ErrNotFound)
		}
	}
	old, _ := existing(s.Drift, key)
	d := s.Drift[old]
	change(&d)
	d.Endpoint = key
	if err := d.Validate(); err != nil {
		return err
	}
	next := cloned(s.Drift)
	delete(next, old)
	if !d.empty() {
		next[key] = d
	}
	s.Drift = next
	s.forget(SectionDrift, key)
	return nil
}

func decodeDrift(_ string, f *fields) (DriftSettings, error) {
	var d DriftSettings
	d.Reference, _ = f.take("reference")
	f.into(&d)
	if f.err != nil {
		return d, f.err
	}
	return d, d.Validate()
}

func encodeDrift(d DriftSettings) record {
	r := recordOf(d)
	if d.Reference != nil {
		r["reference"] = d.Reference
	}
	return r
}
