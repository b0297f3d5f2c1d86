package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// metricFilter picks series: a metric, or only some of its variants.
type metricFilter struct {
	Metric   string   `json:"metric"`
	Variants []string `json:"variants"`
}

// picks says whether one of the filters takes the event; no filters take all.
func picks(filters []metricFilter, e store.Event) bool {
	if len(filters) == 0 {
		return true
	}
	return slices.ContainsFunc(filters, func(f metricFilter) bool {
		return f.Metric == e.Metric && (len(f.Variants) == 0 || slices.Contains(f.Variants, e.Variant))
	})
}

// series reads a task's events of a type, by metric, variant, and iteration.
func (s *Server) series(ctx context.Context, task string, model bool, kind string, filters []metricFilter) ([]store.Event, error) {
	if err := s.mustHaveTask(ctx, task, model); err != nil {
		return nil, err
	}
	q := store.EventQuery{Tasks: []string{task}, Types: []string{kind}, ByIter: true}
	if len(filters) == 1 {
		q.Metric = filters[0].Metric
	}
	events, err := s.store.Events(ctx, q)
	return slices.DeleteFunc(events, func(e store.Event) bool { return !picks(filters, e) }), err
}

type plotsRequest struct {
	Task        string         `json:"task"`
	Iters       int            `json:"iters"`
	ScrollID    string         `json:"scroll_id"`
	Metrics     []metricFilter `json:"metrics"`
	ModelEvents bool           `json:"model_events"`
}

type plotsAnswer struct {
	Plots    []store.Doc `json:"plots"`
	Returned int         `json:"returned"`
	Total    int         `json:"total"`
	ScrollID string      `json:"scroll_id"`
}

// taskPlots returns the plots of each series' last iterations, all in the first page.
func (s *Server) taskPlots(ctx context.Context, _ *Call, req plotsRequest) (plotsAnswer, error) {
	events, err := s.series(ctx, req.Task, req.ModelEvents, eventPlot, req.Metrics)
	if err != nil {
		return plotsAnswer{}, err
	}
	events = lastIterations(events, max(req.Iters, 1))
	answer := plotsAnswer{Plots: bodies(events), Returned: len(events), Total: len(events), ScrollID: "end"}
	if req.ScrollID != "" {
		answer.Plots, answer.Returned = []store.Doc{}, 0
	}
	return answer, nil
}

// lastIterations keeps of each series the events of its n highest iterations. The
// events come ordered by series and iteration.
func lastIterations(events []store.Event, n int) []store.Event {
	kept := []store.Event{}
	for len(events) > 0 {
		end := slices.IndexFunc(events, func(e store.Event) bool {
			return e.Metric != events[0].Metric || e.Variant != events[0].Variant
		})
		if end < 0 {
			end = len(events)
		}
		from, seen := end, 0
		for from > 0 && (seen < n || events[from-1].Iter == events[from].Iter) {
			if from == end || events[from-1].Iter != events[from].Iter {
				seen++
			}
			from--
		}
		kept = append(kept, events[from:end]...)
		events = events[end:]
	}
	return kept
}

type histogramRequest struct {
	Task        string         `json:"task"`
	Key         string         `json:"key"`
	Samples     *int           `json:"samples"`
	Metrics     []metricFilter `json:"metrics"`
	ModelEvents bool           `json:"model_events"`
}

// points is one series: x and y have the same length.
type points struct {
	Name string `json:"name"`
	X    []any  `json:"x"`
	Y    []any  `json:"y"`
}

// How many points of a series are returned unless the caller says, and at most.
const (
	defaultSamples = 2000
	maxSamples     = 6000
)

