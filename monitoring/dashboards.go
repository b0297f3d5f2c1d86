package main

import "fmt"

var (
	instances = variable{name: "instance", label: "Instance", values: `label_values(clearml_serving_start_time_seconds, instance)`, multi: true}
	endpoints = variable{name: "endpoint", label: "Endpoint", values: `label_values(clearml_serving_requests_total, endpoint)`}
	versions  = variable{name: "version", label: "Version", values: `label_values(clearml_serving_requests_total{endpoint="$endpoint"}, version)`, multi: true}
	variables = variable{
		name: "variable", label: "Variable", multi: true,
		values: `label_values({__name__=~"clearml_serving_variable_(value|total|distribution_count|values_total)", endpoint="$endpoint"}, variable)`,
	}
)

var watched = variable{name: "variable", label: "Variable", multi: true, values: `label_values(clearml_serving_drift_values_total{endpoint="$endpoint"}, variable)`}

// The label filters of the dashboards.
const (
	anywhere = `instance=~"$instance"`
	ofOne    = `endpoint="$endpoint", version=~"$version", ` + anywhere
	failed   = `outcome=~"error|timed_out|refused"`
)

// rate is the rate of a counter per second, summed by labels ("" sums everything).
func rate(metric, filter, by string) string {
	return fmt.Sprintf("sum%s(rate(%s{%s}[$__rate_interval]))", grouped(by), metric, filter)
}

// share is the part of the requests that failed on the server's side. Without requests there is no value.
func share(filter, by string) string {
	return rate("clearml_serving_requests_total", failed+", "+filter, by) + " / " + rate("clearml_serving_requests_total", filter, by)
}

// quantile is a quantile of a classic histogram.
func quantile(q float64, metric, filter, by string) string {
	labels := "le"
	if by != "" {
		labels = by + ", le"
	}
	return fmt.Sprintf("histogram_quantile(%g, %s)", q, rate(metric+"_bucket", filter, labels))
}

func sum(metric, filter, by string) string {
	return fmt.Sprintf("sum%s(%s{%s})", grouped(by), metric, filter)
}

func grouped(by string) string {
	if by == "" {
		return " "
	}
	return " by (" + by + ") "
}

const duration = "clearml_serving_request_duration_seconds"

