package main

import (
	"encoding/json"
	"testing"

	"clearmlserving/serving"
)

func TestAnOptionThatIsSetAnewKeepsWhatAnotherReleaseStored(t *testing.T) {
	given := serving.Record{Share: 0.5}
	value := replacing(&given, func(o *serving.Record) *map[string]json.RawMessage { return &o.Unknown })
	if next := value(nil); next.Share != 0.5 || next.Unknown != nil {
		t.Errorf("without an option: %+v", next)
	}
	before := &serving.Record{Share: 1, Max: 7, Unknown: map[string]json.RawMessage{"later": []byte("1")}}
	next := value(before)
	if next.Share != 0.5 || next.Max != 0 || string(next.Unknown["later"]) != "1" {
		t.Errorf("with one: %+v", next)
	}
	if given.Unknown != nil {
		t.Error("what is stored for one endpoint reached the flags")
	}
}
