package serving

import (
	"bytes"
	"crypto/md5" //nolint:gosec // a change marker in the original's format, not a protection
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Decode reads the configuration objects of a service, given as JSON per section, and its
// parameters of section "General". It never fails as a whole: a record that cannot be read becomes
// a BrokenRecord, and the others stay usable.
func Decode(sections map[Section]json.RawMessage, general map[string]string) Service {
	s := Service{
		Endpoints:           map[string]Endpoint{},
		Monitoring:          map[string]Monitoring{},
		Canaries:            map[string]Canary{},
		Metrics:             map[string]MetricLogging{},
		MonitoringEndpoints: map[string]Endpoint{},
		Versions:            Versions{},
		Options:             map[string]EndpointOptions{},
		Revisions:           map[string]History{},
		Drift:               map[string]DriftSettings{},
		Rollouts:            map[string]Rollout{},
		Parameters:          ParametersFrom(general),
	}
	decodeSection(&s, sections, SectionEndpoints, s.Endpoints, decodeEndpoint)
	decodeSection(&s, sections, SectionMonitoringEndpoints, s.MonitoringEndpoints, decodeEndpoint)
	decodeSection(&s, sections, SectionMonitoring, s.Monitoring, decodeMonitoring)
	decodeSection(&s, sections, SectionCanary, s.Canaries, decodeCanary)
	decodeSection(&s, sections, SectionMetrics, s.Metrics, decodeMetricLogging)
	decodeSection(&s, sections, SectionVersions, s.Versions, decodeVersions)
	decodeSection(&s, sections, SectionOptions, s.Options, decodeOptions)
	decodeAccess(&s, sections)
	decodeSection(&s, sections, SectionRevisions, s.Revisions, decodeHistory)
	decodeSection(&s, sections, SectionDrift, s.Drift, decodeDrift)
	decodeSection(&s, sections, SectionRollouts, s.Rollouts, decodeRollout)
	return s
}

// decodeSection fills into from one section, record by record, in key order.
func decodeSection[T any](s *Service, sections map[Section]json.RawMessage, name Section, into map[string]T, decode func(key string, f *fields) (T, error)) {
	raw := bytes.TrimSpace(sections[name])
	if len(raw) == 0 {
		return
	}
	var records map[string]json.RawMessage
	err := json.Unmarshal(raw, &records)
	if err == nil && records == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		s.Broken = append(s.Broken, BrokenRecord{Section: name, Raw: slices.Clone(raw), Err: fmt.Errorf("configuration section %q is not a map of records: %w", name, err)})
		return
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		record, err := decodeRecord(records[key], key, decode)
		if err != nil {
			s.Broken = append(s.Broken, BrokenRecord{Section: name, Key: key, Raw: records[key], Err: fmt.Errorf("%s %q: %w", name, key, err)})
			continue
		}
		into[key] = record
	}
}

func decodeRecord[T any](raw json.RawMessage, key string, decode func(string, *fields) (T, error)) (T, error) {
	var zero T
	f := fieldsOf(raw)
	if f.err != nil {
		return zero, f.err
	}
	record, err := decode(key, f)
	if err == nil {
		err = f.err
	}
	if err != nil {
		return zero, err
	}
	return record, nil
}

func decodeEndpoint(_ string, f *fields) (e Endpoint, err error) {
	f.into(&e)
	return e, f.knownEngine(e.EngineType)
}

// knownEngine refuses an engine that the configuration may not name.
func (f *fields) knownEngine(name string) error {
	if f.err == nil && !knownEngine(name) {
		return &FieldError{Field: "engine_type", Value: name, Why: "not supported engine type"}
	}
	return nil
}

func decodeMonitoring(_ string, f *fields) (m Monitoring, err error) {
	f.into(&m)
	return m, f.knownEngine(m.EngineType)
}

func decodeCanary(_ string, f *fields) (Canary, error) {
	c := Canary{
		Endpoint:           f.requiredText("endpoint"),
		Weights:            f.numbers("weights"),
		LoadEndpoints:      f.texts("load_endpoints"),
		LoadEndpointPrefix: f.text("load_endpoint_prefix"),
	}
	c.Unknown = f.rest()
	return c, nil
}

func decodeMetricLogging(_ string, f *fields) (MetricLogging, error) {
	m := MetricLogging{Metrics: map[string]Metric{}}
	raw, ok := f.take("metrics")
	f.into(&m)
	if !ok {
		return m, nil
	}
	var variables map[string]json.RawMessage
	if err := json.Unmarshal(raw, &variables); err != nil {
		return m, &FieldError{Field: "metrics", Value: string(raw), Why: "is not a map of variables"}
	}
	for name, r := range variables {
		metric, err := decodeRecord(r, name, decodeMetric)
		if err != nil {
			return m, fmt.Errorf("variable %q: %w", name, err)
		}
		m.Metrics[name] = metric
	}
	return m, nil
}

