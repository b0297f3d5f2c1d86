package statistics

import "github.com/prometheus/client_golang/prometheus"

// family is one metric for scrapers. docs/metrics.md is generated from the families.
type family struct {
	name   string
	kind   string // counter, gauge, histogram
	help   string
	labels []string
	desc   *prometheus.Desc
}

func newFamily(kind, name, help string, labels ...string) *family {
	name = "clearml_serving_" + name
	return &family{name, kind, help, labels, prometheus.NewDesc(name, help, labels, nil)}
}

// ofEndpoint returns a family with a series for each endpoint, and for each value of the labels.
func ofEndpoint(kind, name, help string, labels ...string) *family {
	return newFamily(kind, name, help, append([]string{"endpoint", "version"}, labels...)...)
}

const (
	isCounter   = "counter"
	isGauge     = "gauge"
	isHistogram = "histogram"
)

// families are all metrics, in the order of the documentation.
//
//nolint:gochecknoglobals // a constant table
var (
	requestsTotal = ofEndpoint(isCounter, "requests_total",
		"Requests by outcome: answered (status below 400), client_error (user code answered 400 to 499), bad_request (never came to user code), error (500 and above, or nothing could answer), timed_out, refused (a queue or memory limit).", "outcome")
	canaryRequests = ofEndpoint(isCounter, "canary_requests_total",
		"Requests that came to the endpoint through a canary, by outcome. They are in requests_total too.", "canary", "outcome")
	canaryDuration = ofEndpoint(isHistogram, "canary_request_duration_seconds",
		"clearml_serving_request_duration_seconds of the requests that came to the endpoint through a canary.", "canary")
	requestsInProgress = ofEndpoint(isGauge, "requests_in_progress", "Requests that a model has now, queued ones included.")
	requestDuration    = ofEndpoint(isHistogram, "request_duration_seconds",
		"Time from the whole request to the answer or the failure, of requests that came to a model. A stream is measured up to its beginning.")
	queueDuration = ofEndpoint(isHistogram, "request_queue_duration_seconds",
		"Part of the time of answered requests that they waited before they were sent to a worker.")
	workerDuration = ofEndpoint(isHistogram, "request_worker_duration_seconds",
		"Part of the time of answered requests that they were at a worker. A busy worker is sent a few requests ahead: their wait there is included.")
	streamDuration = ofEndpoint(isHistogram, "stream_duration_seconds", "Time from the whole request to the end of a streamed answer that was sent whole.")
	requestSize    = ofEndpoint(isHistogram, "request_size_bytes", "Size of the bodies of requests that came to a model, decompressed.")
	responseSize   = ofEndpoint(isHistogram, "response_size_bytes", "Size of the bodies of answers; of streams, if they were sent whole.")

	endpointReady = ofEndpoint(isGauge, "endpoint_ready", "1 if the endpoint serves what is configured, 0 otherwise.")
	endpointInfo  = ofEndpoint(isGauge, "endpoint_info", "What the endpoint serves; the value is always 1.", "engine", "model_id", "revision")
	queuedRequest = ofEndpoint(isGauge, "queued_requests", "Requests that wait for a worker now.")
	queueLimit    = ofEndpoint(isGauge, "queue_limit_requests", "How many requests may wait. Others are refused.")
	workers       = ofEndpoint(isGauge, "workers", "Worker processes by what they do: idle, busy, calling (they wait for a send_request), leaving.", "state")
	workersLimit  = ofEndpoint(isGauge, "workers_limit", "Maximum number of worker processes.")
	restarts      = ofEndpoint(isCounter, "worker_restarts_total", "Unwanted deaths of worker processes since the model was loaded.")

	workerMemory = ofEndpoint(isGauge, "worker_memory_bytes", "Memory of the worker processes and of what they have started; memory that processes share is divided among them.")
	workerCPU    = ofEndpoint(isCounter, "worker_cpu_seconds_total", "CPU time of the worker processes and of what they have started.")

	batchRows = ofEndpoint(isHistogram, "batch_rows", "Rows of executed batches, since the model was loaded. Endpoints without batching have none.")
	batchMax  = ofEndpoint(isGauge, "batch_limit_rows", "Rows that the last batch was allowed to have.")

	tokenUsage = ofEndpoint(isCounter, "gen_ai_token_usage_total",
		"Tokens of a language model's requests (input) and answers (output), as its server counts them, since the model was loaded.", "token_type")
	firstToken = ofEndpoint(isHistogram, "gen_ai_server_time_to_first_token_seconds",
		"Time from a request to the first piece of its streamed answer that has content, since the model was loaded.")
	betweenTokens = ofEndpoint(isHistogram, "gen_ai_server_time_per_output_token_seconds",
		"Time from one piece of a streamed answer to the next, since the model was loaded.")

	shadowRequests = ofEndpoint(isCounter, "shadow_requests_total",
		"Copies of requests to another endpoint (target) by result: equal, different, error, dropped, not_compared.", "target", "result")
	recordedRequests = ofEndpoint(isCounter, "recorded_requests_total", "Requests to record by result: recorded, dropped, skipped.", "result")

	canaryShare    = ofEndpoint(isGauge, "canary_share", "Share of the requests of a canary with steps that its candidate gets.", "candidate")
	canaryPhase    = ofEndpoint(isGauge, "canary_phase", "What a canary with steps does: 1 for running, paused, held (it waits for a person), frozen (its baseline is bad), promoted or rolled back, 0 for the others.", "candidate", "phase")
	canaryEvidence = ofEndpoint(isGauge, "canary_evidence", "Natural logarithm of the evidence of all instances against the candidate, by rule; the rule \"all\" decides.", "candidate", "rule")
	canaryLimit    = ofEndpoint(isGauge, "canary_evidence_limit", "Value of clearml_serving_canary_evidence with rule \"all\" at which the candidate loses its requests.", "candidate")
	canaryVerdict  = ofEndpoint(isGauge, "canary_verdict", "What the evidence says: 1 for not known yet, go on or roll back, 0 for the others.", "candidate", "verdict")
	canaryDecides  = ofEndpoint(isGauge, "canary_decides", "1 on the instance that stores the decisions, 0 on the others.", "candidate")

	variableSamples  = ofEndpoint(isCounter, "sampled_requests_total", "Requests whose logged variables were recorded.")
	variableValue    = ofEndpoint(isGauge, "variable_value", "Last value of a variable of type value, or of a number that user code collected without a definition.", "variable")
	variableSum      = ofEndpoint(isCounter, "variable_total", "Sum of a variable of type counter, extrapolated to all requests where only a share is sampled.", "variable")
	variableScalar   = ofEndpoint(isHistogram, "variable_distribution", "Values of a variable of type scalar in sampled requests, with the configured buckets. Each element of a list is a value.", "variable")
	variableWords    = ofEndpoint(isCounter, "variable_values_total", "Values of a variable of type enum in sampled requests; the value \"other\" stands for all that are not listed.", "variable", "value")
	variablesSkipped = ofEndpoint(isCounter, "variables_skipped_total",
		"Values that were not recorded: missing (not in the request, the answer or what was collected), null (also: could not be encoded, as NaN), type, negative (of a counter), limit (too many names, or elements of a list).", "variable", "reason")
	driftValues = ofEndpoint(isCounter, "drift_values_total",
		"Values in sampled requests of variables that have a reference, by the bins of the reference; docs/drift.md describes them. \"(missing)\" has also values of a wrong type, \"(other)\" the categories without a bin of their own. The label reference changes with the bins.", "variable", "reference", "bin")
	driftUnexpected = ofEndpoint(isCounter, "drift_unexpected_values_total",
		"Values that the reference does not have, by kind: missing, type (no number, or neither number nor word), new_category, below and above (the least and the largest number of the reference). They are in drift_values_total too.", "variable", "kind")
	samplesDropped = newFamily(isCounter, "samples_dropped_total", "Sampled requests whose variables were not recorded because too many waited to be read.")
	samplesBroken  = newFamily(isCounter, "samples_unreadable_total", "Sampled requests whose variables could not be read.")

	machineCPUs            = newFamily(isGauge, "machine_cpus", "Processors of the machine.")
	machineCPU             = newFamily(isCounter, "machine_cpu_seconds_total", "Time that the machine's processors were busy.")
	machineMemory          = newFamily(isGauge, "machine_memory_bytes", "Memory of the machine.")
	machineMemoryAvailable = newFamily(isGauge, "machine_memory_available_bytes", "Memory that processes can still get without swapping.")
	machineDisk            = newFamily(isGauge, "machine_disk_bytes", "Size of the disk of the data folder.")
	machineDiskFree        = newFamily(isGauge, "machine_disk_free_bytes", "Free part of the disk of the data folder.")
	machineReceived        = newFamily(isCounter, "machine_network_received_bytes_total", "Bytes that the machine received on all networks.")
	machineSent            = newFamily(isCounter, "machine_network_sent_bytes_total", "Bytes that the machine sent on all networks.")
	machineRead            = newFamily(isCounter, "machine_disk_read_bytes_total", "Bytes that the machine read from all disks.")
	machineWritten         = newFamily(isCounter, "machine_disk_written_bytes_total", "Bytes that the machine wrote to all disks.")
	gpuUtilization         = newFamily(isGauge, "gpu_utilization_ratio", "Share of the time that the GPU was busy, as nvidia-smi reports it.", "gpu")
	gpuMemory              = newFamily(isGauge, "gpu_memory_bytes", "Memory of the GPU.", "gpu")
	gpuMemoryUsed          = newFamily(isGauge, "gpu_memory_used_bytes", "Used memory of the GPU.", "gpu")
	gpuTemperature         = newFamily(isGauge, "gpu_temperature_celsius", "Temperature of the GPU.", "gpu")

	forwardedSent    = newFamily(isCounter, "statistics_sent_total", "Sampled requests whose statistics Kafka has acknowledged.")
	forwardedLost    = newFamily(isCounter, "statistics_lost_total", "Sampled requests whose statistics were not sent to Kafka, by reason: memory (they came faster than they were queued), queue_full (Kafka was away for too long), disk (the queue could not be written), too_large, unreadable.", "reason")
	forwardedWaiting = newFamily(isGauge, "statistics_waiting_requests", "Sampled requests whose statistics wait for Kafka, in memory and on the disk.")
	forwardedStored  = newFamily(isGauge, "statistics_queue_bytes", "Size of the queue on the disk.")

	readerConnected = newFamily(isGauge, "statistics_reading", "1 if messages are read from Kafka, 0 otherwise.")
	readerMessages  = newFamily(isCounter, "statistics_messages_total", "Messages that this replica has read and counted, also before a restart.")
	readerRecords   = newFamily(isCounter, "statistics_records_total", "Records of requests that this replica has counted, also before a restart.")
	readerSkipped   = newFamily(isCounter, "statistics_skipped_total", "What this replica could not count, by reason: no_list (a whole message is not a JSON list); of single records no_object, no_url, builtin (_latency or _count is no usable number), endpoints (too many different URLs).", "reason")
	readerLag       = newFamily(isGauge, "statistics_lag_messages", "Messages of the partitions of this replica that it has not counted yet.", "partition")
	readerAborted   = newFamily(isCounter, "statistics_aborted_transactions_total", "Transactions that were repeated because partitions changed between replicas.")

	addressHealthy     = newFamily(isGauge, "engine_address_healthy", "1 if an address of an engine that runs beside the instance gets requests, 0 if it is ejected or on trial.", "engine", "address")
	addressOutstanding = newFamily(isGauge, "engine_address_outstanding_requests", "Requests that the engine at an address has now.", "engine", "address")
	addressAnswered    = newFamily(isCounter, "engine_address_answered_total", "Requests that the engine at an address has answered, its errors included.", "engine", "address")
	addressFailed      = newFamily(isCounter, "engine_address_failed_total", "Requests that failed at an address: no connection, a lost one, an answer that is not of the protocol.", "engine", "address")

	keysRefused   = newFamily(isCounter, "unauthorized_requests_total", "Requests without a key that is good for what they asked.")
	memoryTaken   = newFamily(isGauge, "workers_memory_bytes", "Memory of all worker processes and of those that fork them. Only with a memory budget.")
	memoryBudget  = newFamily(isGauge, "workers_memory_budget_bytes", "Bound of clearml_serving_workers_memory_bytes.")
	memoryShort   = newFamily(isGauge, "workers_memory_short", "1 if the budget made idle workers end early within the last minute, or is exceeded.")
	endedEarly    = newFamily(isCounter, "workers_ended_early_total", "Idle workers that were ended early because of the memory budget.")
	synced        = newFamily(isGauge, "configuration_synced", "1 if the configuration has been read and the control plane answers, 0 otherwise.")
	problems      = newFamily(isGauge, "configuration_problems", "Parts of the configuration that are not served as written.")
	countersKept  = newFamily(isGauge, "counters_kept", "1 if the counters of requests and variables survive a kill of the instance, 0 if they are in memory only: the disk is full, or the file cannot be used.")
	instanceStart = newFamily(isGauge, "start_time_seconds", "Start of the instance, in seconds since 1970.")
)

