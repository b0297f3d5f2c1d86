package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// option is one setting of the program. The table below is the only list of
// them: flags and "clearml-serving help environment" are made from it. A row is
// added together with the code that reads it.
//
// A flag wins over the variables, the first variable that is set and not empty
// over the next, all of them over the configuration file, and that over the
// default. The file's key is the name with "_" for "-" (serve_addr).
type option struct {
	name      string   // of the flag, or of the key in the configuration file alone
	variables []string // the original's name first, where it has one
	def       string
	help      string
	group     string
	noFlag    bool // only variables and the configuration file
	noFile    bool // decides where the configuration file is, or is not ours
	secret    bool // never printed
	isSwitch  bool // on or off
}

// The groups of settings, in the order in which they are documented.
const (
	optionsProgram    = "The program"
	optionsListen     = "Addresses"
	optionsInference  = "The inference service"
	optionsServer     = "The ClearML server"
	optionsStatistics = "Statistics"
	optionsSeries     = "Time series"
	optionsTriton     = "Triton"
)

var optionTable = []option{
	{
		name: "data-dir", variables: []string{"CLEARML_SERVING_HOME"}, group: optionsProgram, noFile: true,
		help: "folder of everything that a local installation keeps (default: clearml-serving in the XDG data home)",
	},
	{
		name: "config", variables: []string{"CLEARML_SERVING_CONFIG"}, group: optionsProgram, noFile: true,
		help: "configuration file, in the syntax of clearml.conf (default: serving.conf in the data folder)",
	},
	{name: "log-format", variables: []string{"CLEARML_SERVING_LOG_FORMAT"}, def: "text", group: optionsProgram, help: "form of the log on stderr: text or json"},
	{name: "log-level", variables: []string{"CLEARML_SERVING_LOG_LEVEL"}, group: optionsProgram, help: "least level that is logged: debug, info, warn or error (default: info for services, warn for other commands)"},
	{name: "color", variables: []string{"CLEARML_SERVING_COLOR"}, def: "auto", group: optionsProgram, help: "colours: auto, always or never"},
	{name: "python", variables: []string{"CLEARML_SERVING_PYTHON"}, group: optionsProgram, help: "Python interpreter that runs models (default: that of the active virtual environment, else of the one in which pip has installed this program, else python3)"},

	{name: "serve-addr", variables: []string{"CLEARML_SERVING_SERVE_ADDR"}, def: "127.0.0.1:8080", group: optionsListen, help: "where requests are answered"},
	{name: "api-addr", variables: []string{"CLEARML_SERVING_API_ADDR"}, def: "127.0.0.1:8008", group: optionsListen, help: "where the embedded ClearML server answers"},
	{name: "files-addr", variables: []string{"CLEARML_SERVING_FILES_ADDR"}, def: "127.0.0.1:8081", group: optionsListen, help: "where the embedded file server answers"},
	{name: "grpc-addr", variables: []string{"CLEARML_SERVING_GRPC_ADDR"}, def: "127.0.0.1:8090", group: optionsListen, help: "where requests of gRPC clients (Open Inference Protocol) are answered"},
	{name: "admin-addr", variables: []string{"CLEARML_SERVING_ADMIN_ADDR"}, def: "127.0.0.1:8083", group: optionsListen, help: "where operators find status and profiles"},
	{name: "api-url", variables: []string{"CLEARML_SERVING_API_URL"}, group: optionsListen, noFlag: true, help: "address by which others reach the embedded ClearML server, as http://clearml-serving-server:8008 (default: that of --api-addr, which is of this machine or container)"},
	{name: "files-url", variables: []string{"CLEARML_SERVING_FILES_URL"}, group: optionsListen, noFlag: true, help: "address by which others reach the embedded file server, which files are registered under (default: that of --files-addr)"},
	{name: "access-key", variables: []string{"CLEARML_SERVING_ACCESS_KEY"}, group: optionsListen, noFlag: true, secret: true, help: "access key that the embedded ClearML server accepts from its start, beside the one that it makes"},
	{name: "secret-key", variables: []string{"CLEARML_SERVING_SECRET_KEY"}, group: optionsListen, noFlag: true, secret: true, help: "secret key of the access key before, 16 characters or more"},
	{name: "database-url", variables: []string{"CLEARML_SERVING_DATABASE_URL"}, group: optionsListen, secret: true, help: "PostgreSQL database of the embedded ClearML server, postgres://user:password@host:5432/name (default: a file in the data folder)"},
	{name: "events-retention", variables: []string{"CLEARML_SERVING_EVENTS_RETENTION"}, group: optionsListen, help: "days for which the embedded ClearML server keeps reports of tasks: console, scalars, plots (default: for ever)"},
	{name: "tls-cert", variables: []string{"CLEARML_SERVING_TLS_CERT"}, group: optionsListen, help: "certificate chain in PEM with which requests are answered over TLS; a changed file is used from the next connection"},
	{name: "tls-key", variables: []string{"CLEARML_SERVING_TLS_KEY"}, group: optionsListen, help: "private key in PEM of --tls-cert"},
	{name: "tls-client-ca", variables: []string{"CLEARML_SERVING_TLS_CLIENT_CA"}, group: optionsListen, help: "authorities in PEM: clients must show a certificate of one of them"},
	{name: "api-tls-cert", variables: []string{"CLEARML_SERVING_API_TLS_CERT"}, group: optionsListen, help: "the same for the embedded ClearML server and its files"},
	{name: "api-tls-key", variables: []string{"CLEARML_SERVING_API_TLS_KEY"}, group: optionsListen, help: "private key in PEM of --api-tls-cert"},
	{name: "instance-tls-ca", variables: []string{"CLEARML_SERVING_INSTANCE_TLS_CA"}, group: optionsListen, help: "authorities in PEM for the certificates of inference instances, which the playground of the web pages asks (default: those that the machine trusts, which count in any case)"},
	{name: "admin-tls-cert", variables: []string{"CLEARML_SERVING_ADMIN_TLS_CERT"}, group: optionsListen, help: "certificate chain in PEM with which the admin listener answers over TLS"},
	{name: "admin-tls-key", variables: []string{"CLEARML_SERVING_ADMIN_TLS_KEY"}, group: optionsListen, help: "private key in PEM of --admin-tls-cert"},
	{name: "admin-tls-client-ca", variables: []string{"CLEARML_SERVING_ADMIN_TLS_CLIENT_CA"}, group: optionsListen, help: "authorities in PEM whose certificates operators must show"},
	{name: "admin-token", variables: []string{"CLEARML_SERVING_ADMIN_TOKEN"}, group: optionsListen, noFlag: true, secret: true, help: "what operators must send as Bearer token; without it, or a client certificate, the admin listener stays on this machine"},
	{name: "cors-origin", variables: []string{"CLEARML_SERVING_CORS_ORIGIN"}, group: optionsListen, help: "web pages that may send requests from a browser, as https://app.example.com with commas between, or * (default: none)"},
	{name: "serve-key", variables: []string{"CLEARML_SERVING_KEY"}, group: optionsListen, noFlag: true, secret: true, help: "key that commands show to a running inference service (see auth create)"},
	{name: "addr-fallback", variables: []string{"CLEARML_SERVING_ADDR_FALLBACK"}, def: "false", group: optionsListen, isSwitch: true, help: "take a free port when one of the addresses is taken, and say so"},
	{name: "serving-port", variables: []string{"CLEARML_SERVING_PORT"}, group: optionsListen, noFlag: true, help: "port at which requests are answered on every interface, 0.0.0.0, as containers set it; an address in --serve-addr wins"},
	{name: "serve-url", variables: []string{"CLEARML_SERVING_SERVE_URL"}, group: optionsListen, help: "address of a running inference service to ask (default: the one in the data folder)"},

	{name: "service-id", variables: []string{"CLEARML_SERVING_TASK_ID"}, group: optionsInference, noFlag: true, help: "id of the serving service that is served; --id wins (default: the first active one)"},
	{name: "folder", variables: []string{"CLEARML_SERVING_FOLDER"}, group: optionsInference, help: "serve what this folder has, without a ClearML server: what build has written, or a model file or folder as run takes it"},
	{name: "folder-endpoint", variables: []string{"CLEARML_SERVING_FOLDER_ENDPOINT"}, group: optionsInference, noFlag: true, help: "name of the endpoint of a model that --folder names; --endpoint wins"},
	{name: "instance-url", variables: []string{"CLEARML_SERVING_INSTANCE_URL"}, group: optionsInference, noFlag: true, help: "address by which other instances and the web pages reach this one, as http://10.0.0.7:8080 (default: that of --serve-addr, which is of this machine or container)"},
	{name: "inference-task-id", variables: []string{"CLEARML_INFERENCE_TASK_ID"}, group: optionsInference, help: "continue this task as the instance's record"},
	{name: "poll-freq", variables: []string{"CLEARML_SERVING_POLL_FREQ"}, def: "5", group: optionsInference, noFlag: true, help: "minutes between two looks at the configuration; fractions are fine"},
	{name: "num-process", variables: []string{"CLEARML_SERVING_NUM_PROCESS"}, group: optionsInference, noFlag: true, help: "worker processes for each endpoint (default: chosen by the number of cores)"},
	{name: "request-timeout", variables: []string{"GUNICORN_SERVING_TIMEOUT"}, def: "600", group: optionsInference, noFlag: true, help: "seconds that one request may take"},
	{name: "max-body", variables: []string{"CLEARML_SERVING_MAX_BODY"}, def: "256", group: optionsInference, help: "largest request body in MiB, as sent and decompressed"},
	{name: "max-connections", variables: []string{"CLEARML_SERVING_MAX_CONNECTIONS"}, def: "0", group: optionsInference, help: "most connections at a time; 0 for the service's own limit"},
	{name: "drain-delay", variables: []string{"CLEARML_SERVING_DRAIN_DELAY"}, def: "0", group: optionsInference, help: "seconds for which requests are still taken after a signal to end, while /readyz says 503 already: the time in which a load balancer notices"},
	{name: "stop-timeout", variables: []string{"CLEARML_SERVING_STOP_TIMEOUT"}, def: "30", group: optionsInference, help: "seconds that requests and streams under way may still take after a signal to end, and after the drain delay; then they are cut"},
	{name: "worker-env", variables: []string{"CLEARML_SERVING_WORKER_ENV"}, group: optionsInference, noFlag: true, help: "names of further variables that user code finds, with commas between"},
	{name: "worker-user", variables: []string{"CLEARML_SERVING_WORKER_USER"}, group: optionsInference, help: "account that user code runs as, by name or number; the service must be root for it (default: the service's own)"},
	{name: "worker-open-files", variables: []string{"CLEARML_SERVING_WORKER_OPEN_FILES"}, def: "4096", group: optionsInference, noFlag: true, help: "most descriptors of one worker; 0 for the machine's own limit"},
	{name: "memory-budget", variables: []string{"CLEARML_SERVING_MEMORY_BUDGET"}, def: "80%", group: optionsInference, help: "memory that all workers may take, as 4GiB, or as a share of what this machine or container has; near it idle workers above min-workers end early; 0 for no bound"},
	{name: "onnxruntime-library", variables: []string{"CLEARML_SERVING_ONNXRUNTIME"}, group: optionsInference, help: "ONNX Runtime's shared library, for the engine onnx (default: that of the interpreter's package onnxruntime, else that of doctor --install onnx, else the system's)"},
	{name: "triton-grpc-addr", variables: []string{"CLEARML_SERVING_TRITON_GRPC_ADDR", "CLEARML_DEFAULT_TRITON_GRPC_ADDR"}, def: "127.0.0.1:8001", group: optionsInference, help: "Triton's gRPC ports, with commas between, for services whose configuration has none (see config --triton-grpc-server)"},
	{name: "triton-grpc-compression", variables: []string{"CLEARML_SERVING_TRITON_GRPC_COMPRESSION", "CLEARML_DEFAULT_TRITON_GRPC_COMPRESSION"}, def: "false", group: optionsInference, isSwitch: true, help: "compress requests to Triton with gzip, for services whose configuration does not say"},
	{name: "torchserve-keys", variables: []string{"CLEARML_SERVING_TORCHSERVE_KEYS"}, group: optionsInference, help: "key_file.json of TorchServe at the addresses of endpoints' settings; the server of the role torchserve needs none"},
	{name: "torchserve-addr", variables: []string{"CLEARML_SERVING_TORCHSERVE_ADDR"}, def: "127.0.0.1:8086", group: optionsInference, help: "where the role torchserve answers operators and scrapers"},
	{name: "torchserve-port", variables: []string{"CLEARML_SERVING_TORCHSERVE_PORT"}, def: "7080", group: optionsInference, help: "first of five loopback ports of the server of the role torchserve"},
	{name: "torchserve-python", variables: []string{"CLEARML_SERVING_TORCHSERVE_PYTHON"}, def: "python3", group: optionsInference, help: "interpreter with the packages torchserve and torch, for the role torchserve"},
	{name: "torchserve-java", variables: []string{"CLEARML_SERVING_TORCHSERVE_JAVA"}, def: "java", group: optionsInference, help: "Java 17 or newer, for the role torchserve"},
	{name: "torchserve-vmargs", variables: []string{"CLEARML_SERVING_TORCHSERVE_VMARGS"}, group: optionsInference, help: "arguments for Java, such as -Xmx2g"},
	{name: "request-log", variables: []string{"CLEARML_SERVING_REQUEST_LOG"}, group: optionsInference, help: "where the files of the request log are put: s3://…, gs://…, azure://… or a folder (default: request-log in the data folder)"},
	{name: "request-log-file-size", variables: []string{"CLEARML_SERVING_REQUEST_LOG_FILE_SIZE"}, def: "64MiB", group: optionsInference, noFlag: true, help: "size of the rows, as JSON, after which a file of the request log ends"},
	{name: "request-log-file-time", variables: []string{"CLEARML_SERVING_REQUEST_LOG_FILE_TIME"}, def: "900", group: optionsInference, noFlag: true, help: "seconds after which a file of the request log ends"},
	{name: "request-log-max-size", variables: []string{"CLEARML_SERVING_REQUEST_LOG_MAX_SIZE"}, def: "4GiB", group: optionsInference, noFlag: true, help: "size of the request log on this machine; the oldest files are removed"},
	{name: "extra-python-packages", variables: []string{"CLEARML_EXTRA_PYTHON_PACKAGES", "EXTRA_PYTHON_PACKAGES"}, group: optionsInference, noFlag: true, help: "packages that user code finds besides those of the interpreter, in the words of pip install; installed once"},
	{name: "serve-suffix", variables: []string{"CLEARML_DEFAULT_SERVE_SUFFIX"}, def: "serve", group: optionsInference, noFlag: true, help: "first part of every endpoint's path"},

	{name: "kafka", variables: []string{"CLEARML_DEFAULT_KAFKA_SERVE_URL"}, group: optionsStatistics, help: "Kafka brokers of the statistics of requests, host:port with commas between; the service's own setting (config --kafka-metric-server) wins (default: none; the role statistics reads from localhost:9092)"},
	{name: "statistics-addr", variables: []string{"CLEARML_SERVING_STATISTICS_ADDR"}, def: "127.0.0.1:9999", group: optionsStatistics, help: "where the role statistics answers scrapers; CLEARML_SERVING_PORT is its port on every interface, as containers set it"},
	{name: "replica", variables: []string{"CLEARML_SERVING_STATISTICS_REPLICA"}, group: optionsStatistics, help: "name under which a replica of the role statistics keeps its counters; a replica that starts again needs the same (default: host name and port)"},
	{name: "kafka-tls", variables: []string{"CLEARML_SERVING_KAFKA_TLS"}, def: "false", group: optionsStatistics, noFlag: true, isSwitch: true, help: "connect to the brokers over TLS"},
	{name: "kafka-ca", variables: []string{"CLEARML_SERVING_KAFKA_CA"}, group: optionsStatistics, noFlag: true, help: "authorities in PEM for the certificates of the brokers (default: those that the machine trusts)"},
	{name: "kafka-cert", variables: []string{"CLEARML_SERVING_KAFKA_CERT"}, group: optionsStatistics, noFlag: true, help: "certificate chain in PEM that the brokers are shown"},
	{name: "kafka-key", variables: []string{"CLEARML_SERVING_KAFKA_KEY"}, group: optionsStatistics, noFlag: true, help: "private key in PEM of the certificate before"},
	{name: "kafka-sasl", variables: []string{"CLEARML_SERVING_KAFKA_SASL"}, group: optionsStatistics, noFlag: true, help: "mechanism of SASL: plain, scram-sha-256 or scram-sha-512 (default: none)"},
	{name: "kafka-user", variables: []string{"CLEARML_SERVING_KAFKA_USER"}, group: optionsStatistics, noFlag: true, help: "user of SASL"},
	{name: "kafka-password", variables: []string{"CLEARML_SERVING_KAFKA_PASSWORD"}, group: optionsStatistics, noFlag: true, secret: true, help: "password of SASL"},
	{name: "metric-log-freq", variables: []string{"CLEARML_DEFAULT_METRIC_LOG_FREQ"}, def: "1.0", group: optionsStatistics, noFlag: true, help: "share of requests whose variables are logged, 0 to 1"},

	{name: "timeseries-retention", variables: []string{"CLEARML_SERVING_TIMESERIES_RETENTION"}, def: "15", group: optionsSeries, help: "days for which time series of metrics are kept; fractions are fine"},
	{name: "timeseries-size", variables: []string{"CLEARML_SERVING_TIMESERIES_SIZE"}, def: "2GiB", group: optionsSeries, help: "most disk that time series of metrics may use; the oldest are removed first"},
	{name: "prometheus-url", variables: []string{"CLEARML_SERVING_PROMETHEUS_URL"}, group: optionsSeries, secret: true, help: "Prometheus whose time series are read instead of own ones, as http://host:9090 or https://user:password@host/prometheus"},
	{name: "prometheus-token", variables: []string{"CLEARML_SERVING_PROMETHEUS_TOKEN"}, group: optionsSeries, noFlag: true, secret: true, help: "bearer token for --prometheus-url"},
	{name: "remote-write-url", variables: []string{"CLEARML_SERVING_REMOTE_WRITE_URL"}, group: optionsSeries, secret: true, help: "address to which samples of metrics are sent too, by Prometheus' remote write: http://host:9090/api/v1/write"},
	{name: "remote-write-token", variables: []string{"CLEARML_SERVING_REMOTE_WRITE_TOKEN"}, group: optionsSeries, noFlag: true, secret: true, help: "bearer token for --remote-write-url"},

	{name: "tritonserver", variables: []string{"CLEARML_SERVING_TRITONSERVER"}, group: optionsTriton, help: "the program tritonserver (default: that in PATH, else /opt/tritonserver/bin/tritonserver)"},
	{name: "triton-addr", variables: []string{"CLEARML_SERVING_TRITON_ADDR"}, def: "127.0.0.1:8084", group: optionsTriton, help: "where operators find the status and the metrics of the role triton"},
	{name: "update-frequency", variables: []string{"CLEARML_TRITON_POLL_FREQ", "CLEARML_TRITON_UPDATE_FREQUENCY"}, def: "10", group: optionsTriton, help: "minutes between two looks of the role triton at the configuration; the embedded server is looked at every second"},
	{name: "metric-frequency", variables: []string{"CLEARML_TRITON_METRIC_FREQ", "CLEARML_TRITON_METRIC_FREQUENCY"}, def: "1", group: optionsTriton, help: "minutes between two reports of Triton's metrics to the tasks of the role and of the serving service"},
	{name: "triton-helper-args", variables: []string{"CLEARML_TRITON_HELPER_ARGS"}, group: optionsTriton, noFlag: true, help: "words before those of the command line of the role triton"},
	{name: "t-http-port", variables: []string{"CLEARML_TRITON_T_HTTP_PORT"}, def: "8000", group: optionsTriton, help: "port of Triton's HTTP, which only this machine reaches"},
	{name: "t-http-thread-count", variables: []string{"CLEARML_TRITON_T_HTTP_THREAD_COUNT"}, group: optionsTriton, help: "threads of Triton's HTTP, 4 or more"},
	{name: "t-allow-grpc", variables: []string{"CLEARML_TRITON_T_ALLOW_GRPC"}, group: optionsTriton, help: "true or false: whether Triton answers gRPC"},
	{name: "t-grpc-port", variables: []string{"CLEARML_TRITON_T_GRPC_PORT"}, def: "8001", group: optionsTriton, help: "port of Triton's gRPC"},
	{name: "t-grpc-infer-allocation-pool-size", variables: []string{"CLEARML_TRITON_T_GRPC_INFER_ALLOCATION_POOL_SIZE"}, group: optionsTriton, help: "flag of tritonserver of that name"},
	{name: "t-pinned-memory-pool-byte-size", variables: []string{"CLEARML_TRITON_T_PINNED_MEMORY_POOL_BYTE_SIZE"}, group: optionsTriton, help: "flag of tritonserver of that name"},
	{name: "t-cuda-memory-pool-byte-size", variables: []string{"CLEARML_TRITON_T_CUDA_MEMORY_POOL_BYTE_SIZE"}, group: optionsTriton, help: "flag of tritonserver of that name, as <gpu>:<bytes>"},
	{name: "t-min-supported-compute-capability", variables: []string{"CLEARML_TRITON_T_MIN_SUPPORTED_COMPUTE_CAPABILITY"}, group: optionsTriton, help: "flag of tritonserver of that name"},
	{name: "t-buffer-manager-thread-count", variables: []string{"CLEARML_TRITON_T_BUFFER_MANAGER_THREAD_COUNT"}, group: optionsTriton, help: "flag of tritonserver of that name"},
	{name: "t-log-verbose", variables: []string{"CLEARML_TRITON_T_LOG_VERBOSE"}, group: optionsTriton, help: "flag of tritonserver of that name"},
	{name: "t-exit-on-error", variables: []string{"CLEARML_TRITON_T_EXIT_ON_ERROR"}, group: optionsTriton, help: "flag of tritonserver of that name; models that cannot be loaded never end it here"},
	{name: "t-grpc-address", variables: []string{"CLEARML_TRITON_T_GRPC_ADDRESS"}, def: "127.0.0.1", group: optionsTriton, help: "address of Triton's gRPC; with another than this machine's, its calls that change models are closed"},
	{name: "t-metrics-port", variables: []string{"CLEARML_TRITON_T_METRICS_PORT"}, def: "8002", group: optionsTriton, help: "port of Triton's metrics, which only this machine reaches"},

	{name: "files-aliases", variables: []string{"CLEARML_SERVING_FILES_ALIASES"}, group: optionsServer, noFlag: true, help: "further addresses of the ClearML server's files, with commas between, which files were registered under and which are not reached from here, such as http://127.0.0.1:8081 of a port-forward"},
	{name: "files-destination", variables: []string{"CLEARML_SERVING_FILES_DESTINATION"}, group: optionsServer, help: "where the embedded file server keeps its files: s3://…, gs://…, azure://… or a folder (default: files in the data folder)"},
	{name: "clearml-config-file", variables: []string{"CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"}, group: optionsServer, noFlag: true, noFile: true, help: "the SDK's configuration (default: ~/clearml.conf)"},
	{name: "api-host", variables: []string{"CLEARML_API_HOST", "TRAINS_API_HOST"}, group: optionsServer, noFlag: true, noFile: true, help: "address of the ClearML server's API"},
	{name: "web-host", variables: []string{"CLEARML_WEB_HOST", "TRAINS_WEB_HOST"}, group: optionsServer, noFlag: true, noFile: true, help: "address of the ClearML server's web pages"},
	{name: "files-host", variables: []string{"CLEARML_FILES_HOST", "TRAINS_FILES_HOST"}, group: optionsServer, noFlag: true, noFile: true, help: "address of the ClearML server's files"},
	{name: "api-access-key", variables: []string{"CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "access key of the credentials"},
	{name: "api-secret-key", variables: []string{"CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "secret key of the credentials"},
	{name: "auth-token", variables: []string{"CLEARML_AUTH_TOKEN"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "token instead of the credentials"},
	{name: "verify-cert", variables: []string{"CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT"}, group: optionsServer, noFlag: true, noFile: true, help: "verify the certificates of the ClearML servers and of files at https addresses: true, false, or a file or folder of authorities, which count for all other connections too"},
	{name: "ca-bundle", variables: []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}, group: optionsServer, noFlag: true, noFile: true, help: "file or folder of authorities instead of the machine's, for every connection; in the SDK it wins over the one before, here that one wins unless it is true"},
	{name: "cert-file", variables: []string{"SSL_CERT_FILE", "SSL_CERT_DIR"}, group: optionsServer, noFlag: true, noFile: true, help: "file, or folders, of the machine's authorities (default: the system's)"},
	{name: "http-proxy", variables: []string{"http_proxy", "HTTP_PROXY"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "proxy for http addresses; never for this machine, though the SDK asks it for this machine too"},
	{name: "https-proxy", variables: []string{"https_proxy", "HTTPS_PROXY"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "proxy for https addresses"},
	{name: "all-proxy", variables: []string{"all_proxy", "ALL_PROXY"}, group: optionsServer, noFlag: true, noFile: true, secret: true, help: "proxy where neither of the two before is set"},
	{name: "no-proxy", variables: []string{"no_proxy", "NO_PROXY"}, group: optionsServer, noFlag: true, noFile: true, help: "hosts, domains and networks that are asked without a proxy, separated by commas"},
}

// lookUpOption finds a row of the table. Tests check that each name in the code has
// a row, and that each row is read.
func lookUpOption(name string) option {
	i := slices.IndexFunc(optionTable, func(o option) bool { return o.name == name })
	if i < 0 {
		return option{name: name}
	}
	return optionTable[i]
}

// declare adds the flag of an option to a command.
func (a *app) declare(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		o := lookUpOption(name)
		if o.isSwitch {
			flags.Bool(name, false, o.help)
		} else {
			flags.String(name, o.def, o.help)
		}
		mark(flags, name, markOurs)
	}
}

// setting is the value of an option with where it comes from.
type setting struct {
	value string
	// source is "--flag", a variable's name, the file's name, or sourceDefault.
	source string
}

const sourceDefault = "default"

// setting finds the value of an option by the rule of precedence.
func (a *app) setting(name string) setting {
	o := lookUpOption(name)
	if a.flags != nil && !o.noFlag {
		if f := a.flags.Lookup(name); f != nil && f.Changed {
			return setting{f.Value.String(), "--" + name}
		}
	}
	for _, variable := range o.variables {
		if value, ok := a.sys.env(variable); ok && strings.TrimSpace(value) != "" {
			return setting{strings.TrimSpace(value), variable}
		}
	}
	if !o.noFile {
		if value, ok := a.fromFile(strings.ReplaceAll(name, "-", "_")); ok {
			return setting{value, a.files.path}
		}
	}
	return setting{o.def, sourceDefault}
}

// text is the value of an option.
func (a *app) text(name string) string { return a.setting(name).value }

// choice is the value of an option that must be one of those given.
func (a *app) choice(name string, allowed ...string) (string, error) {
	s := a.setting(name)
	if slices.Contains(allowed, s.value) {
		return s.value, nil
	}
	return "", s.refuse("give one of " + strings.TrimPrefix(strings.Join(allowed, ", "), ", "))
}

// number is the value of an option that is a number from 0 to most.
func (a *app) number(name, what string, most float64) (float64, error) {
	s := a.setting(name)
	f, err := strconv.ParseFloat(s.value, 64)
	if err != nil || !(f >= 0 && f <= most) { // false for NaN
		return 0, s.refuse(what)
	}
	return f, nil
}

// share is the value of an option that is a number from 0 to 1.
func (a *app) share(name string) (float64, error) {
	return a.number(name, "give a number from 0 to 1", 1)
}

// duration is the value of an option that counts in units, fractions included.
func (a *app) duration(name string, unit time.Duration) (time.Duration, error) {
	most := math.MaxInt64 / int64(unit)
	what := fmt.Sprintf("give a number greater than 0, at most %d", most)
	f, err := a.number(name, what, float64(most))
	if err == nil && time.Duration(f*float64(unit)) <= 0 {
		err = a.setting(name).refuse(what)
	}
	return time.Duration(f * float64(unit)), err
}

// seconds is the value of an option that counts in seconds, fractions included,
// and may be none.
func (a *app) seconds(name string) (time.Duration, error) {
	f, err := a.number(name, "give a number of seconds, 0 for none", float64(math.MaxInt64/int64(time.Second)))
	return time.Duration(f * float64(time.Second)), err
}

// whole is the value of an option that is a whole number, 0 when it is not set.
func (a *app) whole(name string) (int, error) {
	s := a.setting(name)
	if s.value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s.value)
	if err != nil || n < 0 {
		return 0, s.refuse("give a whole number")
	}
	return n, nil
}

// on is the value of an option that is on or off.
func (a *app) on(name string) (bool, error) {
	s := a.setting(name)
	switch strings.ToLower(s.value) {
	case "1", "true", "yes", "on":
		return true, nil
	case "", "0", "false", "no", "off":
		return false, nil
	}
	return false, s.refuse("give true or false")
}

// refuse says that the value cannot be used, and where it was set.
func (s setting) refuse(what string) error {
	return fmt.Errorf("%s: %s is no usable value: %s", s.source, pyText(s.value), what)
}
