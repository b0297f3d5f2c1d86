package serving

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The settings for batching in an endpoint's auxiliary configuration, with Triton's names.
const (
	AuxMaxBatchSize    = "max_batch_size"
	AuxDynamicBatching = "dynamic_batching"
	AuxQueueDelay      = "max_queue_delay_microseconds"
	AuxPreferredSizes  = "preferred_batch_size"
)

const (
	mostRows  = 1 << 16
	mostDelay = 10 * time.Second
)

// Batching is the configuration of batching of an endpoint. The zero value means no batching.
type Batching struct {
	// MaxRows bounds the rows of one batch; 0 means one request at a time.
	MaxRows int
	// Delay is how long a request may wait for others although a worker is free.
	Delay time.Duration
	// Preferred are the preferred batch sizes, ascending.
	Preferred []int
}

// On reports whether requests are batched.
func (b Batching) On() bool { return b.MaxRows > 1 }

// BatchingOf reads the batching of an endpoint that runs in Python from its auxiliary
// configuration: a map, or the text of a config.pbtxt. The error is a *FieldError that names the
// setting. Triton reads its own settings.
func BatchingOf(engine string, aux any) (Batching, error) {
	settings, err := pythonSettings(engine, aux, AuxMaxBatchSize, AuxDynamicBatching)
	if err != nil {
		return Batching{}, err
	}
	b, err := readBatching(settings)
	if err != nil {
		return Batching{}, err
	}
	if b.On() && engine == EngineCustomAsync {
		return Batching{}, &FieldError{
			Field: auxField(AuxMaxBatchSize), Value: strconv.Itoa(b.MaxRows),
			Why: "is not for custom_async, whose requests run side by side on one event loop already; remove it, or use --engine custom",
		}
	}
	return b, nil
}

// pythonSettings is the auxiliary configuration of an endpoint that runs in Python: a map, or the
// text of a config.pbtxt. A text that cannot be read is an error if it has one of the names. Triton
// reads its own settings, and a graph has none.
func pythonSettings(engine string, aux any, names ...string) (map[string]any, error) {
	if engine == EngineTriton || engine == EngineGraph {
		return nil, nil //nolint:nilnil // there are none
	}
	text, isText := aux.(string)
	if !isText {
		settings, _ := aux.(map[string]any)
		return settings, nil
	}
	settings, err := parsePbtxt(text)
	if err != nil && slices.ContainsFunc(names, func(name string) bool { return strings.Contains(text, name) }) {
		return nil, &FieldError{Field: "auxiliary_cfg", Why: "cannot be read: " + err.Error()}
	}
	return settings, nil
}

func auxField(path ...string) string { return "auxiliary_cfg." + strings.Join(path, ".") }

func readBatching(settings map[string]any) (b Batching, err error) {
	size, sizeSet := settings[AuxMaxBatchSize]
	if sizeSet {
		if b.MaxRows, err = wholeNumber(size, 0, mostRows, auxField(AuxMaxBatchSize)); err != nil {
			return Batching{}, err
		}
	}
	dynamic, set := settings[AuxDynamicBatching]
	if !set {
		return b, nil
	}
	inner, ok := dynamic.(map[string]any)
	if !ok {
		return Batching{}, &FieldError{
			Field: auxField(AuxDynamicBatching), Value: shownValue(dynamic),
			Why: "is not a group of settings: give " + AuxDynamicBatching + "." + AuxQueueDelay + "=100, for example",
		}
	}
	if !b.On() && len(inner) > 0 {
		return Batching{}, &FieldError{Field: auxField(AuxDynamicBatching), Why: "means nothing without " + AuxMaxBatchSize + ": give " + AuxMaxBatchSize + "=32, for example"}
	}
	for _, key := range slices.Sorted(maps.Keys(inner)) {
		field := auxField(AuxDynamicBatching, key)
		switch key {
		case AuxQueueDelay:
			delay, err := wholeNumber(inner[key], 0, int(mostDelay/time.Microsecond), field)
			if err != nil {
				return Batching{}, err
			}
			b.Delay = time.Duration(delay) * time.Microsecond
		case AuxPreferredSizes:
			if b.Preferred, err = sizes(inner[key], b.MaxRows, field); err != nil {
				return Batching{}, err
			}
		default:
			return Batching{}, &FieldError{Field: field, Why: "is not a setting of the engines that batch, which know " + AuxQueueDelay + " and " + AuxPreferredSizes}
		}
	}
	return b, nil
}

// sizes reads preferred sizes: a list, one number, or a list in a text.
func sizes(value any, most int, field string) ([]int, error) {
	list, ok := value.([]any)
	if text, isText := value.(string); isText {
		trimmed := strings.Trim(unquoted(text), "[] ")
		for part := range strings.FieldsFuncSeq(trimmed, func(r rune) bool { return r == ',' || r == ' ' }) {
			list = append(list, part)
		}
	} else if !ok {
		list = []any{value}
	}
	out := make([]int, 0, len(list))
	for _, item := range list {
		n, err := wholeNumber(item, 1, most, field)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// wholeNumber reads an integer as JSON, a command line or a config.pbtxt represent it.
func wholeNumber(value any, least, most int, field string) (int, error) {
	var n float64
	var err error
	switch v := value.(type) {
	case int:
		n = float64(v)
	case int64:
		n = float64(v)
	case float64:
		n = v
	case json.Number:
		n, err = v.Float64()
	case string:
		n, err = strconv.ParseFloat(strings.TrimSpace(unquoted(v)), 64)
	default:
		err = strconv.ErrSyntax
	}
	switch {
	case err != nil || n != math.Trunc(n):
		return 0, &FieldError{Field: field, Value: shownValue(value), Why: "is not a whole number"}
	case n < float64(least) || n > float64(most):
		return 0, &FieldError{Field: field, Value: shownValue(value), Why: fmt.Sprintf("is out of range: give a number from %d to %d", least, most)}
	}
	return int(n), nil
}

// ForeignSettings lists, in order, the settings of an auxiliary configuration that the engine does not
// have: only user code reads them. Triton reads its own, and a config.pbtxt may be written for it. That of a graph is
// the graph.
func ForeignSettings(engine string, aux any) (names []string) {
	settings, _ := aux.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if engine != EngineTriton && engine != EngineGraph && !slices.Contains(EngineSettings(engine), name) {
			names = append(names, name)
		}
	}
	return names
}

// EngineSettings are the settings that an engine reads from an auxiliary configuration.
func EngineSettings(engine string) []string {
	if engine == EngineONNX {
		return []string{AuxMaxBatchSize, AuxDynamicBatching, AuxNaNAsNull, AuxThreads, AuxProviders, AuxEnvironment}
	}
	if engine == EngineTorchServe {
		return append(torchServeSettings(), AuxEnvironment)
	}
	if engine == EngineV2 {
		return append(slices.Clone(v2Settings), AuxNaNAsNull, AuxEnvironment)
	}
	if speaksOpenAI(engine) {
		return openAISettings(engine)
	}
	settings := []string{AuxMaxBatchSize, AuxDynamicBatching, AuxNaNAsNull, AuxEnvironment}
	if slices.Contains(modelEngines, engine) {
		settings = append(settings, AuxMethod, AuxAccelerate)
	}
	return settings
}

// unquoted removes the quotes that values of --aux-config may have.
func unquoted(text string) string { return strings.Trim(text, `"'\`) }

func shownValue(value any) string {
	text := fmt.Sprint(value)
	if _, isText := value.(string); isText {
		text = strconv.Quote(text)
	}
	if len(text) > 60 {
		text = text[:57] + "..."
	}
	return text
}