// scalarHistogram returns all scalars of a task: metric -> variant -> points, thinned
// out to at most so many for each series.
func (s *Server) scalarHistogram(ctx context.Context, _ *Call, req histogramRequest) (map[string]map[string]points, error) {
	samples := defaultSamples
	if req.Samples != nil {
		samples = *req.Samples
	}
	switch {
	case samples < 1 || samples > maxSamples:
		return nil, documents.Invalid("samples must be 1 to %d, not %d", maxSamples, samples)
	case !slices.Contains([]string{"", placeIter, placeTimestamp, placeISOTime}, req.Key):
		return nil, documents.Invalid("key %q is none of %s, %s, %s", req.Key, placeIter, placeTimestamp, placeISOTime)
	}
	events, err := s.series(ctx, req.Task, req.ModelEvents, eventScalar, req.Metrics)
	if err != nil {
		return nil, err
	}
	grouped := map[string]map[string][]store.Event{}
	for _, e := range events {
		if e.Iter == singleValueIter || e.Body["value"] == nil {
			continue
		}
		if grouped[e.Metric] == nil {
			grouped[e.Metric] = map[string][]store.Event{}
		}
		grouped[e.Metric][e.Variant] = append(grouped[e.Metric][e.Variant], e)
	}
	answer := map[string]map[string]points{}
	for metric, variants := range grouped {
		answer[metric] = map[string]points{}
		for variant, line := range variants {
			answer[metric][variant] = plotted(variant, line, req.Key, samples)
		}
	}
	return answer, nil
}

// The places that points of a series may have.
const (
	placeIter      = "iter"
	placeTimestamp = "timestamp"
	placeISOTime   = "iso_time"
)

