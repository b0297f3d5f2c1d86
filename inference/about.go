package inference

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// What the Open Inference Protocol tells about the server and its models, in the form of its JSON; the fronts of the
// protocol share it.

// ServerName is this server's name.
const ServerName = "clearml-serving"

// Extensions are those of the protocol that are served.
func (s *Service) Extensions() []string {
	repository := "model_repository(index)"
	if s.controls() {
		repository = "model_repository"
	}
	return []string{"binary_tensor_data", "classification", "model_configuration", repository, "parameters", "statistics"}
}

// ServerMetadata describes the server.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// ModelMetadata describes a model.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// TensorMetadata describes an input or output.
type TensorMetadata struct {
	Name     string          `json:"name"`
	Datatype engine.Datatype `json:"datatype"`
	Shape    []int64         `json:"shape"`
}

// ModelMetadata describes the model with a name, whose endpoint is in h.
func (s *Service) ModelMetadata(h Head, name string) (*ModelMetadata, *Failure) {
	signature, failure := s.described(h)
	if failure != nil {
		return nil, failure
	}
	h.Endpoint = serving.CleanURL(name)
	return &ModelMetadata{
		Name: name, Versions: s.Versions(h), Platform: ServerName,
		Inputs: tensorsMetadata(signature.Inputs), Outputs: tensorsMetadata(signature.Outputs),
	}, nil
}

func (s *Service) described(h Head) (*engine.Signature, *Failure) {
	ticket, failure := s.find(h)
	if failure != nil {
		return nil, failure
	}
	signature, _, failure := s.Signature(ticket)
	signature = v2.Describe(&signature)
	return &signature, failure
}

func tensorsMetadata(specs []engine.TensorSpec) []TensorMetadata {
	list := make([]TensorMetadata, len(specs))
	for i, s := range specs {
		list[i] = TensorMetadata{s.Name, s.Datatype, s.Shape}
	}
	return list
}

// ModelConfig is the part of Triton's configuration of a model that its clients read.
type ModelConfig struct {
	Name         string         `json:"name"`
	Platform     string         `json:"platform"`
	Backend      string         `json:"backend"`
	MaxBatchSize int64          `json:"max_batch_size"`
	Input        []TensorConfig `json:"input"`
	Output       []TensorConfig `json:"output"`
}

// TensorConfig describes an input or output. Dims leave out the dimension of the batch, if there is one.
type TensorConfig struct {
	Name     string  `json:"name"`
	DataType string  `json:"data_type"`
	Dims     []int64 `json:"dims"`
}

// maxBatchSize is what is told of models that take any number of rows.
const maxBatchSize = 1024

// ModelConfig describes the model with a name, whose endpoint is in h.
func (s *Service) ModelConfig(h Head, name string) (*ModelConfig, *Failure) {
	signature, failure := s.described(h)
	if failure != nil {
		return nil, failure
	}
	config := &ModelConfig{Name: name, Platform: ServerName, Backend: ServerName}
	batched := v2.Batched(signature)
	if batched {
		config.MaxBatchSize = maxBatchSize
	}
	config.Input, config.Output = tensorsConfig(signature.Inputs, batched), tensorsConfig(signature.Outputs, batched)
	return config, nil
}

func tensorsConfig(specs []engine.TensorSpec, batched bool) []TensorConfig {
	list := make([]TensorConfig, len(specs))
	for i, s := range specs {
		dims := s.Shape
		if batched && len(dims) > 1 && dims[0] < 0 {
			dims = dims[1:]
		}
		list[i] = TensorConfig{s.Name, TritonType(s.Datatype), dims}
	}
	return list
}

// TritonType is the name of a datatype in Triton's configuration.
func TritonType(d engine.Datatype) string {
	if d == engine.Bytes {
		return "TYPE_STRING"
	}
	return "TYPE_" + string(d)
}

// Statistics are those of several models.
type Statistics struct {
	Models []ModelStatistics `json:"model_stats"`
}

// ModelStatistics are the counts and times of a model since it was configured, or the instance has started.
type ModelStatistics struct {
	Name           string         `json:"name"`
	Version        string         `json:"version"`
	LastInference  int64          `json:"last_inference"` // in milliseconds since 1970, 0: never
	InferenceCount uint64         `json:"inference_count"`
	ExecutionCount uint64         `json:"execution_count"`
	Inference      InferenceTimes `json:"inference_stats"`
	Batches        []BatchTimes   `json:"batch_stats"`
}

// BatchTimes are the times of the batches of a number of rows, where requests are computed together. Input and output are
// not told apart.
type BatchTimes struct {
	Rows          uint64 `json:"batch_size"`
	ComputeInput  Spent  `json:"compute_input"`
	ComputeInfer  Spent  `json:"compute_infer"`
	ComputeOutput Spent  `json:"compute_output"`
}

// InferenceTimes are what the time of requests was used for. Input and output are reading and writing tensors.
type InferenceTimes struct {
	Success       Spent `json:"success"`
	Fail          Spent `json:"fail"`
	Queue         Spent `json:"queue"`
	ComputeInput  Spent `json:"compute_input"`
	ComputeInfer  Spent `json:"compute_infer"`
	ComputeOutput Spent `json:"compute_output"`
	CacheHit      Spent `json:"cache_hit"`
	CacheMiss     Spent `json:"cache_miss"`
}

// Spent is a number of requests and the sum of their times.
type Spent struct {
	Count uint64        `json:"count"`
	NS    time.Duration `json:"ns"`
}

