package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// metricFilter selects series: a metric, or some of its variants.
type metricFilter struct {
	Metric   string   `json:"metric"`
	Variants []string `json:"variants"`
}

// picks says whether one of the filters selects the event; no filters select all.
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
	if _, err := s.find(ctx, ownerKind(model), task); err != nil {
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

// taskPlots returns the plots of each series' last iterations, all in the first page.
func (s *Server) taskPlots(ctx context.Context, _ *Call, req plotsRequest) (map[string]any, error) {
	events, err := s.series(ctx, req.Task, req.ModelEvents, eventPlot, req.Metrics)
	if err != nil {
		return nil, err
	}
	events = lastIterations(events, max(req.Iters, 1))
	total := len(events)
	if req.ScrollID != "" {
		events = nil
	}
	return map[string]any{"plots": bodies(events), "returned": len(events), "total": total, "scroll_id": "end"}, nil
}

// runs splits events into runs of neighbours with the same key.
func runs[K comparable](events []store.Event, key func(store.Event) K) [][]store.Event {
	var out [][]store.Event
	for len(events) > 0 {
		first := key(events[0])
		n := slices.IndexFunc(events, func(e store.Event) bool { return key(e) != first })
		if n < 0 {
			n = len(events)
		}
		out, events = append(out, events[:n]), events[n:]
	}
	return out
}

func seriesOf(e store.Event) [2]string { return [2]string{e.Metric, e.Variant} }

func iterOf(e store.Event) int64 { return e.Iter }

// lastIterations keeps of each series the events of its n highest iterations. The
// events come ordered by series and iteration.
func lastIterations(events []store.Event, n int) []store.Event {
	kept := []store.Event{}
	for _, series := range runs(events, seriesOf) {
		iterations := runs(series, iterOf)
		kept = append(kept, slices.Concat(iterations[max(0, len(iterations)-n):]...)...)
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

// The number of points of a series by default, and at most.
const (
	defaultSamples = 2000
	maxSamples     = 6000
)

// scalarHistogram returns all scalars of a task: metric -> variant -> points, at most
// samples of them for each series.
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
	events = slices.DeleteFunc(events, func(e store.Event) bool { return e.Iter == singleValueIter || e.Body["value"] == nil })
	answer := map[string]map[string]points{}
	for _, line := range runs(events, seriesOf) {
		metric, variant := line[0].Metric, line[0].Variant
		if answer[metric] == nil {
			answer[metric] = map[string]points{}
		}
		answer[metric][variant] = plotted(variant, line, req.Key, samples)
	}
	return answer, nil
}

// The possible x values of points.
const (
	placeIter      = "iter"
	placeTimestamp = "timestamp"
	placeISOTime   = "iso_time"
)

// plotted turns the events of a series into points. If there are more than requested, each
// point is the mean of an interval, placed at its begin, as on a ClearML server: intervals
// have one length and begin at its multiples.
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
	begin := func(e store.Event) int64 { return floor(place(e), interval) }
	for _, part := range runs(line, begin) {
		p.X = append(p.X, placeText(begin(part[0]), key))
		p.Y = append(p.Y, meanOf(part))
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

// meanOf is the mean of scalars; a single one keeps its digits.
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

// summaryMetric is the SDK's metric for values that belong to no iteration.
const summaryMetric = "Summary"

// singleValues returns the values of tasks that belong to no iteration. Tasks without
// any, and tasks that do not exist, are left out.
func (s *Server) singleValues(ctx context.Context, _ *Call, req tasksRequest) (map[string]any, error) {
	tasks, kind := []any{}, ownerKind(req.ModelEvents)
	for _, id := range req.Tasks {
		events, err := s.store.Events(ctx, store.EventQuery{Tasks: []string{id}, Types: []string{eventScalar}, Metric: summaryMetric})
		if err != nil {
			return nil, err
		}
		var values []any
		for _, e := range events {
			if e.Iter == singleValueIter {
				values = append(values, map[string]any{"metric": e.Metric, "variant": e.Variant, "value": e.Body["value"], "timestamp": e.Timestamp})
			}
		}
		if len(values) == 0 {
			continue
		}
		doc, err := s.find(ctx, kind, id)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, map[string]any{"task": id, "task_name": doc.Text("name"), "values": values})
	}
	return map[string]any{"tasks": tasks}, nil
}

type imagesRequest struct {
	Metrics []struct {
		Task     string   `json:"task"`
		Metric   string   `json:"metric"`
		Variants []string `json:"variants"`
	} `json:"metrics" required:"true"`
	Iters           *int   `json:"iters"`
	NavigateEarlier *bool  `json:"navigate_earlier"`
	Refresh         bool   `json:"refresh"`
	ScrollID        string `json:"scroll_id"`
	ModelEvents     bool   `json:"model_events"`
}

// debugImages pages through the images of tasks, newest iteration first.
func (s *Server) debugImages(ctx context.Context, _ *Call, req imagesRequest) (map[string]any, error) {
	iters := 1
	if req.Iters != nil {
		iters = *req.Iters
	}
	if iters < 1 {
		return nil, documents.Invalid("iters must be 1 or more, not %d", iters)
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
		return nil, err
	}
	if req.Refresh {
		delete(at.Doc, "seen")
	}
	metrics := []any{}
	for _, task := range tasks {
		events, err := s.series(ctx, task, req.ModelEvents, eventImage, filters[task])
		if err != nil {
			return nil, err
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
		iterations := byIteration(events, iters, earlier)
		if n := len(iterations); n > 0 {
			at.Doc.Object("seen")[task] = map[string]any{
				"min_iter": documents.Number(iterations[n-1][0].Iter), "max_iter": documents.Number(iterations[0][0].Iter),
			}
		}
		list := []any{}
		for _, of := range iterations {
			list = append(list, map[string]any{"iter": of[0].Iter, "events": bodies(of)})
		}
		metrics = append(metrics, map[string]any{"task": task, "iterations": list})
	}
	return map[string]any{"metrics": metrics, "scroll_id": at.Doc.ID()}, s.lists.KeepScroll(ctx, at)
}

// byIteration groups events: the n highest iterations, or the n lowest, highest first.
func byIteration(events []store.Event, n int, highest bool) [][]store.Event {
	slices.SortStableFunc(events, func(a, b store.Event) int { return cmp.Compare(a.Iter, b.Iter) })
	iterations := runs(events, iterOf)
	if highest {
		iterations = iterations[max(0, len(iterations)-n):]
	} else {
		iterations = iterations[:min(n, len(iterations))]
	}
	slices.Reverse(iterations)
	return iterations
}
