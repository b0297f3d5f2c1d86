package serving_test

import (
	"encoding/json"
	"slices"
	"testing"

	"clearmlserving/serving"
)

const digest64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// goodRecords holds one usable record of each section that may hold broken ones.
var goodRecords = map[serving.Section][2]string{
	serving.SectionEndpoints:           {"m/1", `{"engine_type":"custom","serving_url":"m","version":"1"}`},
	serving.SectionMonitoring:          {"auto", `{"base_serving_url":"auto","engine_type":"custom","monitor_tags":["prod"]}`},
	serving.SectionCanary:              {"c", `{"endpoint":"c","weights":[1],"load_endpoints":["m/1"]}`},
	serving.SectionMetrics:             {"m/1", `{"endpoint":"m/1","log_frequency":0.5,"metrics":{"x":{"type":"value"}}}`},
	serving.SectionMonitoringEndpoints: {"auto/1", `{"engine_type":"custom","serving_url":"auto","version":"1","model_id":"a"}`},
	serving.SectionVersions:            {"auto", `{"a":1}`},
	serving.SectionOptions:             {"m/1", `{"record":{"share":1},"limits":{"max_queue":7},"golden":{"artifact":"g"},"shadow":{"to":"n"}}`},
	serving.SectionRevisions:           {"m/1", `{"keep":7,"revisions":[{"n":1,"state":"good","endpoint":{"engine_type":"custom","serving_url":"m","version":"1"}}]}`},
	serving.SectionDrift:               {"m/*", `{"endpoint":"m/*","false_alarms":2,"days":7,"min_psi":0.02,"ignore":["x"],"reference":{"variables":{"x":{}}},"later":1}`},
	serving.SectionRollouts:            {"c", `{"id":"1","candidate":"m/2","baseline":"m/1","steps":[0.1,1],"phase":"running","step":0}`},
	serving.SectionAccess:              {"k1", `{"sha256":"` + digest64 + `"}`},
}

func configuration(section serving.Section, key, record string) serving.Configuration {
	return serving.Configuration{Sections: map[serving.Section]json.RawMessage{section: json.RawMessage(`{` + quote(key) + `:` + record + `}`)}}
}

func quote(text string) string {
	quoted, _ := json.Marshal(text)
	return string(quoted)
}

func TestWhatCannotBeReadKeepsItsLastGoodForm(t *testing.T) {
	for _, section := range serving.Sections() {
		key, record := goodRecords[section][0], goodRecords[section][1]
		last := configuration(section, key, record)
		want := encoded(t, last, section)
		broken := map[string]serving.Configuration{
			"text":        {Unreadable: map[serving.Section]string{section: "line 1: expected }"}},
			"null":        {Sections: map[serving.Section]json.RawMessage{section: json.RawMessage(`null`)}},
			"list":        {Sections: map[serving.Section]json.RawMessage{section: json.RawMessage(`[]`)}},
			"number":      {Sections: map[serving.Section]json.RawMessage{section: json.RawMessage(`1`)}},
			"record null": configuration(section, key, `null`),
			"record list": configuration(section, key, `[]`),
			"record text": configuration(section, key, `"x"`),
		}
		switch section {
		case serving.SectionEndpoints, serving.SectionMonitoringEndpoints:
			broken["no engine"] = configuration(section, key, `{"serving_url":"m","version":"1"}`)
			broken["unknown engine"] = configuration(section, key, `{"engine_type":"abacus","serving_url":"m","version":"1"}`)
		case serving.SectionMonitoring:
			broken["no engine"] = configuration(section, key, `{"base_serving_url":"auto"}`)
		case serving.SectionCanary:
			broken["no weights"] = configuration(section, key, `{"endpoint":"c","weights":[],"load_endpoints":["m/1"]}`)
			broken["negative"] = configuration(section, key, `{"endpoint":"c","weights":[-1],"load_endpoints":["m/1"]}`)
			broken["not finite"] = configuration(section, key, `{"endpoint":"c","weights":["NaN"],"load_endpoints":["m/1"]}`)
		case serving.SectionMetrics:
			broken["share"] = configuration(section, key, `{"endpoint":"m/1","log_frequency":7}`)
		case serving.SectionVersions:
			broken["no number"] = configuration(section, key, `{"a":"one"}`)
		case serving.SectionOptions:
			broken["limits"] = configuration(section, key, `{"limits":{"max_queue":"many"}}`)
			broken["shadow"] = configuration(section, key, `{"shadow":{"to":""}}`)
			broken["record share"] = configuration(section, key, `{"record":{"share":7}}`)
			broken["golden"] = configuration(section, key, `{"golden":{}}`)
		case serving.SectionDrift:
			broken["false alarms"] = configuration(section, key, `{"endpoint":"m/*","false_alarms":0}`)
			broken["least drift"] = configuration(section, key, `{"endpoint":"m/*","min_psi":-1}`)
		case serving.SectionRollouts:
			broken["steps"] = configuration(section, key, `{"id":"1","candidate":"m/2","baseline":"m/1","steps":[0.5,0.1],"phase":"running","step":0}`)
			broken["phase"] = configuration(section, key, `{"id":"1","candidate":"m/2","baseline":"m/1","steps":[0.1,1],"phase":"?","step":0}`)
		case serving.SectionAccess:
			broken["digest"] = configuration(section, key, `{"sha256":"?"}`)
		}
		for name, now := range broken {
			got, kept := serving.KeepLast(now, last)
			if text := encoded(t, got, section); text != want {
				t.Errorf("%s, %s: in force is %s, want %s", section, name, text, want)
			}
			if len(kept) != 1 || kept[0].Section != section || kept[0].Why == "" || len(got.Unreadable) != 0 {
				t.Errorf("%s, %s: %+v, unreadable %v", section, name, kept, got.Unreadable)
			}
			again, keptAgain := serving.KeepLast(now, got) // as after the next reading
			if text := encoded(t, again, section); text != want || !slices.Equal(keptAgain, kept) {
				t.Errorf("%s, %s: at the next reading: %s, %+v", section, name, text, keptAgain)
			}
		}
	}
}

