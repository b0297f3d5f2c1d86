package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"

	"clearmlserving/timeseries"
)

// maxForm bounds the body of a request: a form with an expression.
const maxForm = 1 << 20

// maxNames bounds the answers about series and labels, which no engine bounds.
const maxNames = 100_000

// Handler answers Prometheus' HTTP API below /api/v1/: what Grafana and other clients of Prometheus
// ask about data. Answers, errors and statuses are those of Prometheus. It checks no credentials.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range s.calls() {
		h := &call{s, answer}
		mux.Handle("GET "+path, h)
		if !strings.Contains(path, "{") && !strings.Contains(path, "/status/") && !strings.HasSuffix(path, "/metadata") {
			mux.Handle("POST "+path, h)
		}
	}
	return mux
}

// Route is one route of Handler.
type Route struct{ Methods, Path string }

// Routes lists the routes of Handler.
func Routes() []Route {
	var all []Route
	for path := range (&Store{}).calls() {
		methods := "GET, HEAD, POST"
		if strings.Contains(path, "{") || strings.Contains(path, "/status/") || strings.HasSuffix(path, "/metadata") {
			methods = "GET, HEAD"
		}
		all = append(all, Route{methods, path})
	}
	slices.SortFunc(all, func(a, b Route) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func (s *Store) calls() map[string]answerer {
	return map[string]answerer{
		"/api/v1/query":               s.answerQuery,
		"/api/v1/query_range":         s.answerRange,
		"/api/v1/query_exemplars":     s.answerExemplars,
		"/api/v1/format_query":        s.answerFormat,
		"/api/v1/series":              s.answerSeries,
		"/api/v1/labels":              s.answerLabels,
		"/api/v1/label/{name}/values": s.answerLabelValues,
		"/api/v1/metadata":            s.answerMetadata,
		"/api/v1/status/buildinfo":    s.answerBuildInfo,
	}
}

// answerer answers one call: with data in the form of the API, or an error. db is open.
type answerer func(r *http.Request, db *tsdb.DB) (data any, notes annotations.Annotations, err error)

// call is the handler of one path.
type call struct {
	s      *Store
	answer answerer
}

// response is the body of every answer.
type response struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
}

// ServeHTTP implements http.Handler.
func (c *call) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		fail(w, timeseries.Errorf(timeseries.BadData, "error parsing form values: %w", err))
		return
	}
	body, err := c.body(r)
	switch {
	case err != nil:
		fail(w, err)
	case body == nil: // as in Prometheus
		w.WriteHeader(http.StatusNoContent)
	default:
		send(w, http.StatusOK, body)
	}
}

// body is the answer, nil if there is no data. The database is free again before it is sent: a slow client must
// not keep it from being closed.
func (c *call) body(r *http.Request) ([]byte, error) {
	db, release, err := c.s.opened()
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := c.s.until(r.Context())
	defer cancel()
	data, notes, err := c.answer(r.WithContext(ctx), db)
	if err != nil || data == nil {
		return nil, err
	}
	warnings, infos := notes.AsStrings(r.FormValue("query"), 10, 10)
	body, err := json.Marshal(response{Status: "success", Data: data, Warnings: warnings, Infos: infos})
	if err != nil {
		return nil, timeseries.Errorf(timeseries.Internal, "write the answer: %w", err)
	}
	return body, nil
}

func send(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone away has no use for the error
}

// fail answers an error.
func fail(w http.ResponseWriter, err error) {
	WriteError(w, statusOf(timeseries.KindOf(err)), string(timeseries.KindOf(err)), err.Error())
}

// WriteError answers an error in the form of Prometheus' HTTP API.
func WriteError(w http.ResponseWriter, status int, kind, text string) {
	body, err := json.Marshal(response{Status: "error", ErrorType: kind, Error: text})
	if err != nil {
		body = []byte(`{"status":"error","errorType":"internal","error":"the error cannot be written"}`)
	}
	send(w, status, body)
}

// statusOf is the HTTP status of a kind of error.
func statusOf(kind timeseries.Kind) int {
	switch kind {
	case timeseries.BadData:
		return http.StatusBadRequest
	case timeseries.Execution:
		return http.StatusUnprocessableEntity
	case timeseries.Canceled:
		return 499 // the client has gone
	case timeseries.Timeout, timeseries.Unavailable:
		return http.StatusServiceUnavailable
	case timeseries.Internal:
	}
	return http.StatusInternalServerError
}

