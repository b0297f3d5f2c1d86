package api

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/controlplane/store"
)

const (
	// eventMachine is what a worker reports of its machine. All of them are kept as events
	// of machineReports, which is no task's id, so that those of a worker that is gone stay.
	eventMachine   = "worker_sample"
	machineReports = "workers:"
	// leastInterval is the shortest time between two points of a chart, in seconds; workers
	// report about twice in a minute.
	leastInterval = 40
	// mostPoints bounds the points of a chart.
	mostPoints = 1000
)

// noteMachine keeps one report for charts, for as long as serving instances' are kept.
// Its time is ours: machines whose clocks differ are shown beside each other.
func (s *Server) noteMachine(ctx context.Context, w *work, worker, task string, fields Fields) error {
	stats, _ := fields["machine_stats"].(map[string]any)
	if len(stats) == 0 {
		return nil
	}
	now := s.now()
	body := store.Doc{"stats": stats}
	if task != "" {
		body["task"] = task
	}
	if _, err := w.DeleteEvents(ctx, store.EventQuery{Tasks: []string{machineReports}, To: now.Add(-sampleLife).UnixMilli()}); err != nil {
		return err
	}
	return w.AppendEvents(ctx, []store.Event{{
		ID: newID(), Task: machineReports, Type: eventMachine, Variant: worker, Timestamp: now.UnixMilli(), Body: body,
	}})
}

// statItem asks for one metric, aggregated in one way.
type statItem struct {
	Key string `json:"key"`
	// Category is avg, min, or max; newer clients call it Aggregation.
	Category    string `json:"category"`
	Aggregation string `json:"aggregation"`
}

func (i statItem) way() string { return cmp.Or(i.Aggregation, i.Category, "avg") }

type workerStatsRequest struct {
	WorkerIDs      []string     `json:"worker_ids"`
	FromDate       *json.Number `json:"from_date"`
	ToDate         *json.Number `json:"to_date"`
	Interval       *json.Number `json:"interval"`
	Items          []statItem   `json:"items"`
	SplitByVariant bool         `json:"split_by_variant"`
}

// axis is the times of a chart, in seconds: one point each step.
type axis struct{ from, to, step int64 }

func (req workerStatsRequest) axis() (axis, error) {
	if req.FromDate == nil || req.ToDate == nil || req.Interval == nil {
		return axis{}, missing("from_date, to_date, interval")
	}
	from, to, step := floatOf(*req.FromDate), floatOf(*req.ToDate), floatOf(*req.Interval)
	if from < 0 || from >= to || to > math.MaxInt32*10 {
		return axis{}, refuse(subFieldsValue, "Invalid field values: from_date must be before to_date, both in seconds since 1970")
	}
	least := math.Max(leastInterval, math.Ceil((to-from)/mostPoints))
	step = math.Max(least, math.Min(step, to-from))
	return axis{int64(from), int64(to), int64(step)}, nil
}

// dates are the beginnings of the intervals, in milliseconds as clients want them though
// their description says seconds. The last one is left out while less than nine tenths
// of it have passed: its point would be a dip.
func (a axis) dates() []int64 {
	dates := []int64{}
	for at := a.from / a.step * a.step; at*10 <= a.to*10-9*a.step; at += a.step {
		dates = append(dates, at*1000)
	}
	return dates
}

func (a axis) of(e store.Event) int64 { return e.Timestamp / 1000 / a.step * a.step * 1000 }

// machineEvents reads what workers have reported within a time; no ids mean all workers.
func (s *Server) machineEvents(ctx context.Context, workers []string, from, to int64) ([]store.Event, error) {
	events, err := s.store.Events(ctx, store.EventQuery{Tasks: []string{machineReports}, Types: []string{eventMachine}, From: from * 1000, To: to * 1000})
	return slices.DeleteFunc(events, func(e store.Event) bool { return len(workers) > 0 && !slices.Contains(workers, e.Variant) }), err
}

type metricCategory struct {
	Name       string   `json:"name"`
	MetricKeys []string `json:"metric_keys"`
}

// workerMetricKeys lists what workers report of their machines, by kind of hardware.
func (s *Server) workerMetricKeys(ctx context.Context, _ *Call, req workerStatsRequest) (map[string]any, error) {
	events, err := s.machineEvents(ctx, req.WorkerIDs, 0, 0)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, refuse(subWorkerStats, "Worker stats not found: none of the workers has reported any")
	}
	byName := map[string]map[string]bool{}
	for _, e := range events {
		for key := range e.Body.Object("stats") {
			category, _, _ := strings.Cut(key, "_")
			if byName[category] == nil {
				byName[category] = map[string]bool{}
			}
			byName[category][key] = true
		}
	}
	categories := []metricCategory{}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		categories = append(categories, metricCategory{name, slices.Sorted(maps.Keys(byName[name]))})
	}
	return map[string]any{"categories": categories}, nil
}

// series of numbers by the beginning of the interval they fall into.
type numbersAt map[int64][]float64

