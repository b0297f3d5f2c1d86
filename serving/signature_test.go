package serving

import (
	"encoding/json"
	"testing"
)

func TestARecordedRequestIsNotStoredAsAnExample(t *testing.T) {
	for of, kept := range map[string]bool{"recorded": false, "golden": true, "made": true} {
		r := &SignatureReport{ExampleOf: of, Example: json.RawMessage(`{"name":"Ada"}`)}
		if told := r.Cut(ToldSignature); told.Example == nil || told.ExampleOf != of {
			t.Errorf("%s: operators are told %s (%s)", of, told.Example, told.ExampleOf)
		}
		if stored := r.Cut(storedSignature); (stored.Example != nil) != kept || (stored.ExampleOf != "") != kept {
			t.Errorf("%s: stored as %s (%s)", of, stored.Example, stored.ExampleOf)
		}
	}
}
