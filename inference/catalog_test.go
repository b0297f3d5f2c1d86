package inference

import (
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// Only with its origin is a recorded request blanked before clients see it.
func TestTheExampleOfACanaryHasItsOrigin(t *testing.T) {
	live := func(s engine.Signature) *router.Live {
		l := router.NewLive("a", "", nil)
		l.Describe(s, nil)
		return l
	}
	snapshot := &router.Snapshot{Models: map[serving.EndpointURL]*router.Live{
		"a/1": live(engine.Signature{Source: engine.SourceModel}),
		"a/2": live(engine.Signature{Source: engine.SourceModel, Example: []byte(`"secret"`), ExampleOf: engine.ExampleRecorded}),
	}}
	got := common([]serving.EndpointURL{"a/1", "a/2"}, func(url serving.EndpointURL) engine.Signature { return describedBy(snapshot.Models[url]) })
	if string(got.Example) != `"secret"` || got.ExampleOf != engine.ExampleRecorded {
		t.Errorf("the example %s is of %q", got.Example, got.ExampleOf)
	}
}