// section is a part of the documentation.
type section struct {
	title    string
	families []*family
}

func sections() []section {
	return []section{
		{"Requests", []*family{requestsTotal, requestsInProgress, requestDuration, queueDuration, workerDuration, streamDuration, requestSize, responseSize, canaryRequests, canaryDuration, keysRefused}},
		{"Endpoints and workers", []*family{endpointReady, endpointInfo, queuedRequest, queueLimit, workers, workersLimit, restarts, workerMemory, workerCPU}},
		{"Batching", []*family{batchRows, batchMax}},
		{"Engines beside the instance", []*family{addressHealthy, addressOutstanding, addressAnswered, addressFailed}},
		{"Language models", []*family{tokenUsage, firstToken, betweenTokens}},
		{"Logged variables", []*family{variableSamples, variableValue, variableSum, variableScalar, variableWords, variablesSkipped, samplesDropped, samplesBroken}},
		{"Drift", []*family{driftValues, driftUnexpected}},
		{"Statistics for Kafka", []*family{forwardedSent, forwardedLost, forwardedWaiting, forwardedStored}},
		{"Statistics role", []*family{readerConnected, readerMessages, readerRecords, readerSkipped, readerLag, readerAborted}},
		{"Copies and recordings", []*family{shadowRequests, recordedRequests}},
		{"Canaries with steps", []*family{canaryShare, canaryPhase, canaryEvidence, canaryLimit, canaryVerdict, canaryDecides}},
		{"Instance", []*family{instanceStart, countersKept, synced, problems, memoryTaken, memoryBudget, memoryShort, endedEarly}},
		{"Machine", []*family{machineCPUs, machineCPU, machineMemory, machineMemoryAvailable, machineDisk, machineDiskFree, machineReceived, machineSent, machineRead, machineWritten, gpuUtilization, gpuMemory, gpuMemoryUsed, gpuTemperature}},
	}
}