func (s *Store) answerQuery(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	limit, err := limitParam(r)
	at, err2 := timeParam(r, "time", s.o.Now())
	o, err3 := queryOptions(r)
	timeout, err4 := timeoutParam(r)
	if err := firstOf(err, err2, err4, err3); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	q, err := s.engine.NewInstantQuery(ctx, db, o, r.FormValue("query"), at)
	if err != nil {
		return nil, nil, refuse("query", err)
	}
	return s.evaluate(ctx, q, limit)
}

func (s *Store) answerRange(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	limit, err := limitParam(r)
	if err != nil {
		return nil, nil, err
	}
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return nil, nil, refuse("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return nil, nil, refuse("end", err)
	}
	if end.Before(start) { // before a bad step, as in Prometheus
		return nil, nil, timeseries.CheckRange(start, end, 1)
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return nil, nil, refuse("step", err)
	}
	o, err := queryOptions(r)
	timeout, err2 := timeoutParam(r)
	if err := firstOf(timeseries.CheckRange(start, end, step), err2, err); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	q, err := s.engine.NewRangeQuery(ctx, db, o, r.FormValue("query"), start, end, step)
	if err != nil {
		return nil, nil, refuse("query", err)
	}
	return s.evaluate(ctx, q, limit)
}

// evaluation is the data of an evaluated expression.
type evaluation struct {
	ResultType parser.ValueType `json:"resultType"`
	Result     json.RawMessage  `json:"result"`
}

// evaluate runs a query. The value of a query is valid until it is closed, so it is encoded here.
func (s *Store) evaluate(ctx context.Context, q promql.Query, limit int) (any, annotations.Annotations, error) {
	defer q.Close()
	result := q.Exec(ctx)
	if result.Err != nil {
		return nil, nil, &timeseries.Error{Kind: kindOf(result.Err), Err: result.Err}
	}
	notes := result.Warnings
	value, cut := truncate(result.Value, limit)
	if cut {
		notes = notes.Add(errTruncated)
	}
	body, err := encode(value)
	return evaluation{value.Type(), body}, notes, err
}

var errTruncated = errors.New("results truncated due to limit")

func truncate(value parser.Value, limit int) (parser.Value, bool) {
	switch v := value.(type) {
	case promql.Vector:
		if limit > 0 && len(v) > limit {
			return v[:limit], true
		}
	case promql.Matrix:
		if limit > 0 && len(v) > limit {
			return v[:limit], true
		}
	}
	return value, false
}

func (s *Store) answerExemplars(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	start, err := timeParam(r, "start", minTime)
	end, err2 := timeParam(r, "end", maxTime)
	if err := firstOf(err, err2); err != nil {
		return nil, nil, err
	}
	if end.Before(start) {
		return nil, nil, timeseries.Errorf(timeseries.BadData, "end timestamp must not be before start timestamp")
	}
	expr, err := s.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return nil, nil, &timeseries.Error{Kind: timeseries.BadData, Err: err}
	}
	type one struct {
		Labels    labels.Labels `json:"labels"`
		Value     string        `json:"value"`
		Timestamp json.Number   `json:"timestamp"`
	}
	type series struct {
		Labels    labels.Labels `json:"seriesLabels"`
		Exemplars []one         `json:"exemplars"`
	}
	all := []series{}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return nil, nil, nil
	}
	q, err := db.ExemplarQuerier(r.Context())
	if err != nil {
		return nil, nil, &timeseries.Error{Kind: timeseries.Execution, Err: err}
	}
	found, err := q.Select(start.UnixMilli(), end.UnixMilli(), selectors...)
	if err != nil {
		return nil, nil, &timeseries.Error{Kind: timeseries.Execution, Err: err}
	}
	for _, f := range found {
		out := series{Labels: f.SeriesLabels}
		for _, e := range f.Exemplars {
			out.Exemplars = append(out.Exemplars, one{e.Labels, number(e.Value), json.Number(stamp(e.Ts))})
		}
		all = append(all, out)
	}
	return all, nil, nil
}

