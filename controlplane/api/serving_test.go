package api_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestEndpointsOfInstancesAreListedWithWhatTheyReport(t *testing.T) {
	w := newWire(t)
	register := func(id, url string) {
		w.must(t, "serving.register_container", fmt.Sprintf(`{"container_id":%q,"endpoint_name":"iris","model_name":"model","endpoint_url":%q,"timeout":600}`, id, url))
	}
	report := func(id string, perMinute, latency int) {
		w.must(t, "serving.container_status_report", fmt.Sprintf(`{"container_id":%q,"endpoint_name":"iris","model_name":"model","endpoint_url":"http://i/serve/iris",
			"uptime_sec":60,"requests_num":%d,"requests_min":%d,"latency_ms":%d,"machine_stats":{"cpu_usage":[10,30],"memory_used":5}}`, id, perMinute*10, perMinute, latency))
	}
	register("loading", "")
	register("a", "http://i/serve/iris")
	report("a", 30, 10)
	report("b", 10, 50) // it never registered
	w.run(t, []step{
		{call: "serving.get_endpoints", body: `{}`, has: []string{`"instances":2`, `"requests":400`, `"requests_min":40`, `"latency_ms":20`, `"endpoint":"iris"`}},
		{call: "serving.get_loading_instances", body: `{}`, has: []string{`"id":"loading"`}, lacks: []string{`"id":"a"`}},
		{call: "serving.get_endpoint_details", body: `{"endpoint_url":"http://i/serve/iris"}`, has: []string{`"id":"a"`, `"id":"b"`, `"memory_used":5`}},
		{call: "serving.get_endpoint_details", body: `{"endpoint_url":"none"}`, want: "400/10"},
		{call: "serving.get_endpoint_details", body: `{}`, want: "400/11"},
		{call: "serving.get_endpoint_metrics_history", body: `{"endpoint_url":"http://i/serve/iris","from_date":1795000000,"to_date":1796000000,"metric_type":"requests_min"}`, has: []string{`"values":[40]`, `"a":{`}},
		{call: "serving.get_endpoint_metrics_history", body: `{"endpoint_url":"http://i/serve/iris","from_date":1795000000,"to_date":1796000000,"metric_type":"cpu_util"}`, has: []string{`"values":[20]`}},
		{call: "serving.get_endpoint_metrics_history", body: `{"endpoint_url":"http://i/serve/iris","from_date":2,"to_date":1}`, want: "400/16"},
		{call: "serving.get_endpoint_metrics_history", body: `{"endpoint_url":"http://i/serve/iris","metric_type":"nonsense"}`, want: "400/16"},
		{call: "serving.unregister_container", body: `{"container_id":"a"}`},
		{call: "serving.unregister_container", body: `{"container_id":"a"}`},
		{call: "serving.get_endpoints", body: `{}`, has: []string{`"instances":1`}},
		{call: "serving.register_container", body: `{"container_id":"x"}`, want: "400/11"},
		{call: "serving.container_status_report", body: `{"endpoint_name":"x"}`, want: "400/11"},
		{call: "serving.container_status_report", body: `{"container_id":"x","uptime_sec":"long"}`, want: "400/12"},
		{call: "serving.unregister_container", body: `{}`, want: "400/11"},
	})
	w.mu.Lock()
	w.clock = w.clock.Add(11 * 60e9)
	w.mu.Unlock()
	if text := w.call(t, "serving.get_endpoints", `{}`).text; !strings.Contains(text, `"endpoints":[]`) {
		t.Errorf("an instance that is silent for eleven minutes is still listed: %s", text)
	}
}