// plotted turns the events of a series into points. Of more than asked for, each point is
// the mean of an interval at the place where that begins, as a ClearML server counts them:
// intervals are of one length and begin at its multiples.
func plotted(name string, line []store.Event, key string, samples int) points {
	place := func(e store.Event) int64 { return e.Iter }
	if key == placeTimestamp || key == placeISOTime {
		place = func(e store.Event) int64 { return e.Timestamp }
		slices.SortStableFunc(line, func(a, b store.Event) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	}
	interval := int64(1)
	if len(line) >= samples {
		span := place(line[len(line)-1]) - place(line[0]) + 1
		interval = max(1, (span+int64(samples)-1)/int64(samples))
	}
	p := points{Name: name, X: []any{}, Y: []any{}}
	for len(line) > 0 {
		at := floor(place(line[0]), interval)
		n := slices.IndexFunc(line, func(e store.Event) bool { return floor(place(e), interval) != at })
		if n < 0 {
			n = len(line)
		}
		p.X = append(p.X, placeText(at, key))
		p.Y = append(p.Y, meanOf(line[:n]))
		line = line[n:]
	}
	return p
}

// floor is the largest multiple of an interval up to n.
func floor(n, interval int64) int64 {
	rest := n % interval
	if rest < 0 {
		rest += interval
	}
	return n - rest
}

func placeText(at int64, key string) any {
	if key == placeISOTime {
		return time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return at
}

// meanOf is the mean of scalars; a single one keeps the digits that were sent.
func meanOf(part []store.Event) any {
	if len(part) == 1 {
		return part[0].Body["value"]
	}
	sum := 0.0
	for _, e := range part {
		sum += asFloat(e.Body["value"])
	}
	return sum / float64(len(part))
}

type tasksRequest struct {
	Tasks       []string `json:"tasks"`
	EventType   string   `json:"event_type"`
	ModelEvents bool     `json:"model_events"`
}

type singleValuesAnswer struct {
	Tasks []singleValuesOf `json:"tasks"`
}

type singleValuesOf struct {
	Task     string           `json:"task"`
	TaskName string           `json:"task_name"`
	Values   []map[string]any `json:"values"`
}

// summaryMetric is where the SDK puts every value that belongs to no iteration.
const summaryMetric = "Summary"

// singleValues returns the values of tasks that belong to no iteration. Tasks without
// any, and tasks that don't exist, are left out.
func (s *Server) singleValues(ctx context.Context, _ *Call, req tasksRequest) (singleValuesAnswer, error) {
	answer := singleValuesAnswer{Tasks: []singleValuesOf{}}
	if len(req.Tasks) == 0 {
		return answer, documents.Missing("tasks")
	}
	kind := store.Task
	if req.ModelEvents {
		kind = store.Model
	}
	for _, id := range req.Tasks {
		events, err := s.store.Events(ctx, store.EventQuery{Tasks: []string{id}, Types: []string{eventScalar}, Metric: summaryMetric})
		if err != nil {
			return answer, err
		}
		one := singleValuesOf{Task: id}
		for _, e := range events {
			if e.Iter == singleValueIter {
				one.Values = append(one.Values, map[string]any{
					"metric": e.Metric, "variant": e.Variant, "value": e.Body["value"], "timestamp": e.Timestamp,
				})
			}
		}
		if len(one.Values) == 0 {
			continue
		}
		doc, err := s.store.Get(ctx, kind, id)
		if err != nil {
			return answer, documents.NotFound(err, kind, id)
		}
		one.TaskName = doc.Text("name")
		answer.Tasks = append(answer.Tasks, one)
	}
	return answer, nil
}

type imagesRequest struct {
	Metrics []struct {
		Task     string   `json:"task"`
		Metric   string   `json:"metric"`
		Variants []string `json:"variants"`
	} `json:"metrics"`
	Iters           *int   `json:"iters"`
	NavigateEarlier *bool  `json:"navigate_earlier"`
	Refresh         bool   `json:"refresh"`
	ScrollID        string `json:"scroll_id"`
	ModelEvents     bool   `json:"model_events"`
}

type imagesAnswer struct {
	Metrics  []imagesOf `json:"metrics"`
	ScrollID string     `json:"scroll_id"`
}

type imagesOf struct {
	Task       string            `json:"task"`
	Iterations []imagesIteration `json:"iterations"`
}

type imagesIteration struct {
	Iter   int64       `json:"iter"`
	Events []store.Doc `json:"events"`
}

// debugImages walks through the images of tasks, newest iteration first.
func (s *Server) debugImages(ctx context.Context, _ *Call, req imagesRequest) (imagesAnswer, error) {
	answer := imagesAnswer{Metrics: []imagesOf{}}
	if len(req.Metrics) == 0 {
		return answer, documents.Missing("metrics")
	}
	iters := 1
	if req.Iters != nil {
		iters = *req.Iters
	}
	if iters < 1 {
		return answer, documents.Invalid("iters must be 1 or more, not %d", iters)
	}
	filters := map[string][]metricFilter{}
	var tasks []string
	for _, m := range req.Metrics {
		if !slices.Contains(tasks, m.Task) {
			tasks = append(tasks, m.Task)
		}
		if m.Metric != "" {
			filters[m.Task] = append(filters[m.Task], metricFilter{Metric: m.Metric, Variants: m.Variants})
		}
	}
	at, err := s.lists.ScrollOf(ctx, req.ScrollID)
	if err != nil {
		return answer, err
	}
	if req.Refresh {
		delete(at.Doc, "seen")
	}
	for _, task := range tasks {
		events, err := s.series(ctx, task, req.ModelEvents, eventImage, filters[task])
		if err != nil {
			return answer, err
		}
		// The first page is always that of the newest.
		seen, begun := store.Doc(at.Doc.Object("seen"))[task].(map[string]any)
		earlier := !begun || req.NavigateEarlier == nil || *req.NavigateEarlier
		if begun {
			least, largest := store.Doc(seen).Int("min_iter"), store.Doc(seen).Int("max_iter")
			events = slices.DeleteFunc(events, func(e store.Event) bool {
				return earlier && e.Iter >= least || !earlier && e.Iter <= largest
			})
		}
		one := imagesOf{Task: task, Iterations: byIteration(events, iters, earlier)}
		if n := len(one.Iterations); n > 0 {
			at.Doc.Object("seen")[task] = map[string]any{
				"min_iter": documents.Number(one.Iterations[n-1].Iter), "max_iter": documents.Number(one.Iterations[0].Iter),
			}
		}
		answer.Metrics = append(answer.Metrics, one)
	}
	answer.ScrollID = at.Doc.ID()
	return answer, s.lists.KeepScroll(ctx, at)
}

// byIteration groups events: the n highest iterations, or the n lowest, highest first.
func byIteration(events []store.Event, n int, highest bool) []imagesIteration {
	grouped := map[int64][]store.Doc{}
	iters := []int64{}
	for _, e := range events {
		if _, ok := grouped[e.Iter]; !ok {
			iters = append(iters, e.Iter)
		}
		grouped[e.Iter] = append(grouped[e.Iter], e.Body)
	}
	slices.Sort(iters)
	if highest {
		iters = iters[max(0, len(iters)-n):]
	} else {
		iters = iters[:min(n, len(iters))]
	}
	slices.Reverse(iters)
	out := make([]imagesIteration, len(iters))
	for i, iter := range iters {
		out[i] = imagesIteration{Iter: iter, Events: grouped[iter]}
	}
	return out
}