// boards are all dashboards.
var boards = []board{
	{
		uid: uidPrefix + "overview", title: "ClearML Serving / Overview", about: "All endpoints of the chosen instances.",
		variables: []variable{instances},
		rows: []row{
			{title: "Now", panels: []panel{
				{title: "Requests", about: "Requests per second.", kind: number, unit: "reqps", width: 4, queries: []query{{rate("clearml_serving_requests_total", anywhere, ""), ""}}},
				{title: "Failed", about: "Part of the requests that failed, timed out, or were refused. Errors of the client are not in it.", kind: number, unit: "percentunit", width: 4, queries: []query{{share(anywhere, ""), ""}}},
				{title: "p99", about: "99th percentile of the time of requests, over all endpoints.", kind: number, unit: "s", width: 4, queries: []query{{quantile(0.99, duration, anywhere, ""), ""}}},
				{title: "In progress", about: "Requests that models have now, queued ones included.", kind: number, unit: "short", width: 4, queries: []query{{sum("clearml_serving_requests_in_progress", anywhere, ""), ""}}},
				{title: "Endpoints not ready", about: "Endpoints that no instance serves as configured.", kind: number, unit: "short", width: 4, queries: []query{{`count(max by (endpoint, version) (clearml_serving_endpoint_ready{` + anywhere + `}) == 0) or vector(0)`, ""}}},
				{title: "Instances", about: "Instances that expose metrics.", kind: number, unit: "short", width: 4, queries: []query{{`count(clearml_serving_start_time_seconds{` + anywhere + `})`, ""}}},
			}},
			{title: "Endpoints", panels: []panel{
				{title: "Requests", kind: lines, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_requests_total", anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
				{title: "Failed", about: "Part of the requests that failed, timed out, or were refused.", kind: lines, unit: "percentunit", width: 12, queries: []query{{share(anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
				{title: "Median time", kind: lines, unit: "s", width: 12, queries: []query{{quantile(0.5, duration, anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
				{title: "p99", kind: lines, unit: "s", width: 12, queries: []query{{quantile(0.99, duration, anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
			}},
			{title: "Outcomes", panels: []panel{
				{title: "Requests by outcome", kind: stacked, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_requests_total", anywhere, "outcome"), "{{outcome}}"}}},
				{title: "Queue", about: "Requests that wait for a worker.", kind: lines, unit: "short", width: 12, queries: []query{{sum("clearml_serving_queued_requests", anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
			}},
			{title: "Workers", panels: []panel{
				{title: "Workers by state", kind: stacked, unit: "short", width: 8, queries: []query{{sum("clearml_serving_workers", anywhere, "state"), "{{state}}"}}},
				{title: "Deaths of workers", about: "Unwanted deaths of worker processes in the last 5 minutes.", kind: lines, unit: "short", width: 8, queries: []query{{`sum by (endpoint, version) (increase(clearml_serving_worker_restarts_total{` + anywhere + `}[5m]))`, "{{endpoint}} {{version}}"}}},
				{title: "What is served", about: "Engine, model and revision of each endpoint.", kind: rows, unit: "short", width: 8, queries: []query{{`max by (endpoint, version, engine, revision) (clearml_serving_endpoint_info{` + anywhere + `})`, ""}}},
			}},
			{title: "Configuration", panels: []panel{
				{title: "Problems", about: "Parts of the configuration that are not served as written.", kind: lines, unit: "short", width: 12, queries: []query{{sum("clearml_serving_configuration_problems", anywhere, "instance"), "{{instance}}"}}},
				{title: "Synced", about: "1 if the configuration has been read and the control plane answers.", kind: lines, unit: "short", width: 12, queries: []query{{`min by (instance) (clearml_serving_configuration_synced{` + anywhere + `})`, "{{instance}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "endpoint", title: "ClearML Serving / Endpoint", about: "One endpoint: traffic, time, workers, batches.",
		variables: []variable{endpoints, versions, instances},
		rows: []row{
			{title: "Traffic", panels: []panel{
				{title: "Requests by outcome", kind: stacked, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_requests_total", ofOne, "outcome"), "{{outcome}}"}}},
				{title: "Requests by version", kind: stacked, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_requests_total", ofOne, "version"), "{{version}}"}}},
				{title: "Failed", about: "Part of the requests that failed, timed out, or were refused.", kind: lines, unit: "percentunit", width: 12, queries: []query{{share(ofOne, "version"), "{{version}}"}}},
				{title: "Errors of clients", about: "Requests that user code answered with 400 to 499, and those that never came to user code.", kind: lines, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_requests_total", `outcome=~"client_error|bad_request", `+ofOne, "outcome"), "{{outcome}}"}}},
			}},
			{title: "Time", panels: []panel{
				{title: "Time of requests", kind: lines, unit: "s", width: 12, queries: []query{
					{quantile(0.5, duration, ofOne, ""), "p50"}, {quantile(0.9, duration, ofOne, ""), "p90"}, {quantile(0.99, duration, ofOne, ""), "p99"},
				}},
				{title: "Queue and worker", about: "The parts of the time of answered requests.", kind: lines, unit: "s", width: 12, queries: []query{
					{quantile(0.5, "clearml_serving_request_queue_duration_seconds", ofOne, ""), "queue p50"},
					{quantile(0.99, "clearml_serving_request_queue_duration_seconds", ofOne, ""), "queue p99"},
					{quantile(0.5, "clearml_serving_request_worker_duration_seconds", ofOne, ""), "worker p50"},
					{quantile(0.99, "clearml_serving_request_worker_duration_seconds", ofOne, ""), "worker p99"},
				}},
				{title: "Distribution of the time", kind: heat, unit: "s", width: 24, queries: []query{{rate(duration+"_bucket", ofOne, "le"), "{{le}}"}}},
			}},
			{title: "Workers and queue", panels: []panel{
				{title: "Workers", kind: stacked, unit: "short", width: 8, queries: []query{{sum("clearml_serving_workers", ofOne, "state"), "{{state}}"}}},
				{title: "Queue", about: "Requests that wait, and how many may wait.", kind: lines, unit: "short", width: 8, queries: []query{{sum("clearml_serving_queued_requests", ofOne, ""), "queued"}, {sum("clearml_serving_queue_limit_requests", ofOne, ""), "limit"}}},
				{title: "In progress", kind: lines, unit: "short", width: 8, queries: []query{{sum("clearml_serving_requests_in_progress", ofOne, "version"), "{{version}}"}}},
			}},
			{title: "Sizes and batches", panels: []panel{
				{title: "Size of requests", kind: lines, unit: "bytes", width: 8, queries: []query{{quantile(0.5, "clearml_serving_request_size_bytes", ofOne, ""), "p50"}, {quantile(0.99, "clearml_serving_request_size_bytes", ofOne, ""), "p99"}}},
				{title: "Size of answers", kind: lines, unit: "bytes", width: 8, queries: []query{{quantile(0.5, "clearml_serving_response_size_bytes", ofOne, ""), "p50"}, {quantile(0.99, "clearml_serving_response_size_bytes", ofOne, ""), "p99"}}},
				{title: "Rows of a batch", about: "Mean rows of executed batches.", kind: lines, unit: "short", width: 8, queries: []query{{rate("clearml_serving_batch_rows_sum", ofOne, "version") + " / " + rate("clearml_serving_batch_rows_count", ofOne, "version"), "{{version}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "variables", title: "ClearML Serving / Variables", about: "Logged variables of one endpoint (metrics add).",
		variables: []variable{endpoints, versions, instances, variables},
		rows: []row{
			{title: "Numbers", panels: []panel{
				{title: "Distribution", about: "Variables of type scalar: values in sampled requests by bucket.", kind: heat, unit: "short", width: 12, queries: []query{{rate("clearml_serving_variable_distribution_bucket", ofVariable, "le"), "{{le}}"}}},
				{title: "Quantiles", about: "Variables of type scalar, interpolated within their buckets.", kind: lines, unit: "short", width: 12, queries: []query{
					{quantile(0.1, "clearml_serving_variable_distribution", ofVariable, "variable"), "{{variable}} p10"}, {quantile(0.5, "clearml_serving_variable_distribution", ofVariable, "variable"), "{{variable}} p50"}, {quantile(0.9, "clearml_serving_variable_distribution", ofVariable, "variable"), "{{variable}} p90"},
				}},
				{title: "Last values", about: "Variables of type value.", kind: lines, unit: "short", width: 12, queries: []query{{`avg by (variable) (clearml_serving_variable_value{` + ofVariable + `})`, "{{variable}}"}}},
				{title: "Counters", about: "Variables of type counter, per second.", kind: lines, unit: "short", width: 12, queries: []query{{rate("clearml_serving_variable_total", ofVariable, "variable"), "{{variable}}"}}},
			}},
			{title: "Words", panels: []panel{
				{title: "Shares of values", about: "Variables of type enum.", kind: stacked, unit: "percentunit", width: 24, queries: []query{{rate("clearml_serving_variable_values_total", ofVariable, "variable, value") + " / on (variable) group_left () " + rate("clearml_serving_variable_values_total", ofVariable, "variable"), "{{variable}} = {{value}}"}}},
			}},
			{title: "Sampling", panels: []panel{
				{title: "Sampled requests", kind: lines, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_sampled_requests_total", ofOne, "version"), "{{version}}"}}},
				{title: "Values that were not recorded", kind: lines, unit: "short", width: 12, queries: []query{{rate("clearml_serving_variables_skipped_total", ofVariable, "variable, reason"), "{{variable}}: {{reason}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "drift", title: "ClearML Serving / Drift", about: "Variables with a reference: docs/drift.md. Evidence decides, distances are shown.",
		variables: []variable{endpoints, versions, instances, watched},
		rows: []row{
			{title: "Verdict", panels: []panel{
				{title: "Variables that drift", about: "Of all endpoints.", kind: number, unit: "short", width: 4, queries: []query{{`count(max by (service, endpoint, version, variable) (clearml_serving_drift_drifting) == 1) or vector(0)`, ""}}},
				{title: "Evidence", about: "Logarithm. A variable drifts from the threshold on.", kind: lines, unit: "short", width: 20, queries: []query{
					{`max by (version, variable) (clearml_serving_drift_evidence{` + ofWatched + `})`, "{{variable}} {{version}}"}, {`max(clearml_serving_drift_threshold{` + ofWatched + `})`, "threshold"},
				}},
			}},
			{title: "Distances", panels: []panel{
				{title: "PSI", about: "Without its expected noise. A PSI up to the noise says nothing.", kind: lines, unit: "short", width: 12, queries: []query{
					{`max by (version, variable) (clearml_serving_drift_distance{measure="psi", ` + ofWatched + `})`, "{{variable}} {{version}}"}, {`max(clearml_serving_drift_noise{` + ofWatched + `})`, "noise"},
				}},
				{title: "Jensen-Shannon and Wasserstein", about: "Wasserstein of numbers only, in standard deviations of the reference.", kind: lines, unit: "short", width: 12, queries: []query{{`max by (version, variable, measure) (clearml_serving_drift_distance{measure!="psi", ` + ofWatched + `})`, "{{variable}} {{version}} {{measure}}"}}},
			}},
			{title: "Values", panels: []panel{
				{title: "Live values by the bins of the reference", kind: stacked, unit: "percentunit", width: 16, queries: []query{{rate("clearml_serving_drift_values_total", ofWatched+", "+anywhere, "variable, bin") + " / on (variable) group_left () " + rate("clearml_serving_drift_values_total", ofWatched+", "+anywhere, "variable"), "{{variable}}: {{bin}}"}}},
				{title: "Unexpected values", about: "Missing, of a wrong type, new categories, and out of the reference's range.", kind: lines, unit: "short", width: 8, queries: []query{{rate("clearml_serving_drift_unexpected_values_total", ofWatched+", "+anywhere, "variable, kind"), "{{variable}}: {{kind}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "versions", title: "ClearML Serving / Canary comparison", about: "The versions of one endpoint side by side.",
		variables: []variable{endpoints, versions, instances},
		rows: []row{
			{title: "Traffic", panels: []panel{
				{title: "Share of the requests", kind: stacked, unit: "percentunit", width: 12, queries: []query{{rate("clearml_serving_requests_total", ofOne, "version") + " / scalar(" + rate("clearml_serving_requests_total", ofOne, "") + ")", "{{version}}"}}},
				{title: "Failed", about: "Part of the requests that failed, timed out, or were refused.", kind: lines, unit: "percentunit", width: 12, queries: []query{{share(ofOne, "version"), "{{version}}"}}},
			}},
			{title: "Time", panels: []panel{
				{title: "Median", kind: lines, unit: "s", width: 8, queries: []query{{quantile(0.5, duration, ofOne, "version"), "{{version}}"}}},
				{title: "p90", kind: lines, unit: "s", width: 8, queries: []query{{quantile(0.9, duration, ofOne, "version"), "{{version}}"}}},
				{title: "p99", kind: lines, unit: "s", width: 8, queries: []query{{quantile(0.99, duration, ofOne, "version"), "{{version}}"}}},
			}},
			{title: "Steps and evidence", panels: []panel{
				{title: "Share of the candidate", about: "Canaries with steps: the share of the requests that the candidate gets.", kind: lines, unit: "percentunit", width: 8, queries: []query{{`max by (endpoint, candidate) (clearml_serving_canary_share{` + anywhere + `})`, "{{endpoint}}: {{candidate}}"}}},
				{title: "Evidence against the candidate", about: "Part of the evidence at which the candidate loses its requests: at 100 % it is rolled back.", kind: lines, unit: "percentunit", width: 8, queries: []query{{`clamp_min(max by (endpoint, candidate) (clearml_serving_canary_evidence{rule="all", ` + anywhere + `}), 0) / max by (endpoint, candidate) (clearml_serving_canary_evidence_limit{` + anywhere + `})`, "{{endpoint}}: {{candidate}}"}}},
				{title: "Requests through canaries by outcome", kind: stacked, unit: "reqps", width: 8, queries: []query{{rate("clearml_serving_canary_requests_total", ofOne, "canary, version, outcome"), "{{canary}} {{version}} {{outcome}}"}}},
			}},
			{title: "Answers", panels: []panel{
				{title: "Mean of logged numbers", about: "Variables of type scalar.", kind: lines, unit: "short", width: 12, queries: []query{{rate("clearml_serving_variable_distribution_sum", ofOne, "variable, version") + " / " + rate("clearml_serving_variable_distribution_count", ofOne, "variable, version"), "{{variable}} {{version}}"}}},
				{title: "Shadowed requests by result", about: "Copies of requests to another endpoint.", kind: lines, unit: "reqps", width: 12, queries: []query{{rate("clearml_serving_shadow_requests_total", ofOne, "target, result"), "{{target}} {{result}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "quality", title: "ClearML Serving / Quality", about: "What was predicted, compared with what turned out to be true (feedback set).",
		variables: []variable{endpoints, versions, instances},
		rows: []row{
			{title: "Quality", panels: []panel{
				{title: "Measures", about: "Of the newest 1000 rows with feedback on each instance.", kind: lines, unit: "short", width: 12, queries: []query{{`avg by (version, measure) (clearml_serving_quality{` + ofOne + `})`, "{{version}} {{measure}}"}}},
				{title: "Accuracy", about: "Part of the rows with feedback whose predicted class was true.", kind: lines, unit: "percentunit", width: 12, queries: []query{{rate("clearml_serving_quality_correct_total", ofOne, "version") + " / " + rate("clearml_serving_quality_rows_total", ofOne, "version"), "{{version}}"}}},
			}},
			{title: "Feedback", panels: []panel{
				{title: "Truths by outcome", kind: stacked, unit: "reqps", width: 8, queries: []query{{rate("clearml_serving_feedback_total", ofOne, "outcome"), "{{outcome}}"}}},
				{title: "Predictions by result", kind: stacked, unit: "reqps", width: 8, queries: []query{{rate("clearml_serving_feedback_predictions_total", ofOne, "result"), "{{result}}"}}},
				{title: "Predicted classes", kind: stacked, unit: "reqps", width: 8, queries: []query{{rate("clearml_serving_quality_predicted_total", ofOne, "class"), "{{class}}"}}},
			}},
		},
	},
	{
		uid: uidPrefix + "nodes", title: "ClearML Serving / Nodes", about: "The machines of the instances, and what each endpoint takes of them.",
		variables: []variable{instances},
		rows: []row{
			{title: "Machines", panels: []panel{
				{title: "CPU", about: "Part of the time that the processors were busy.", kind: lines, unit: "percentunit", width: 12, queries: []query{{rate("clearml_serving_machine_cpu_seconds_total", anywhere, "instance") + " / " + sum("clearml_serving_machine_cpus", anywhere, "instance"), "{{instance}}"}}},
				{title: "Memory", about: "Part of the memory that is used.", kind: lines, unit: "percentunit", width: 12, queries: []query{{"1 - " + sum("clearml_serving_machine_memory_available_bytes", anywhere, "instance") + " / " + sum("clearml_serving_machine_memory_bytes", anywhere, "instance"), "{{instance}}"}}},
				{title: "Free disk", about: "Free part of the disk of the data folder.", kind: lines, unit: "percentunit", width: 8, queries: []query{{sum("clearml_serving_machine_disk_free_bytes", anywhere, "instance") + " / " + sum("clearml_serving_machine_disk_bytes", anywhere, "instance"), "{{instance}}"}}},
				{title: "Network", kind: lines, unit: "Bps", width: 8, queries: []query{{rate("clearml_serving_machine_network_received_bytes_total", anywhere, "instance"), "{{instance}} received"}, {rate("clearml_serving_machine_network_sent_bytes_total", anywhere, "instance"), "{{instance}} sent"}}},
				{title: "Disk", kind: lines, unit: "Bps", width: 8, queries: []query{{rate("clearml_serving_machine_disk_read_bytes_total", anywhere, "instance"), "{{instance}} read"}, {rate("clearml_serving_machine_disk_written_bytes_total", anywhere, "instance"), "{{instance}} written"}}},
			}},
			{title: "Endpoints", panels: []panel{
				{title: "CPU of workers", about: "Processors that the workers of an endpoint use.", kind: stacked, unit: "short", width: 12, queries: []query{{rate("clearml_serving_worker_cpu_seconds_total", anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
				{title: "Memory of workers", kind: stacked, unit: "bytes", width: 12, queries: []query{{sum("clearml_serving_worker_memory_bytes", anywhere, "endpoint, version"), "{{endpoint}} {{version}}"}}},
			}},
			{title: "Instances", panels: []panel{
				{title: "Memory of the instance", about: "Of the Go process, without its workers.", kind: lines, unit: "bytes", width: 12, queries: []query{{sum("process_resident_memory_bytes", anywhere, "instance"), "{{instance}}"}}},
				{title: "Goroutines", kind: lines, unit: "short", width: 12, queries: []query{{sum("go_goroutines", anywhere, "instance"), "{{instance}}"}}},
			}},
		},
	},
}

// ofWatched has no instance: one process watches for all.
const ofWatched = `endpoint="$endpoint", version=~"$version", variable=~"$variable"`

const ofVariable = `variable=~"$variable", ` + ofOne
