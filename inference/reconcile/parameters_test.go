package reconcile

import (
	"testing"

	"clearmlserving/serving"
)

// wanted is what a state wants of an endpoint of an engine, with the service's parameters.
func wanted(engine string, p serving.Parameters) want {
	s := &State{Models: map[serving.ModelID]Model{"m": {URI: "file:///m.onnx"}}}
	e := serving.PlannedEndpoint{Endpoint: serving.Endpoint{EngineType: engine, ServingURL: "a", ModelID: "m"}, Parameters: p}
	return s.want("a", e, serving.Revision{Content: serving.Content{Endpoint: e.Endpoint}}, 1)
}

func TestAParameterOfTheServiceReloadsTheEndpointsThatReadIt(t *testing.T) {
	one, other := serving.Parameters{TritonGRPCServer: "one:8001", KafkaServiceServer: "k"}, serving.Parameters{TritonGRPCServer: "other:8001", KafkaServiceServer: "k2"}
	if wanted(serving.EngineTriton, one).loads == wanted(serving.EngineTriton, other).loads {
		t.Error("another address of Triton does not reload its endpoints")
	}
	if wanted(serving.EngineCustom, one).loads != wanted(serving.EngineCustom, other).loads {
		t.Error("the address of Triton reloads endpoints of other engines")
	}
	if got := wanted(serving.EngineTriton, one).planned.Parameters; got != (serving.Parameters{TritonGRPCServer: "one:8001"}) {
		t.Errorf("%+v", got)
	}
}

func TestTheFileOfAModelElsewhereIsNotFetched(t *testing.T) {
	if w := wanted(serving.EngineTriton, serving.Parameters{}); w.model.URL != "" {
		t.Errorf("%+v", w.model)
	}
	if w := wanted(serving.EngineSklearn, serving.Parameters{}); w.model.URL == "" {
		t.Error("the model of another engine is not fetched")
	}
}
