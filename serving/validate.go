package serving

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// FieldError names a field of a record that cannot be used, and the reason.
type FieldError struct {
	Field string
	Value string
	Why   string
}

func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("field %s %s", e.Field, e.Why)
	}
	return fmt.Sprintf("field %s: %s %s", e.Field, e.Value, e.Why)
}

// Validate checks a record before it is stored. Reading stored records accepts more (Decode).
func (e Endpoint) Validate() error {
	if err := validateModel(e.ServingURL, e.EngineType, e.Tensors, e.AuxiliaryCfg); err != nil {
		return err
	}
	if e.EngineType == EngineGraph {
		switch {
		case e.ModelID != "":
			return &FieldError{Field: "model_id", Value: string(e.ModelID), Why: "is not for a graph, which has no model of its own: serve the model under another name, and call it from the graph"}
		case e.PreprocessArtifact != "":
			return &FieldError{Field: "preprocess_artifact", Value: e.PreprocessArtifact, Why: "is not for a graph, which runs no code: serve the code with --engine custom under another name, and call it from the graph"}
		}
	}
	if e.Version != "" {
		return validateURL("version", e.Version)
	}
	return nil
}

// validateModel checks what an endpoint and a monitoring have in common.
func validateModel(url, engine string, tensors Tensors, aux any) error {
	if err := validateTriton(engine, aux); err != nil {
		return err
	}
	if !knownEngine(engine) {
		return fmt.Errorf("%s not supported engine type (one of %s)", engine, strings.Join(Engines(), ", "))
	}
	if err := validateURL("endpoint", url); err != nil {
		return err
	}
	if _, err := BatchingOf(engine, aux); err != nil {
		return err
	}
	if _, err := NaNAsNull(engine, aux); err != nil {
		return err
	}
	if _, err := Method(engine, aux); err != nil {
		return err
	}
	if _, err := ONNXOf(engine, aux); err != nil {
		return err
	}
	if _, err := V2Of(engine, aux); err != nil {
		return err
	}
	if _, err := Accelerate(engine, aux); err != nil {
		return err
	}
	if _, err := TorchServeOf(engine, aux); err != nil {
		return err
	}
	if _, err := GraphOf(engine, aux); err != nil {
		return err
	}
	if _, err := OpenAIOf(engine, aux); err != nil {
		return err
	}
	return tensors.validate(engine)
}

// Validate checks a record before it is stored.
func (m Monitoring) Validate() error {
	if err := validateModel(m.BaseServingURL, m.EngineType, m.Tensors, m.AuxiliaryCfg); err != nil {
		return err
	}
	if m.EngineType == EngineGraph {
		return errors.New("a graph has no model whose versions could be followed: give it a static endpoint (model add), and let its steps call auto-updated ones")
	}
	if m.Project == "" && m.Name == "" && len(m.Tags) == 0 {
		return errors.New("Model monitoring requires at least a project / name / tag to monitor, none were provided.") //nolint:staticcheck // the original's words
	}
	if m.MaxVersions < 0 {
		return &FieldError{Field: "max_versions", Value: fmt.Sprint(m.MaxVersions), Why: "is negative; give 1 or more"}
	}
	return nil
}

// Validate checks a record before it is stored.
func (c Canary) Validate() error {
	if err := validateURL("endpoint", c.Endpoint); err != nil {
		return err
	}
	if len(c.LoadEndpoints) > 0 && c.LoadEndpointPrefix != "" {
		return fmt.Errorf("Could not add canary endpoint with both prefix (%s) and fixed set of endpoints (%s)", //nolint:staticcheck // the original's words
			c.LoadEndpointPrefix, strings.Join(c.LoadEndpoints, ", "))
	}
	if len(c.LoadEndpoints) == 0 && c.LoadEndpointPrefix == "" {
		return errors.New("a canary needs endpoints to choose from: give --input-endpoints or --input-endpoint-prefix")
	}
	if len(c.Weights) == 0 {
		return errors.New("a canary needs weights: give --weights with one number for each endpoint, for example --weights 0.1 0.9")
	}
	if err := validateWeights(c.Weights); err != nil {
		return err
	}
	if len(c.LoadEndpoints) > 0 && len(c.Weights) != len(c.LoadEndpoints) {
		return fmt.Errorf("canary %q has %d weights for %d endpoints: give one weight for each", c.Endpoint, len(c.Weights), len(c.LoadEndpoints))
	}
	for _, e := range c.LoadEndpoints {
		if CleanURL(e) == CleanURL(c.Endpoint) {
			return fmt.Errorf("canary %q names itself as one of its endpoints", c.Endpoint)
		}
	}
	return nil
}

