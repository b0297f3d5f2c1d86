package serving

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// SectionGeneral names the service's parameters in problems. They are parameters of the task, not a
// configuration object.
const SectionGeneral Section = "General"

// Kept is a section, record or parameter that cannot be used as stored; its last good form is in
// use.
type Kept struct {
	Section Section `json:"section"`
	Key     string  `json:"key,omitempty"` // "" for the whole section
	Why     string  `json:"why"`
}

// Configuration is the stored configuration of a service's task, section by section.
type Configuration struct {
	Sections map[Section]json.RawMessage
	// Unreadable has the sections whose text could not be parsed, with the cause.
	Unreadable map[Section]string
	General    map[string]string
}

// Decode decodes the records. A section that could not be parsed is one broken record.
func (c Configuration) Decode() Service {
	s := Decode(c.Sections, c.General)
	for _, section := range slices.Sorted(maps.Keys(c.Unreadable)) {
		s.Broken = append(s.Broken, BrokenRecord{Section: section, Err: fmt.Errorf("configuration section %q cannot be read: %s", section, c.Unreadable[section])})
	}
	return s
}

// KeepLast replaces every section, record and parameter of now that cannot be used by its last good
// form. What is missing stays missing, because removal is done that way. What never had a good form
// is unchanged. The arguments are not changed.
func KeepLast(now, last Configuration) (Configuration, []Kept) {
	var kept []Kept
	next := Configuration{Sections: cloned(now.Sections), Unreadable: maps.Clone(now.Unreadable), General: now.General}
	good := Decode(last.Sections, last.General)
	keepSection := func(section Section, why string) {
		if raw, ok := last.Sections[section]; ok && !slices.ContainsFunc(good.BrokenIn(section), BrokenRecord.whole) {
			next.Sections[section] = raw
			delete(next.Unreadable, section)
			kept = append(kept, Kept{Section: section, Why: why})
		}
	}
	for _, section := range slices.Sorted(maps.Keys(now.Unreadable)) {
		keepSection(section, now.Unreadable[section])
	}
	for _, b := range Decode(now.Sections, nil).Unusable() {
		switch {
		case b.whole():
			keepSection(b.Section, fmt.Sprintf("it is not a map of records: %v", errors.Unwrap(b.Err)))
		case good.goodIn(b.Section, last.Sections[b.Section], b.Key):
			if merged, ok := withRecord(next.Sections[b.Section], last.Sections[b.Section], b.Key); ok {
				next.Sections[b.Section] = merged
				kept = append(kept, Kept{Section: b.Section, Key: b.Key, Why: b.Err.Error()})
			}
		}
	}
	if _, err := ParametersFrom(now.General).LogShare(1); err != nil {
		before := last.General[ParamMetricLoggingFreq]
		if _, errBefore := ParametersFrom(last.General).LogShare(1); errBefore == nil {
			next.General = maps.Clone(now.General)
			next.General[ParamMetricLoggingFreq] = before
			kept = append(kept, Kept{Section: SectionGeneral, Key: ParamMetricLoggingFreq, Why: err.Error()})
		}
	}
	return next, kept
}

// Unusable lists the broken records, and the readable records that can never be served: reading
// accepts more than storing, because other products store records too.
func (s Service) Unusable() []BrokenRecord {
	all := slices.Clone(s.Broken)
	add := func(section Section, key string, err error) {
		if err != nil {
			all = append(all, BrokenRecord{Section: section, Key: key, Err: fmt.Errorf("%s %q: %w", section, key, err)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Canaries)) {
		add(SectionCanary, key, s.Canaries[key].Validate())
	}
	for _, key := range slices.Sorted(maps.Keys(s.Metrics)) {
		add(SectionMetrics, key, s.Metrics[key].Validate())
	}
	return all
}

// whole reports whether the section as a whole is unreadable.
func (b BrokenRecord) whole() bool { return b.Key == "" }

// goodIn reports whether the service has a usable record of that key.
func (s Service) goodIn(section Section, raw json.RawMessage, key string) bool {
	for _, b := range s.Unusable() {
		if b.Section == section && (b.whole() || b.Key == key) {
			return false
		}
	}
	var records map[string]json.RawMessage
	if json.Unmarshal(raw, &records) != nil {
		return false
	}
	_, ok := records[key]
	return ok
}

// withRecord replaces one record of a section by that of another form of the section.
func withRecord(section, other json.RawMessage, key string) (json.RawMessage, bool) {
	var into, from map[string]json.RawMessage
	if json.Unmarshal(section, &into) != nil || json.Unmarshal(other, &from) != nil || into == nil {
		return nil, false
	}
	into[key] = bytes.Clone(from[key])
	text, err := marshal(into)
	return json.RawMessage(text), err == nil
}