func (s *Store) answerFormat(r *http.Request, _ *tsdb.DB) (any, annotations.Annotations, error) {
	expr, err := s.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return nil, nil, refuse("query", err)
	}
	return expr.Pretty(0), nil, nil
}

// question are the arguments of calls about series and labels.
type question struct {
	limit    int
	matchers [][]*labels.Matcher
	storage.Querier
}

// ask reads the arguments of a call about series and labels. The caller closes the question.
func (s *Store) ask(r *http.Request, db *tsdb.DB) (question, error) {
	limit, err := limitParam(r)
	start, err2 := timeParam(r, "start", minTime)
	end, err3 := timeParam(r, "end", maxTime)
	if err := firstOf(err, err2, err3); err != nil {
		return question{}, err
	}
	q := question{limit: limit}
	if q.matchers, err = s.matchers(r.Form["match[]"]); err != nil {
		return q, err
	}
	if q.Querier, err = db.Querier(start.UnixMilli(), end.UnixMilli()); err != nil {
		return q, &timeseries.Error{Kind: timeseries.Execution, Err: err}
	}
	return q, nil
}

// most is how many results are looked for: one more than wanted, to know whether there are more.
func (q question) most() int {
	if q.limit > 0 {
		return min(q.limit, maxNames) + 1
	}
	return maxNames + 1
}

func (q question) cut(n int) (int, annotations.Annotations) {
	if n < q.most() {
		return n, nil
	}
	return q.most() - 1, annotations.New().Add(errTruncated)
}

// union calls each of the sets of matchers, or once without, and returns what they find, sorted.
func (q question) union(each func(hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, annotations.Annotations, error)) (any, annotations.Annotations, error) {
	defer q.Close() //nolint:errcheck // it has been read
	sets := q.matchers
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	found := map[string]bool{}
	var notes annotations.Annotations
	for _, matchers := range sets {
		names, more, err := each(&storage.LabelHints{Limit: q.most()}, matchers)
		if err != nil {
			return nil, nil, &timeseries.Error{Kind: timeseries.Execution, Err: err}
		}
		notes.Merge(more)
		for _, name := range names {
			found[strings.Clone(name)] = true // names are valid until the querier is closed
		}
	}
	all := slices.Sorted(maps.Keys(found))
	n, cut := q.cut(len(all))
	return append([]string{}, all[:n]...), notes.Merge(cut), nil
}

func (s *Store) answerLabels(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	q, err := s.ask(r, db)
	if err != nil {
		return nil, nil, err
	}
	return q.union(func(hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(r.Context(), hints, matchers...)
	})
}

func (s *Store) answerLabelValues(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return nil, nil, timeseries.Errorf(timeseries.BadData, "invalid label name: %q", name)
	}
	q, err := s.ask(r, db)
	if err != nil {
		return nil, nil, err
	}
	return q.union(func(hints *storage.LabelHints, matchers []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(r.Context(), name, hints, matchers...)
	})
}

func (s *Store) answerSeries(r *http.Request, db *tsdb.DB) (any, annotations.Annotations, error) {
	if len(r.Form["match[]"]) == 0 {
		return nil, nil, timeseries.Errorf(timeseries.BadData, "no match[] parameter provided")
	}
	if _, err := s.matchers(r.Form["match[]"]); err != nil {
		return nil, nil, refuse("match[]", err)
	}
	q, err := s.ask(r, db)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close() //nolint:errcheck // it has been read
	start, _ := timeParam(r, "start", minTime)
	end, _ := timeParam(r, "end", maxTime)
	hints := &storage.SelectHints{Start: start.UnixMilli(), End: end.UnixMilli(), Func: "series", Limit: q.most()}
	sets := make([]storage.SeriesSet, 0, len(q.matchers))
	for _, matchers := range q.matchers {
		sets = append(sets, q.Select(r.Context(), len(q.matchers) > 1, hints, matchers...))
	}
	set := sets[0]
	if len(sets) > 1 {
		set = storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	}
	all := []json.RawMessage{}
	for len(all) < q.most() && set.Next() {
		body, err := json.Marshal(set.At().Labels())
		if err != nil {
			return nil, nil, timeseries.Errorf(timeseries.Internal, "write a series: %w", err)
		}
		all = append(all, body)
	}
	if err := errors.Join(set.Err(), r.Context().Err()); err != nil {
		return nil, nil, &timeseries.Error{Kind: kindOf(err), Err: err}
	}
	n, cut := q.cut(len(all))
	notes := set.Warnings()
	return all[:n], notes.Merge(cut), nil
}

