package inference

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
)

// engineTable maps kinds of endpoints to the loaders of their models.
type engineTable map[string]engine.Loader

func table(entries []Engine) engineTable {
	t := engineTable{}
	for _, e := range entries {
		for _, kind := range e.Kinds {
			t[kind] = e.Loader
		}
	}
	return t
}

// Load calls the loader of the endpoint's engine.
func (t engineTable) Load(ctx context.Context, spec engine.Spec) (engine.Model, error) {
	loader, ok := t[spec.Endpoint.EngineType]
	if !ok {
		return nil, &engine.LoadError{Text: fmt.Sprintf("engine %q is not available in this instance (available: %s)",
			spec.Endpoint.EngineType, strings.Join(slices.Sorted(maps.Keys(t)), ", "))}
	}
	return loader.Load(ctx, spec)
}

// Prepare calls the loader of the endpoint's engine, if that is a Preparer.
func (t engineTable) Prepare(ctx context.Context, spec engine.Spec) error {
	if preparer, ok := t[spec.Endpoint.EngineType].(engine.Preparer); ok {
		return preparer.Prepare(ctx, spec)
	}
	return nil
}