type aggregated struct {
	Aggregation string    `json:"aggregation"`
	Values      []float64 `json:"values"`
}

type metricStats struct {
	Metric  string       `json:"metric"`
	Variant string       `json:"variant,omitempty"`
	Dates   []int64      `json:"dates"`
	Stats   []aggregated `json:"stats"`
}

type oneWorkersStats struct {
	Worker  string        `json:"worker"`
	Metrics []metricStats `json:"metrics"`
}

// workerStats returns charts of what workers have reported of their machines. Intervals
// without a report count as 0.
func (s *Server) workerStats(ctx context.Context, _ *Call, req workerStatsRequest) (map[string]any, error) {
	axis, err := req.axis()
	if err != nil {
		return nil, err
	}
	if len(req.Items) == 0 {
		return nil, missing("items")
	}
	ways := map[string][]string{}
	for _, item := range req.Items {
		if !slices.Contains([]string{"avg", "min", "max"}, item.way()) {
			return nil, invalid("items: %q is none of avg, min, max", item.way())
		}
		if !slices.Contains(ways[item.Key], item.way()) {
			ways[item.Key] = append(ways[item.Key], item.way())
		}
	}
	events, err := s.machineEvents(ctx, req.WorkerIDs, axis.from, axis.to)
	if err != nil {
		return nil, err
	}
	type seriesKey struct{ metric, variant string }
	byWorker := map[string]map[seriesKey]numbersAt{}
	for _, e := range events {
		for metric, value := range e.Body.Object("stats") {
			if ways[metric] == nil {
				continue
			}
			for variant, n := range machineNumbers(value) {
				key := seriesKey{metric, ""}
				if req.SplitByVariant {
					key.variant = variant
				}
				if byWorker[e.Variant] == nil {
					byWorker[e.Variant] = map[seriesKey]numbersAt{}
				}
				if byWorker[e.Variant][key] == nil {
					byWorker[e.Variant][key] = numbersAt{}
				}
				at := axis.of(e)
				byWorker[e.Variant][key][at] = append(byWorker[e.Variant][key][at], n)
			}
		}
	}
	dates := axis.dates()
	workers := []oneWorkersStats{}
	for _, worker := range slices.Sorted(maps.Keys(byWorker)) {
		one := oneWorkersStats{Worker: worker}
		keys := slices.SortedFunc(maps.Keys(byWorker[worker]), func(a, b seriesKey) int {
			return cmp.Or(cmp.Compare(a.metric, b.metric), cmp.Compare(a.variant, b.variant))
		})
		for _, key := range keys {
			chart := metricStats{Metric: key.metric, Variant: key.variant, Dates: dates}
			for _, way := range ways[key.metric] {
				chart.Stats = append(chart.Stats, aggregated{way, byWorker[worker][key].aggregate(way, dates)})
			}
			one.Metrics = append(one.Metrics, chart)
		}
		workers = append(workers, one)
	}
	return map[string]any{"workers": workers}, nil
}

// machineNumbers are the values of a metric by variant: a list has one for each core or
// card, a number is the total.
func machineNumbers(value any) map[string]float64 {
	out := map[string]float64{}
	if list, ok := value.([]any); ok {
		for i, v := range list {
			if _, ok := v.(json.Number); ok {
				out[strconv.Itoa(i)] = floatOf(v)
			}
		}
	} else if _, ok := value.(json.Number); ok {
		out["total"] = floatOf(value)
	}
	return out
}

func (n numbersAt) aggregate(way string, dates []int64) []float64 {
	values := make([]float64, len(dates))
	for i, at := range dates {
		if len(n[at]) == 0 {
			continue
		}
		switch way {
		case "min":
			values[i] = slices.Min(n[at])
		case "max":
			values[i] = slices.Max(n[at])
		default:
			for _, v := range n[at] {
				values[i] += v / float64(len(n[at]))
			}
		}
	}
	return values
}

type activitySeries struct {
	Dates  []int64 `json:"dates"`
	Counts []int   `json:"counts"`
}

// workerActivity counts the workers that reported in each interval, and those of them
// that ran a task.
func (s *Server) workerActivity(ctx context.Context, _ *Call, req workerStatsRequest) (map[string]activitySeries, error) {
	axis, err := req.axis()
	if err != nil {
		return nil, err
	}
	events, err := s.machineEvents(ctx, req.WorkerIDs, axis.from, axis.to)
	if err != nil {
		return nil, err
	}
	count := func(busy bool) activitySeries {
		seen := map[int64]map[string]bool{}
		for _, e := range events {
			if busy && e.Body.Text("task") == "" {
				continue
			}
			at := axis.of(e)
			if seen[at] == nil {
				seen[at] = map[string]bool{}
			}
			seen[at][e.Variant] = true
		}
		out := activitySeries{Dates: axis.dates(), Counts: []int{}}
		for _, at := range out.Dates {
			out.Counts = append(out.Counts, len(seen[at]))
		}
		return out
	}
	return map[string]activitySeries{"total": count(false), "active": count(true)}, nil
}