func (s *Store) answerMetadata(r *http.Request, _ *tsdb.DB) (any, annotations.Annotations, error) {
	limit, err := numberParam(r, "limit")
	each, err2 := numberParam(r, "limit_per_metric")
	if err := firstOf(err, err2); err != nil {
		return nil, nil, err
	}
	all := s.metas.list(r.FormValue("metric"))
	if all == nil {
		return struct{}{}, nil, nil
	}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if limit >= 0 && i >= limit {
			delete(all, name)
		} else if each > 0 && len(all[name]) > each {
			all[name] = all[name][:each]
		}
	}
	return all, nil, nil
}

// compatible is the version of Prometheus whose libraries evaluate expressions. Grafana reads it to
// know which calls it may use.
const compatible = "3.16.0"

func (s *Store) answerBuildInfo(*http.Request, *tsdb.DB) (any, annotations.Annotations, error) {
	return map[string]string{
		"version": compatible, "revision": "clearml-serving " + s.o.Version, "branch": "", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	}, nil, nil
}

// refuse makes an error about a parameter.
func refuse(name string, err error) error {
	return timeseries.Errorf(timeseries.BadData, "invalid parameter %q: %w", name, err)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// numberParam reads a number, -1 if there is none.
func numberParam(r *http.Request, name string) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, timeseries.Errorf(timeseries.BadData, "%s must be a number", name)
	}
	return n, nil
}

// limitParam reads the largest number of results, 0 for no limit.
func limitParam(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, refuse("limit", err)
	}
	return n, nil
}

// queryOptions reads the options of the engine.
func queryOptions(r *http.Request) (promql.QueryOpts, error) {
	text := r.FormValue("lookback_delta")
	if text == "" {
		return promql.NewPrometheusQueryOpts(false, 0, nil), nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return nil, timeseries.Errorf(timeseries.BadData, "error parsing lookback delta duration: %w", err)
	}
	return promql.NewPrometheusQueryOpts(false, d, nil), nil
}

// timeoutParam reads how long a query may take.
func timeoutParam(r *http.Request) (time.Duration, error) {
	text := r.FormValue("timeout")
	if text == "" {
		return queryTimeout, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return 0, refuse("timeout", err)
	}
	return min(d, queryTimeout), nil
}

// The boundaries of time that clients send for "everything", as in Prometheus.
//
//nolint:gochecknoglobals // constants
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

func timeParam(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	t, err := parseTime(text)
	if err != nil {
		return t, refuse(name, fmt.Errorf("invalid time value for '%s': %w", name, err))
	}
	return t, nil
}

// parseTime reads seconds since 1970, or RFC 3339.
func parseTime(text string) (time.Time, error) {
	if t, err := strconv.ParseFloat(text, 64); err == nil {
		whole, part := math.Modf(t)
		part = math.Round(part*1000) / 1000
		return time.Unix(int64(whole), int64(part*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	switch text { // years beyond 9999, which the parser of the standard library refuses
	case minTime.Format(time.RFC3339Nano):
		return minTime, nil
	case maxTime.Format(time.RFC3339Nano):
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
}

// parseDuration reads seconds, or a duration such as 5m.
func parseDuration(text string) (time.Duration, error) {
	if d, err := strconv.ParseFloat(text, 64); err == nil {
		ns := d * float64(time.Second)
		if math.IsNaN(ns) || ns >= math.MaxInt64 || ns < math.MinInt64 {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", text)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}

// matchers reads selectors of series.
func (s *Store) matchers(texts []string) ([][]*labels.Matcher, error) {
	sets, err := s.parser.ParseMetricSelectors(texts)
	if err != nil {
		return nil, &timeseries.Error{Kind: timeseries.BadData, Err: err}
	}
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return nil, timeseries.Errorf(timeseries.BadData, "match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}