func encoded(t *testing.T, c serving.Configuration, section serving.Section) string {
	t.Helper()
	text, err := serving.Decode(c.Sections, c.General).Encode(section)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatIsAbsentIsRemovedAndWhatIsGoodIsTaken(t *testing.T) {
	last := serving.Configuration{Sections: map[serving.Section]json.RawMessage{
		serving.SectionEndpoints: json.RawMessage(`{"a":{"engine_type":"custom","serving_url":"a"},"b":{"engine_type":"custom","serving_url":"b"},"c":{"engine_type":"custom","serving_url":"c"}}`),
		serving.SectionCanary:    json.RawMessage(`{}`),
	}}
	now := serving.Configuration{Sections: map[serving.Section]json.RawMessage{
		serving.SectionEndpoints: json.RawMessage(`{"b":null,"c":{"engine_type":"sklearn","serving_url":"c"},"d":null}`),
	}}
	got, kept := serving.KeepLast(now, last)
	s := serving.Decode(got.Sections, nil)
	if len(s.Endpoints) != 2 || s.Endpoints["b"].EngineType != "custom" || s.Endpoints["c"].EngineType != "sklearn" {
		t.Errorf("endpoints %+v", s.Endpoints)
	}
	if len(kept) != 1 || kept[0].Key != "b" || len(s.Broken) != 1 || s.Broken[0].Key != "d" {
		t.Errorf("kept %+v, broken %+v", kept, s.Broken)
	}
	if _, there := got.Sections[serving.SectionCanary]; there {
		t.Error("a section that is gone is there")
	}
	plan := serving.Resolve(s, nil, nil)
	if plan.Unusable["d"] == "" || plan.Unclear != "" {
		t.Errorf("unusable %v, unclear %q", plan.Unusable, plan.Unclear)
	}
}

func TestAnUnreadableKeySectionOpensNothing(t *testing.T) {
	unreadable := serving.Configuration{Unreadable: map[serving.Section]string{serving.SectionAccess: "torn"}}
	for name, last := range map[string]serving.Configuration{
		"no good form":      {},
		"last one broken":   {Sections: map[serving.Section]json.RawMessage{serving.SectionAccess: json.RawMessage(`[]`)}},
		"other sections":    configuration(serving.SectionCanary, "c", goodRecords[serving.SectionCanary][1]),
		"keys are required": configuration(serving.SectionAccess, "service", `{"required":true}`),
	} {
		got, _ := serving.KeepLast(unreadable, last)
		s := serving.Decode(got.Sections, nil)
		for section, why := range got.Unreadable {
			s.Broken = append(s.Broken, serving.BrokenRecord{Section: section, Err: errorText(why)})
		}
		if !serving.Resolve(s, nil, nil).Access.Required {
			t.Errorf("%s: open", name)
		}
	}
}

type errorText string

func (e errorText) Error() string { return string(e) }

func TestTheServicesShareOfLoggedRequests(t *testing.T) {
	for text, want := range map[string]float64{"": 0.25, "0": 0, "0.5": 0.5, "1.0": 1} {
		if got, err := (serving.Parameters{MetricLoggingFreq: text}).LogShare(0.25); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"2", "-1", "NaN", "often", "inf"} {
		if got, err := (serving.Parameters{MetricLoggingFreq: text}).LogShare(0.25); got != 0.25 || err == nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	last := serving.Configuration{General: map[string]string{serving.ParamMetricLoggingFreq: "0.5"}}
	got, kept := serving.KeepLast(serving.Configuration{General: map[string]string{serving.ParamMetricLoggingFreq: "often"}}, last)
	if got.General[serving.ParamMetricLoggingFreq] != "0.5" || len(kept) != 1 || kept[0].Section != serving.SectionGeneral {
		t.Errorf("%v, %+v", got.General, kept)
	}
}
