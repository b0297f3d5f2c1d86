package inference

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// engineTable says which loader makes the models of which engine. A new engine
// is one line here.
type engineTable map[string]engine.Loader

func engines(python engine.Loader) engineTable {
	return engineTable{
		serving.EngineSklearn:     python,
		serving.EngineXGBoost:     python,
		serving.EngineLightGBM:    python,
		serving.EngineCustom:      python,
		serving.EngineCustomAsync: python,
	}
}

// Load gives the endpoint to its engine's loader.
func (t engineTable) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	loader, ok := t[spec.Endpoint.EngineType]
	if !ok {
		return nil, &engine.LoadError{Text: fmt.Sprintf("engine %q is not available in this instance (available: %s)",
			spec.Endpoint.EngineType, strings.Join(slices.Sorted(maps.Keys(t)), ", "))}
	}
	return loader.Load(ctx, spec)
}

// Prepare gives the endpoint to its engine's loader, if that prepares anything.
func (t engineTable) Prepare(ctx context.Context, spec engine.Spec) error {
	if preparer, ok := t[spec.Endpoint.EngineType].(engine.Preparer); ok {
		return preparer.Prepare(ctx, spec)
	}
	return nil
}