// ModelStatistics are those of the model with a name and version, whose endpoint is in h.
func (s *Service) ModelStatistics(h Head, name, version string) (*Statistics, *Failure) {
	if _, failure := s.find(h); failure != nil {
		return nil, failure
	}
	snapshot := s.router.Snapshot()
	models := []*router.Live{snapshot.Models[h.Endpoint]}
	if canary := snapshot.Canaries[h.Endpoint]; canary != nil {
		models = canary.Targets
	}
	return &Statistics{Models: []ModelStatistics{statisticsOf(name, cmp.Or(version, firstVersion), models)}}, nil
}

// AllStatistics are those of all models.
func (s *Service) AllStatistics() *Statistics {
	all := &Statistics{Models: []ModelStatistics{}}
	snapshot := s.router.Snapshot()
	for _, m := range s.ModelIndex(true) {
		url := s.Named(m.Name, m.Version)
		models := []*router.Live{snapshot.Models[url]}
		if canary := snapshot.Canaries[url]; canary != nil {
			models = canary.Targets
		}
		all.Models = append(all.Models, statisticsOf(m.Name, m.Version, models))
	}
	return all
}

// statisticsOf sums up the models of a name: those of a canary, or one.
func statisticsOf(name, version string, models []*router.Live) ModelStatistics {
	told := ModelStatistics{Name: name, Version: version, Batches: []BatchTimes{}}
	for _, live := range models {
		if live == nil { // it has gone meanwhile
			continue
		}
		t := live.Stats.Times()
		batches := t.Answered
		if report := live.Model.Status(); report.Batching != nil && report.Batching.Batches > 0 {
			batches = min(batches, report.Batching.Batches)
			for _, b := range report.Batching.BySize {
				told.addBatches(uint64(b.Rows), b.Batches, b.Took) //nolint:gosec // positive
			}
		}
		told.InferenceCount += t.Rows
		told.ExecutionCount += batches
		if !t.Last.IsZero() {
			told.LastInference = max(told.LastInference, t.Last.UnixMilli())
		}
		i := &told.Inference
		i.Success.add(t.Answered, t.AnsweredFor+t.Decoded+t.Encoded)
		i.Fail.add(t.Failed, t.FailedFor)
		i.Queue.add(t.Answered, t.Waited)
		i.ComputeInput.add(t.Answered, t.Decoded)
		i.ComputeInfer.add(t.Answered, t.AnsweredFor-t.Waited)
		i.ComputeOutput.add(t.Answered, t.Encoded)
	}
	return told
}

// addBatches adds the batches of a number of rows of one of several models.
func (m *ModelStatistics) addBatches(rows, batches uint64, took time.Duration) {
	i, known := slices.BinarySearchFunc(m.Batches, rows, func(b BatchTimes, rows uint64) int { return cmp.Compare(b.Rows, rows) })
	if !known {
		m.Batches = slices.Insert(m.Batches, i, BatchTimes{Rows: rows})
	}
	b := &m.Batches[i]
	b.ComputeInput.add(batches, 0)
	b.ComputeInfer.add(batches, took)
	b.ComputeOutput.add(batches, 0)
}

func (s *Spent) add(n uint64, took time.Duration) { s.Count, s.NS = s.Count+n, s.NS+took }

// ModelState is an entry of the list of models.
type ModelState struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"` // READY, LOADING or UNAVAILABLE
	Reason  string `json:"reason"`
}

// ModelIndex lists the endpoints and canaries as models, or those that are ready.
func (s *Service) ModelIndex(ready bool) []ModelState {
	list := []ModelState{}
	add := func(url serving.EndpointURL, state, reason string) {
		if ready && state != modelReady {
			return
		}
		m := ModelState{Name: string(url), Version: firstVersion, State: state, Reason: reason}
		if i := strings.LastIndexByte(m.Name, '/'); i > 0 && isVersion(m.Name[i+1:]) {
			m.Name, m.Version = m.Name[:i], m.Name[i+1:]
		}
		list = append(list, m)
	}
	snapshot := s.router.Snapshot()
	for url := range snapshot.Models {
		if _, hidden := snapshot.Canaries[url]; !hidden {
			add(url, modelReady, "")
		}
	}
	for url, canary := range snapshot.Canaries {
		state, reason := modelReady, ""
		if len(canary.Targets) == 0 {
			state, reason = modelUnavailable, "the canary has no endpoint to choose from"
		}
		add(url, state, reason)
	}
	for url, obstacle := range snapshot.Waiting {
		state := modelUnavailable
		if obstacle.Loading {
			state = modelLoading
		}
		add(url, state, obstacle.Reason)
	}
	slices.SortFunc(list, func(a, b ModelState) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(len(a.Version), len(b.Version)), cmp.Compare(a.Version, b.Version))
	})
	return list
}

// Speakers lists the endpoints and canaries whose models answer requests of the OpenAI API, and which the head's key
// opens.
func (s *Service) Speakers(h Head) []serving.EndpointURL {
	opens := s.gate.opener(h.Key)
	var urls []serving.EndpointURL
	add := func(url serving.EndpointURL, models ...*router.Live) {
		if opens(url) && slices.ContainsFunc(models, speaks) {
			urls = append(urls, url)
		}
	}
	snapshot := s.router.Snapshot()
	for url, live := range snapshot.Models {
		if _, hidden := snapshot.Canaries[url]; !hidden {
			add(url, live)
		}
	}
	for url, canary := range snapshot.Canaries {
		add(url, canary.Targets...)
	}
	slices.Sort(urls)
	return urls
}

func speaks(live *router.Live) bool {
	speaker, ok := live.Model.(engine.Speaker)
	return ok && speaker.Speaks()
}

const (
	modelReady       = "READY"
	modelLoading     = "LOADING"
	modelUnavailable = "UNAVAILABLE"
)

// isVersion reports whether the last part of a url is a version: a number.
func isVersion(part string) bool {
	return part != "" && strings.Trim(part, "0123456789") == ""
}