func decodeMetric(_ string, f *fields) (m Metric, err error) {
	f.into(&m)
	return m, nil
}

func decodeVersions(_ string, f *fields) (map[ModelID]int, error) {
	given := make(map[ModelID]int, len(f.left))
	for id := range f.left {
		given[ModelID(id)] = f.whole(id)
	}
	return given, nil
}

// Encode writes one section as JSON text that both products read: raw UTF-8, keys sorted, unset
// fields omitted, unknown fields and broken records kept.
func (s Service) Encode(section Section) (string, error) {
	records := map[string]any{}
	switch section {
	case SectionEndpoints:
		encodeRecords(records, s.Endpoints, recordOf)
	case SectionMonitoringEndpoints:
		encodeRecords(records, s.MonitoringEndpoints, recordOf)
	case SectionMonitoring:
		encodeRecords(records, s.Monitoring, recordOf)
	case SectionCanary:
		encodeRecords(records, s.Canaries, encodeCanary)
	case SectionMetrics:
		encodeRecords(records, s.Metrics, encodeMetricLogging)
	case SectionOptions:
		encodeRecords(records, s.Options, recordOf)
	case SectionAccess:
		encodeAccess(records, s.Access)
	case SectionRevisions:
		encodeRecords(records, s.Revisions, encodeHistory)
	case SectionDrift:
		encodeRecords(records, s.Drift, encodeDrift)
	case SectionRollouts:
		encodeRecords(records, s.Rollouts, encodeRollout)
	case SectionVersions:
		encodeRecords(records, s.Versions, func(given map[ModelID]int) record {
			r := record{}
			for id, n := range given {
				r[string(id)] = n
			}
			return r
		})
	default:
		return "", fmt.Errorf("encode configuration: unknown section %q", section)
	}
	for _, b := range s.BrokenIn(section) {
		if b.Key == "" {
			return "", fmt.Errorf("write section %q: what is stored there cannot be read, so it is not overwritten: %w", section, b.Err)
		}
		if _, replaced := records[b.Key]; !replaced {
			records[b.Key] = b.Raw
		}
	}
	return marshal(records)
}

// record is a JSON object under construction; unset fields are never put in.
type record map[string]any

func encodeRecords[T any](into map[string]any, from map[string]T, encode func(T) record) {
	for key, r := range from {
		into[key] = encode(r)
	}
}

// Record is the endpoint as a JSON object with the original's field names, as
// user code sees it.
func (e Endpoint) Record() (json.RawMessage, error) {
	text, err := marshal(recordOf(e))
	return json.RawMessage(text), err
}

func encodeCanary(c Canary) record {
	r := newRecord(c.Unknown)
	r["endpoint"], r["weights"] = c.Endpoint, nonNil(c.Weights)
	r["load_endpoints"] = nonNil(c.LoadEndpoints)
	r.text("load_endpoint_prefix", c.LoadEndpointPrefix)
	return r
}

func encodeMetricLogging(m MetricLogging) record {
	r, variables := recordOf(m), map[string]any{}
	for name, metric := range m.Metrics {
		variables[name] = recordOf(metric)
	}
	r["metrics"] = variables
	return r
}

func newRecord(unknown map[string]json.RawMessage) record {
	r := record{}
	for name, raw := range unknown {
		r[name] = raw
	}
	return r
}

func (r record) text(name, value string) {
	if value != "" {
		r[name] = value
	}
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// marshal writes JSON without \u escapes: the SDK's reader does not decode them
// (it reads configuration as HOCON), so text must be raw UTF-8.
func marshal(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("encode configuration: %w", err)
	}
	text := strings.TrimSuffix(b.String(), "\n")
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(text), nil
}

