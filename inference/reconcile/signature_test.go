package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/router"
	"clearmlserving/serving"
)

// signed is a model with a signature.
type signed struct {
	engine.Model

	s engine.Signature
}

func (m signed) Signature() engine.Signature { return m.s }

func (signed) Status() serving.ModelReport { return serving.ModelReport{State: serving.StateReady} }

func (signed) Close(context.Context) error { return nil }

const houses = `{"variables":{
	"kind":{"kind":"category","words":["b","a"],"known":["c"],"counts":[5,1,1,2]},
	"size":{"kind":"number","edges":[1,2],"centers":[0.5,1.23456,3],"counts":[1,9,1,0]},
	"rooms":{"kind":"number","edges":[3],"centers":[2.4,4],"counts":[7,1,0]},
	"free":{"kind":"category","words":["x"],"open":true,"counts":[5,1,0]},
	"target":{"kind":"number","edges":[1],"counts":[1,1,0]}}}`

func tableOf(inputs ...engine.TensorSpec) engine.Signature {
	return engine.Signature{Table: true, Source: engine.SourceModel, Inputs: inputs}.WithExample()
}

func TestAReferenceTellsWhatTheModelDoesNot(t *testing.T) {
	model := signed{s: tableOf(
		engine.TensorSpec{Name: "kind"}, engine.TensorSpec{Name: "size", Datatype: engine.FP32}, engine.TensorSpec{Name: "rooms", Datatype: engine.Int64},
		engine.TensorSpec{Name: "free", Datatype: engine.Bytes}, engine.TensorSpec{Name: "other", Datatype: engine.Bool},
	)}
	if model.s.Example != nil {
		t.Fatalf("an example of an unknown column: %s", model.s.Example)
	}
	s := described(model, []byte(houses))
	if want := `{"kind": "b", "size": 1.235, "rooms": 2, "free": "x", "other": false}`; string(s.Example) != want || s.Source != "model, reference" {
		t.Errorf("%s of %s, want %s", s.Example, s.Source, want)
	}
	kind := s.Inputs[0]
	if kind.Datatype != engine.Bytes || strings.Join(kind.Categories, "") != "bac" || !kind.Open || !kind.Optional || s.Inputs[3].Categories != nil {
		t.Errorf("%+v", s.Inputs)
	}
	if model.s.Inputs[0].Datatype != "" {
		t.Error("the model's signature has changed")
	}
	strict := signed{s: tableOf(engine.TensorSpec{Name: "kind", Datatype: engine.Bytes, Categories: []string{"a"}}, engine.TensorSpec{Name: "size", Datatype: engine.Bytes})}
	s = described(strict, []byte(houses))
	if len(s.Inputs[0].Categories) != 1 || s.Inputs[0].Open || s.Inputs[1].Datatype != engine.Bytes {
		t.Errorf("what the model tells has changed: %+v", s.Inputs)
	}
	free := engine.Signature{Source: engine.SourceHints}
	if s := described(signed{s: free}, []byte(houses)); s.Source != engine.SourceHints || s.Inputs != nil {
		t.Errorf("a body of another form: %+v", s)
	}
	if s := described(signed{s: free}, []byte(`{`)); s.Source != engine.SourceHints {
		t.Errorf("%+v", s)
	}
	if s := described(struct{ engine.Model }{}, []byte(houses)); s.Source != engine.SourceNone {
		t.Errorf("a model without a signature: %+v", s)
	}
}

func TestANewModelLearnsFromGoldenSamplesAndItsOwnRecordedRequests(t *testing.T) {
	begun := time.Now()
	one := func(body string, at time.Time, model serving.ModelID, by serving.EndpointURL) serving.Exchange {
		return serving.Exchange{Time: at, ModelID: model, AnsweredBy: by, Body: []byte(body), Status: 200, Answer: []byte("1")}
	}
	r := &Reconciler{o: Options{Recorded: func(serving.EndpointURL) []serving.Exchange {
		return []serving.Exchange{
			one(`{"canary":1}`, begun, "m", "other"), one(`{"before":1}`, begun.Add(-time.Second), "m", ""), one(`{"model":1}`, begun, "n", ""),
			one(`{"recorded":1}`, begun, "m", ""),
		}
	}}}
	var w want
	w.planned.ModelID, w.revision.Time = "m", begun
	s := r.lessons("e", w, nil).Apply(engine.Signature{})
	if string(s.Example) != `{"recorded":1}` || s.ExampleOf != engine.ExampleRecorded || strings.Contains(string(s.BodySchema), "before") {
		t.Errorf("%+v", s)
	}
	s = r.lessons("e", w, []serving.Exchange{one(`{"golden":1}`, time.Time{}, "", "")}).Apply(engine.Signature{})
	if string(s.Example) != `{"golden":1}` || !strings.Contains(string(s.BodySchema), "recorded") {
		t.Errorf("%+v", s)
	}
}

func TestTheStatusHasTheSignatureInBrief(t *testing.T) {
	var wide engine.Signature
	for i := range 5000 {
		wide.Inputs = append(wide.Inputs, engine.TensorSpec{Name: fmt.Sprintf("c%d", i), Datatype: engine.FP64, Categories: make([]string, 100)})
	}
	wide.Table, wide.Source, wide.BodySchema = true, engine.SourceModel, json.RawMessage("no JSON")
	live := router.NewLive("e", "", signed{s: wide.WithExample()})
	live.Describe(described(live.Model, nil), nil)
	if s, known := live.Signature(); !known || len(s.Inputs) != 5000 || len(s.Example) < 10_000 {
		t.Errorf("the whole has %d inputs and an example of %d bytes", len(s.Inputs), len(s.Example))
	}
	status := serving.Status{Endpoints: []serving.EndpointReport{{URL: "e"}, {URL: "none"}}}
	status, _ = report(status, &router.Snapshot{Models: map[serving.EndpointURL]*router.Live{
		"e": live, "none": router.NewLive("none", "", signed{s: engine.Signature{Source: engine.SourceNone}}),
	}})
	s := status.Endpoints[0].Signature
	if len(s.Inputs) != 200 || s.MoreInputs != 4800 || len(s.Inputs[0].Categories) != 50 || s.Inputs[0].MoreCategories != 50 || len(s.Omitted) != 1 {
		t.Errorf("%d inputs, %d more, %d categories, %d more, omitted %v", len(s.Inputs), s.MoreInputs, len(s.Inputs[0].Categories), s.Inputs[0].MoreCategories, s.Omitted)
	}
	if status.Endpoints[1].Signature != nil {
		t.Errorf("%+v", status.Endpoints[1].Signature)
	}
	if _, err := json.Marshal(status); err != nil {
		t.Error(err)
	}
	text, err := serving.InstanceReport{Status: status}.Text()
	if err != nil || len(text) > 15_000 {
		t.Errorf("%d bytes are stored: %v", len(text), err)
	}
}