func validateWeights(weights []float64) error {
	sum := 0.0
	for _, w := range weights {
		if math.IsNaN(w) || math.IsInf(w, 0) || w < 0 {
			return &FieldError{Field: "weights", Value: fmt.Sprint(w), Why: "is not a weight: give finite numbers, 0 or more"}
		}
		sum += w
	}
	if sum <= 0 {
		return &FieldError{Field: "weights", Why: "sum to 0: at least one must be greater"}
	}
	return nil
}

// Validate checks a record before it is stored.
func (m MetricLogging) Validate() error {
	if m.Endpoint == "" {
		return &FieldError{Field: "endpoint", Why: "is missing"}
	}
	if f := m.LogFrequency; f != nil && (math.IsNaN(*f) || *f < 0 || *f > 1) {
		return &FieldError{Field: "log_frequency", Value: fmt.Sprint(*f), Why: "is not a share of requests: give a number from 0 to 1"}
	}
	for name, metric := range m.Metrics {
		switch metric.Type {
		case MetricScalar, MetricEnum, MetricValue, MetricCounter:
		default:
			return fmt.Errorf("variable %q: %w", name, &FieldError{Field: "type", Value: metric.Type, Why: "is none of scalar, enum, value, counter"})
		}
	}
	return nil
}

// validateURL refuses paths that no request can name: requests are routed by decoded path segments,
// and clients remove "." and ".." segments.
func validateURL(field, url string) error {
	clean := strings.Trim(url, "/")
	if clean == "" {
		return &FieldError{Field: field, Value: fmt.Sprintf("%q", url), Why: "is empty: give a path such as my_model"}
	}
	for part := range strings.SplitSeq(clean, "/") {
		switch part {
		case "":
			return &FieldError{Field: field, Value: fmt.Sprintf("%q", url), Why: "has an empty part between slashes"}
		case ".", "..":
			return &FieldError{Field: field, Value: fmt.Sprintf("%q", url), Why: "has a part that clients remove from a path"}
		}
	}
	if i := strings.IndexFunc(clean, func(r rune) bool { return r < 0x20 || r == 0x7f || strings.ContainsRune("?#*\\", r) }); i >= 0 {
		return &FieldError{Field: field, Value: fmt.Sprintf("%q", url), Why: fmt.Sprintf("has the character %q, which a url path cannot hold", clean[i])}
	}
	return nil
}

// numpyTypes are the dtype names accepted for tensors.
var numpyTypes = []string{ //nolint:gochecknoglobals // a constant table
	"bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int", "uint",
	"float16", "float32", "float64", "float", "double", "half", "single", "str", "bytes", "object", "string",
}

func (t Tensors) validate(engine string) error {
	for _, list := range [][]string{t.InputType, t.OutputType} {
		for _, name := range list {
			if !slices.Contains(numpyTypes, name) {
				return fmt.Errorf("data type '%s' not understood", name)
			}
		}
	}
	if engine != EngineTriton {
		return nil
	}
	var missing []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"input_type", t.InputType != nil},
		{"input_size", t.InputSize != nil},
		{"input_name", t.InputName != nil},
		{"output_type", t.OutputType != nil},
		{"output_size", t.OutputSize != nil},
		{"output_name", t.OutputName != nil},
	} {
		if !f.set {
			missing = append(missing, "'"+f.name+"'")
		}
	}
	if missing != nil {
		return fmt.Errorf("Triton engine requires input description - missing values in [%s]", strings.Join(missing, ", ")) //nolint:staticcheck // the original's words
	}
	return nil
}
