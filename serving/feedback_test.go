package serving

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestFeedbackAndRequestLogAreStoredAsTheyAreSet(t *testing.T) {
	s := Service{}
	feedback := Feedback{Task: TaskClassification, Prediction: "y", Score: "p", Key: "id", Positive: "yes", Classes: []string{"no", "yes"}, Days: 7, MaxMiB: 9}
	log := RequestLog{Share: 0.5, Redact: []string{"password"}}
	if err := s.SetOptions("m", func(o *EndpointOptions) { o.Feedback, o.Log = &feedback, &log }); err != nil {
		t.Fatal(err)
	}
	text, err := s.Encode(SectionOptions)
	if err != nil {
		t.Fatal(err)
	}
	stored := Decode(map[Section]json.RawMessage{SectionOptions: json.RawMessage(text)}, nil)
	if got := stored.Options["m"]; len(stored.Broken) != 0 || !reflect.DeepEqual(got.Feedback, &feedback) || !reflect.DeepEqual(got.Log, &log) {
		t.Errorf("%s: %+v %v", text, got, stored.Broken)
	}
}

func TestTheRequestLogOfAllEndpointsHoldsForThoseWithoutTheirOwn(t *testing.T) {
	s := Decode(map[Section]json.RawMessage{
		SectionEndpoints: json.RawMessage(`{"a": {"engine_type": "custom", "serving_url": "a"}, "b": {"engine_type": "custom", "serving_url": "b"}}`),
	}, nil)
	if err := s.SetOptions(AllEndpoints, func(o *EndpointOptions) { o.Log = &RequestLog{Share: 0.1} }); err != nil {
		t.Fatal(err)
	}
	if err := s.SetOptions("b", func(o *EndpointOptions) { o.Log = &RequestLog{Share: 1} }); err != nil {
		t.Fatal(err)
	}
	plan := Resolve(s, nil, nil)
	if a, b := plan.Options["a"].Log, plan.Options["b"].Log; a == nil || a.Share != 0.1 || b == nil || b.Share != 1 {
		t.Errorf("%+v", plan.Options)
	}
	err := s.SetOptions(AllEndpoints, func(o *EndpointOptions) { o.Record = &Record{Share: 1} })
	if err == nil || !strings.Contains(err.Error(), "only the request log") {
		t.Errorf("recording of all endpoints: %v", err)
	}
}

func TestUnusableFeedbackOptionsAreNamed(t *testing.T) {
	for want, f := range map[string]Feedback{
		"field task":              {Task: "ranking"},
		"has no probabilities":    {Task: TaskRegression, Score: "p"},
		"field prediction":        {Task: TaskClassification, Prediction: ". "},
		"is there twice":          {Task: TaskClassification, Classes: []string{"a", "b", "a"}},
		"field days":              {Task: TaskClassification, Days: -1},
		"field max_mib":           {Task: TaskClassification, MaxMiB: -1},
		"field classes":           {Task: TaskClassification, Classes: make([]string, maxClasses+1)},
		"field days: 4000 is not": {Task: TaskClassification, Days: 4000},
	} {
		s := Service{}
		err := s.SetOptions("m", func(o *EndpointOptions) { o.Feedback = &f })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", f, err, want)
		}
	}
}
