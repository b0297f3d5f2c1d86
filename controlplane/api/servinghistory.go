package api

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"clearmlserving/controlplane/store"
)

// What endpoints have reported is kept as events of the endpoint, for a week.
const (
	eventServing = "serving_sample"
	sampleLife   = 7 * 24 * time.Hour
	// samplePoints is how many points a chart has when nobody asks for an interval.
	samplePoints = 100
)

// samplesOf is the name under which an endpoint's samples are kept. No task has such an id.
func samplesOf(endpoint string) string { return "endpoint:" + endpoint }

// noteSample keeps one report for charts.
func (s *Server) noteSample(ctx context.Context, tx store.Tx, container string, fields Fields) error {
	key := endpointKey(store.Doc(fields))
	if key == "" {
		return nil
	}
	now := s.now()
	body := store.Doc{"container": container}
	for _, name := range []string{"requests_num", "requests_min", "latency_ms", "uptime_sec"} {
		if fields[name] != nil {
			body[name] = fields[name]
		}
	}
	machine, _ := fields["machine_stats"].(map[string]any)
	for name, v := range machine {
		body["machine."+name] = v
	}
	if _, err := tx.DeleteEvents(ctx, store.EventQuery{Tasks: []string{samplesOf(key)}, To: now.Add(-sampleLife).UnixMilli()}); err != nil {
		return err
	}
	return tx.AppendEvents(ctx, []store.Event{{
		ID: newID(), Task: samplesOf(key), Type: eventServing, Variant: container, Timestamp: now.UnixMilli(), Body: body,
	}})
}

// sampled is how the metrics of a chart are called in reports, and whether those of
// several instances add up.
var sampled = map[string]struct {
	field string
	adds  bool
}{
	"requests": {"requests_num", true}, "requests_min": {"requests_min", true}, "latency_ms": {"latency_ms", false},
	"cpu_count": {"machine.cpu_count", true}, "gpu_count": {"machine.gpu_count", true},
	"cpu_util": {"machine.cpu_usage", false}, "gpu_util": {"machine.gpu_usage", false},
	"ram_total": {"machine.memory_total", true}, "ram_used": {"machine.memory_used", true}, "ram_free": {"machine.memory_free", true},
	"gpu_ram_total": {"machine.gpu_memory_total", true}, "gpu_ram_used": {"machine.gpu_memory_used", true}, "gpu_ram_free": {"machine.gpu_memory_free", true},
	"network_rx": {"machine.network_rx", true}, "network_tx": {"machine.network_tx", true},
}

type servingChart struct {
	Title  string    `json:"title"`
	Dates  []int64   `json:"dates"`
	Values []float64 `json:"values"`
}

type servingCharts struct {
	ComputedInterval int64                   `json:"computed_interval"`
	Total            servingChart            `json:"total"`
	Instances        map[string]servingChart `json:"instances"`
}

// servingHistory returns a metric of an endpoint over time, in all and by instance. Times
// are in seconds since 1970.
func (s *Server) servingHistory(ctx context.Context, _ *Call, req endpointRequest) (servingCharts, error) {
	answer := servingCharts{Instances: map[string]servingChart{}, Total: servingChart{Title: "Total", Dates: []int64{}, Values: []float64{}}}
	metric, ok := sampled[cmp.Or(req.MetricType, "requests_min")]
	from, to := floatOf(req.FromDate), floatOf(req.ToDate)
	if to == 0 {
		to = float64(s.now().Unix())
	}
	switch {
	case req.EndpointURL == "":
		return answer, missing("endpoint_url")
	case !ok:
		return answer, refuse(subFieldsValue, "Invalid field values: metric_type %q is none of those that are reported", req.MetricType)
	case from >= to || to-from > 10*365*24*3600:
		return answer, refuse(subFieldsValue, "Invalid field values: from_date must be before to_date, by at most ten years")
	}
	step := max(int64(floatOf(req.Interval)), int64(to-from)/samplePoints, 1)
	answer.ComputedInterval = step
	events, err := s.store.Events(ctx, store.EventQuery{
		Tasks: []string{samplesOf(req.EndpointURL)}, Types: []string{eventServing}, From: int64(from * 1000), To: int64(to * 1000),
	})
	if err != nil {
		return answer, err
	}
	type point struct{ sum, n float64 }
	instances := map[string]map[int64]*point{}
	for _, e := range events {
		value, ok := sampleValue(e.Body[metric.field])
		if !ok {
			continue
		}
		if instances[e.Variant] == nil {
			instances[e.Variant] = map[int64]*point{}
		}
		at := e.Timestamp / 1000 / step * step
		p := instances[e.Variant][at]
		if p == nil {
			p = &point{}
			instances[e.Variant][at] = p
		}
		p.sum, p.n = p.sum+value, p.n+1
	}
	total := map[int64]*point{}
	for name, points := range instances {
		chart := servingChart{Title: name, Dates: []int64{}, Values: []float64{}}
		for at := range points {
			chart.Dates = append(chart.Dates, at)
		}
		slices.Sort(chart.Dates)
		for _, at := range chart.Dates {
			mean := points[at].sum / points[at].n
			chart.Values = append(chart.Values, mean)
			if total[at] == nil {
				total[at] = &point{}
			}
			total[at].sum, total[at].n = total[at].sum+mean, total[at].n+1
		}
		answer.Instances[name] = chart
	}
	for at := range total {
		answer.Total.Dates = append(answer.Total.Dates, at)
	}
	slices.Sort(answer.Total.Dates)
	for _, at := range answer.Total.Dates {
		value := total[at].sum
		if !metric.adds {
			value /= total[at].n
		}
		answer.Total.Values = append(answer.Total.Values, value)
	}
	return answer, nil
}

// sampleValue is a number, or the mean of a list of them: some are reported by core.
func sampleValue(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		return floatOf(v), true
	case []any:
		sum := 0.0
		for _, item := range v {
			sum += floatOf(item)
		}
		return sum / float64(max(len(v), 1)), len(v) > 0
	case string:
		return floatOf(json.Number(strings.TrimSpace(v))), true
	}
	return 0, false
}
