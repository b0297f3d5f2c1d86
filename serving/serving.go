// Package serving is the domain model of ClearML Serving: endpoints, model monitoring, canaries,
// logged metrics, and the rules that turn the configuration of one serving service into a plan of
// endpoints. It owns the lossless encoding of the service's configuration objects. It is pure: it
// does no I/O, keeps no state, and does not know HTTP or processes.
package serving

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ModelID identifies a model in the model repository (32 hex digits on a real server).
type ModelID string

// EndpointURL is the path of an endpoint below /serve/: "<serving url>[/<version>]" without leading
// or trailing slashes. Requests are routed by it.
type EndpointURL string

// JoinURL makes the routing key of an endpoint from its serving url and version.
func JoinURL(servingURL, version string) EndpointURL {
	u := strings.Trim(servingURL, "/")
	if v := strings.Trim(version, "/"); v != "" {
		u += "/" + v
	}
	return EndpointURL(u)
}

// CleanURL makes a routing key of a path as a user types it ("/name/1/").
func CleanURL(path string) EndpointURL { return EndpointURL(strings.Trim(path, "/")) }

// The engines that a service's configuration may name. An inference instance decides which of them
// it can run, in its table of engines.
const (
	EngineTriton      = "triton"
	EngineSklearn     = "sklearn"
	EngineXGBoost     = "xgboost"
	EngineLightGBM    = "lightgbm"
	EngineCustom      = "custom"
	EngineCustomAsync = "custom_async"
	EngineONNX        = "onnx"
	EngineVLLM        = "vllm"
	EngineV2          = "v2"
	EngineOpenAI      = "openai"
	EngineTorchServe  = "torchserve"
)

// Engines lists every engine name that configuration may use.
func Engines() []string {
	return []string{EngineTriton, EngineSklearn, EngineXGBoost, EngineLightGBM, EngineCustom, EngineCustomAsync, EngineONNX, EngineGraph, EngineVLLM, EngineV2, EngineOpenAI, EngineTorchServe}
}

// Tensors describes the inputs and outputs of a model, position by position. Sizes are integers or
// lists of integers exactly as they were given.
type Tensors struct {
	InputSize  []any    `record:"input_size,sizes"`
	InputType  []string `record:"input_type"`
	InputName  []string `record:"input_name"`
	OutputSize []any    `record:"output_size,sizes"`
	OutputType []string `record:"output_type"`
	OutputName []string `record:"output_name"`
}

// Endpoint is one version of one model at one URL (the original's ModelEndpoint).
type Endpoint struct {
	EngineType         string  `record:"engine_type,required"`
	ServingURL         string  `record:"serving_url,required"` // as typed, without version
	ModelID            ModelID `record:"model_id"`
	Version            string  `record:"version,always"`      // a text, also if there is none: readers call .rstrip on it
	PreprocessArtifact string  `record:"preprocess_artifact"` // name of the artifact on the service's task, "" for none
	Tensors
	AuxiliaryCfg any                        `record:"auxiliary_cfg"` // nil, a text (config.pbtxt) or a nested map
	Unknown      map[string]json.RawMessage // fields of other products, kept unchanged
}

// URL is the routing key of the endpoint.
func (e Endpoint) URL() EndpointURL { return JoinURL(e.ServingURL, e.Version) }

// Monitoring creates endpoints from the models that match its query (the original's
// ModelMonitoring).
type Monitoring struct {
	BaseServingURL string   `record:"base_serving_url,required"`
	EngineType     string   `record:"engine_type,required"`
	Project        string   `record:"monitor_project"` // exact name, "" for any
	Name           string   `record:"monitor_name"`    // exact name, "" for any
	Tags           []string `record:"monitor_tags,always"`
	OnlyPublished  bool     `record:"only_published,always"`
	MaxVersions    int      `record:"max_versions"` // 0: no limit
	Tensors
	PreprocessArtifact string `record:"preprocess_artifact"`
	AuxiliaryCfg       any    `record:"auxiliary_cfg"`
	Unknown            map[string]json.RawMessage
}

// Canary splits the requests of one URL over several endpoints by weight (the original's CanaryEP).
// Exactly one of LoadEndpoints and LoadEndpointPrefix is set.
type Canary struct {
	Endpoint           string
	Weights            []float64
	LoadEndpoints      []string
	LoadEndpointPrefix string
	Unknown            map[string]json.RawMessage
}

// The kinds of a logged variable.
const (
	MetricScalar  = "scalar"
	MetricEnum    = "enum"
	MetricValue   = "value"
	MetricCounter = "counter"
)

// Metric is the logging of one variable of an endpoint.
type Metric struct {
	Type    string `record:"type,required"`
	Buckets []any  `record:"buckets"` // numbers for scalar, texts for enum, nil otherwise
	Unknown map[string]json.RawMessage
}

// MetricLogging lists the variables logged for an endpoint or, when Endpoint
// ends in "*", for every endpoint below that prefix (the original's EndpointMetricLogging).
type MetricLogging struct {
	Endpoint     string   `record:"endpoint,required"`
	LogFrequency *float64 `record:"log_frequency"` // share of requests, nil: the service's default
	Metrics      map[string]Metric
	Unknown      map[string]json.RawMessage
}