// StateHash is the change marker that commands print and instances report: 32
// hex digits over what users configure (not over what instances write back), the
// parameters, and the hashes of those artifacts that endpoints refer to.
func (s Service) StateHash(artifactHashes map[string]string) string {
	h := md5.New() //nolint:gosec // see the import
	sections := []Section{SectionEndpoints, SectionCanary, SectionMonitoring, SectionMetrics}
	if len(s.Options) > 0 { // services without any keep their previous hash
		sections = append(sections, SectionOptions)
	}
	if len(s.Drift) > 0 {
		sections = append(sections, SectionDrift)
	}
	if s.Access.Required || len(s.Access.Keys) > 0 {
		sections = append(sections, SectionAccess)
	}
	for _, section := range sections {
		text, err := s.Encode(section)
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(h, "%s=%s\n", section, text)
	}
	fmt.Fprintf(h, "%+v\n", s.Parameters)
	for _, name := range s.artifacts() {
		fmt.Fprintf(h, "%s=%s\n", name, artifactHashes[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// artifacts lists the artifacts that records refer to, sorted.
func (s Service) artifacts() []string {
	names := map[string]bool{}
	for _, e := range s.Endpoints {
		names[e.PreprocessArtifact] = true
	}
	for _, m := range s.Monitoring {
		names[m.PreprocessArtifact] = true
	}
	for _, o := range s.Options {
		if o.Golden != nil {
			names[o.Golden.Artifact] = true
		}
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}

// fields takes named values out of a record, accepts the JSON types that the original accepts, and
// keeps the first error.
type fields struct {
	left map[string]json.RawMessage
	err  error
}

func fieldsOf(raw json.RawMessage) *fields {
	f := &fields{}
	if err := json.Unmarshal(raw, &f.left); err != nil || f.left == nil {
		f.err = errors.New("is not a record of named fields")
	}
	return f
}

// take removes a field; null counts as absent.
func (f *fields) take(name string) (json.RawMessage, bool) {
	raw, ok := f.left[name]
	delete(f.left, name)
	if !ok || bytes.Equal(raw, []byte("null")) {
		return nil, false
	}
	return raw, true
}

// rest returns the remaining, unknown fields.
func (f *fields) rest() map[string]json.RawMessage {
	if len(f.left) == 0 {
		return nil
	}
	return f.left
}

func (f *fields) fail(name string, raw json.RawMessage, why string) {
	if f.err == nil {
		f.err = &FieldError{Field: name, Value: string(raw), Why: why}
	}
}

func (f *fields) value(name string) any {
	raw, ok := f.take(name)
	if !ok {
		return nil
	}
	if raw[0] == '"' { // most are texts, and a decoder costs more than they do
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			f.fail(name, raw, "is not valid: "+err.Error())
		}
		return text
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		f.fail(name, raw, "is not valid: "+err.Error())
	}
	return v
}

func (f *fields) text(name string) string {
	switch v := f.value(name).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number: // a version without quotes, written by hand
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	default:
		f.fail(name, nil, "is not a text")
		return ""
	}
}

func (f *fields) requiredText(name string) string {
	v := f.text(name)
	if v == "" && f.err == nil {
		f.err = &FieldError{Field: name, Why: "is missing"}
	}
	return v
}

func (f *fields) texts(name string) []string {
	switch v := f.value(name).(type) {
	case nil:
		return nil
	case string:
		return []string{v}
	case []any:
		list := make([]string, 0, len(v))
		for _, item := range v {
			switch item := item.(type) {
			case string:
				list = append(list, item)
			case json.Number:
				list = append(list, item.String())
			default:
				f.fail(name, nil, "holds something that is not a text")
			}
		}
		return list
	default:
		f.fail(name, nil, "is not a list of texts")
		return nil
	}
}

func (f *fields) boolean(name string) bool {
	switch v := f.value(name).(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		b, err := strconv.ParseBool(strings.ToLower(v))
		if err != nil {
			f.fail(name, json.RawMessage(v), "is neither true nor false")
		}
		return b
	default:
		f.fail(name, nil, "is neither true nor false")
		return false
	}
}

func (f *fields) whole(name string) int {
	if n := f.optionalWhole(name); n != nil {
		return *n
	}
	return 0
}

func (f *fields) optionalWhole(name string) *int {
	n := f.optionalNumber(name)
	if n == nil {
		return nil
	}
	if *n != math.Trunc(*n) || math.Abs(*n) > math.MaxInt32 {
		f.fail(name, nil, "is not a whole number")
		return nil
	}
	return new(int(*n))
}

func (f *fields) optionalNumber(name string) *float64 {
	v := f.value(name)
	if v == nil {
		return nil
	}
	n, ok := number(v)
	if !ok {
		f.fail(name, nil, "is not a number")
		return nil
	}
	return &n
}

func (f *fields) numbers(name string) []float64 {
	v := f.value(name)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	out := make([]float64, 0, len(list))
	for _, item := range list {
		n, ok := number(item)
		if !ok {
			f.fail(name, nil, fmt.Sprintf("holds %v, which is not a number", item))
			return nil
		}
		out = append(out, n)
	}
	return out
}

// number reads a JSON number or a text with a number.
func number(v any) (float64, bool) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	default:
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// sizes wraps a flat list of integers, as the original does on reading.
func (f *fields) sizes(name string) []any {
	v := f.value(name)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	return WrapSizes(list)
}

// WrapSizes turns [1,28,28] into [[1,28,28]] and returns every other form unchanged.
func WrapSizes(list []any) []any {
	for _, item := range list {
		if _, isNumber := number(item); !isNumber {
			return list
		}
	}
	return []any{list}
}
