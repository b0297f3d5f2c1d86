package reconcile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"clearmlserving/serving"
)

const someReference = `{"variables":{"x":{"kind":"number","edges":[1],"counts":[1,1,0]},"y":{"kind":"category","words":["a"],"counts":[1,0,0]}}}`

func TestAModelBringsItsReferenceAndTheSettingsReplaceIt(t *testing.T) {
	other := strings.Replace(someReference, `"x"`, `"z"`, 1)
	endpoint := func(model string) serving.PlannedEndpoint {
		return serving.PlannedEndpoint{Endpoint: serving.Endpoint{ModelID: serving.ModelID(model)}}
	}
	replaced := endpoint("good")
	replaced.Reference = []byte(other)
	wrong := endpoint("good")
	wrong.Reference = []byte(`{}`)
	quiet := endpoint("good")
	quiet.Drift.Ignore = []string{"x"}
	logged := endpoint("good")
	logged.Metrics.Metrics = map[string]serving.Metric{"x": {Type: "value"}, "b": {Type: "value"}}
	plan := serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{
		"model": endpoint("good"), "none": endpoint("plain"), "unknown": endpoint("?"), "bad": endpoint("bad"),
		"replaced": replaced, "wrong": wrong, "quiet": quiet, "logged": logged, "large": endpoint("large"),
	}}
	state := &State{Models: map[serving.ModelID]Model{
		"good": {Reference: someReference}, "plain": {}, "bad": {Reference: `{"variables":{}}`}, "large": {Reference: strings.Repeat(" ", serving.MaxReference+1)},
	}}
	state.references(&plan)
	got := map[string][]string{}
	for url, e := range plan.Endpoints {
		got[string(url)] = loggedVariables(e)
	}
	want := map[string][]string{
		"model": {"x", "y"}, "none": nil, "unknown": nil, "bad": nil, "replaced": {"y", "z"}, "wrong": nil, "quiet": {"y"}, "logged": {"b", "x", "y"}, "large": nil,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var problems []string
	for _, p := range plan.Problems {
		problems = append(problems, p.Key)
	}
	if d := cmp.Diff([]string{"bad", "large", "wrong"}, problems); d != "" {
		t.Error(d, plan.Problems)
	}
	if text, err := json.Marshal(plan.Endpoints["wrong"].Reference); err != nil || string(text) != "null" {
		t.Error(string(text), err)
	}
}