// Parameters are the service's settings in section "General" of its task.
type Parameters struct {
	ServingBaseURL        string
	TritonGRPCServer      string
	TritonGRPCCompression string
	KafkaServiceServer    string
	MetricLoggingFreq     string
}

// Names of the parameters in section "General", as the original writes them.
const (
	ParamServingBaseURL        = "serving_base_url"
	ParamTritonGRPCServer      = "triton_grpc_server"
	ParamTritonGRPCCompression = "triton_grpc_compression"
	ParamKafkaServiceServer    = "kafka_service_server"
	ParamMetricLoggingFreq     = "metric_logging_freq"
)

// ParametersFrom picks the service's settings out of the section "General".
func ParametersFrom(general map[string]string) Parameters {
	return Parameters{
		ServingBaseURL:        general[ParamServingBaseURL],
		TritonGRPCServer:      general[ParamTritonGRPCServer],
		TritonGRPCCompression: general[ParamTritonGRPCCompression],
		KafkaServiceServer:    general[ParamKafkaServiceServer],
		MetricLoggingFreq:     general[ParamMetricLoggingFreq],
	}
}

// For are the parameters that an engine reads.
func (p Parameters) For(engine string) Parameters {
	if engine != EngineTriton {
		return Parameters{}
	}
	return Parameters{TritonGRPCServer: p.TritonGRPCServer, TritonGRPCCompression: p.TritonGRPCCompression}
}

// LogShare is the share of the requests whose variables are logged if an endpoint's metrics have
// none: otherwise if the service has none either.
func (p Parameters) LogShare(otherwise float64) (float64, error) {
	if p.MetricLoggingFreq == "" {
		return otherwise, nil
	}
	share, err := strconv.ParseFloat(p.MetricLoggingFreq, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return otherwise, fmt.Errorf("parameter %s: %q is not a share of requests: give a number from 0 to 1", ParamMetricLoggingFreq, p.MetricLoggingFreq)
	}
	return share, nil
}

// Section is the name of one configuration object of a service's task.
type Section string

// The configuration objects of a service. Six belong to this product and are not used by the
// original: SectionVersions (the version numbers of monitored models), SectionOptions (recording,
// golden samples, shadow traffic and limits by URL), SectionAccess (access keys), SectionRevisions
// (what each URL deployed, when, and what became of it), SectionDrift (references of variables,
// and what is drift, by URL), and SectionRollouts (the steps and decisions of canaries).
const (
	SectionEndpoints           Section = "endpoints"
	SectionCanary              Section = "canary"
	SectionMonitoring          Section = "model_monitoring"
	SectionMetrics             Section = "metric_logging"
	SectionMonitoringEndpoints Section = "model_monitoring_eps"
	SectionVersions            Section = "model_monitoring_versions"
	SectionOptions             Section = "endpoint_options"
	SectionAccess              Section = "access_keys"
	SectionRevisions           Section = "endpoint_revisions"
	SectionDrift               Section = "variable_drift"
	SectionRollouts            Section = "canary_rollouts"
)

// Sections lists the configuration objects in the order in which the original stores them.
func Sections() []Section {
	return []Section{SectionEndpoints, SectionCanary, SectionMonitoring, SectionMetrics, SectionMonitoringEndpoints, SectionVersions, SectionOptions, SectionAccess, SectionRevisions, SectionDrift, SectionRollouts}
}

// Service is the configuration of one serving service. The maps are keyed as stored; a key may
// differ from the record's own URL if another product wrote it.
type Service struct {
	Endpoints           map[string]Endpoint
	Monitoring          map[string]Monitoring
	Canaries            map[string]Canary
	Metrics             map[string]MetricLogging
	MonitoringEndpoints map[string]Endpoint // endpoints made by monitoring, as last written back
	Versions            Versions
	Options             map[string]EndpointOptions
	Access              Access
	Revisions           map[string]History // by clean URL
	Drift               map[string]DriftSettings
	Rollouts            map[string]Rollout // of canaries, by clean URL
	Parameters          Parameters
	Broken              []BrokenRecord // records that could not be read; kept when a section is written
}

// BrokenRecord is a record of a section that cannot be used. It does not affect the others; it is
// shown, kept on writing, and can be removed by its key.
type BrokenRecord struct {
	Section Section
	Key     string // "" when the whole section is unreadable
	Raw     json.RawMessage
	Err     error
	// Kept: the service has its last good form, which stays in use.
	Kept bool
}

// BrokenIn returns the broken records of one section.
func (s Service) BrokenIn(section Section) []BrokenRecord {
	var found []BrokenRecord
	for _, b := range s.Broken {
		if b.Section == section {
			found = append(found, b)
		}
	}
	return found
}

// ModelElsewhere reports whether an engine has its models on other servers, so that an instance needs no files of them.
func ModelElsewhere(engine string) bool { return engine == EngineTriton || engine == EngineV2 }

// knownEngine reports whether the configuration may name the engine.
func knownEngine(name string) bool { return slices.Contains(Engines(), name) }
