package api_test

import "testing"

func TestReportsOfEndpointsAreCheckedAsAClearMLServerDoes(t *testing.T) {
	w := newWire(t)
	const whole = `{"container_id":"a","endpoint_name":"iris","model_name":"model","endpoint_url":"http://i/serve/iris"`
	w.run(t, []step{
		{call: "serving.register_container", body: `{"container_id":"a","endpoint_name":"iris","model_name":"model","timeout":600}`},
		{call: "serving.register_container", body: `{"container_id":"a","model_name":"model"}`, want: "400/12"},
		{call: "serving.register_container", body: `{"container_id":"x"}`, want: "400/12"},
		{call: "serving.container_status_report", body: whole + `,"uptime_sec":60,"requests_num":10,"requests_min":1.5,"latency_ms":3.5,"machine_stats":{"cpu_usage":[10,30]}}`},
		{call: "serving.container_status_report", body: `{"endpoint_name":"x"}`, want: "400/12"},
		{call: "serving.container_status_report", body: `{"container_id":"a","endpoint_name":"iris","model_name":"model"}`, want: "400/12"},
		{call: "serving.container_status_report", body: whole + `,"uptime_sec":"long"}`, want: "400/12"},
		{call: "serving.unregister_container", body: `{"container_id":"a"}`},
		{call: "serving.unregister_container", body: `{"container_id":"a"}`},
		{call: "serving.unregister_container", body: `{}`, want: "400/12"},
	})
}
