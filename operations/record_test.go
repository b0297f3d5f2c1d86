package operations

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// stored is a service with one endpoint, whose code and revisions are given in words like "v1:good:ada".
func stored(code string, revisions ...string) *Service {
	s := &Service{
		Doc: &clearml.Service{Artifacts: map[string]clearml.Artifact{"py_code_m": {URI: "http://files/" + code, Hash: code}}},
		Config: serving.Service{
			Endpoints: map[string]serving.Endpoint{"m": {EngineType: "custom", ServingURL: "m", PreprocessArtifact: "py_code_m"}},
			Revisions: map[string]serving.History{},
		},
		Author: Author{Name: "ada", Message: "why"},
	}
	h := serving.History{}
	for _, word := range revisions {
		parts := strings.Split(word, ":")
		code := &serving.ModelCode{URI: "http://files/" + parts[0], SHA256: parts[0]}
		content, _ := s.Config.ContentOf("m", func(string) *serving.ModelCode { return code })
		h = h.Add(serving.Revision{Content: content, Time: time.Now(), By: parts[2], State: serving.RevisionState(parts[1])})
	}
	if len(revisions) > 0 {
		s.Config.Revisions["m"] = h
	}
	return s
}

func words(h serving.History) string {
	var all []string
	for _, r := range h.Revisions {
		code := "none"
		if r.Code != nil {
			code = r.Code.SHA256
		}
		word := code + ":" + string(r.State) + ":" + r.By
		if r.Of > 0 {
			word += fmt.Sprintf(":of%d", r.Of)
		}
		all = append(all, word)
	}
	return strings.Join(all, " ")
}

func TestAnEditRecordsWhatItChangesAndWhatOthersChangedBefore(t *testing.T) {
	deploying := deployment{url: "m"}
	for _, tc := range []struct {
		name   string
		s      *Service
		former string // the code of before the upload
		d      deployment
		want   string
	}{
		{"the first one", stored("v1"), "", deploying, "v1:pending:ada"},
		{"of a service of before revisions", stored("v2"), "v1", deploying, "v1:pending: v2:pending:ada"},
		{"new code", stored("v2", "v1:good:eve"), "v1", deploying, "v1:good:eve v2:pending:ada"},
		{"another program has deployed between", stored("v3", "v1:good:eve"), "v2", deploying, "v1:good:eve v2:pending: v3:pending:ada"},
		{"the same again", stored("v1", "v1:good:eve"), "", deploying, "v1:good:eve"},
		{"a refused one again", stored("v1", "v1:refused:eve"), "", deploying, "v1:refused:eve v1:pending:ada"},
		{"a refused one, by an edit of another url", stored("v1", "v1:refused:eve"), "", deployment{url: "n"}, "v1:refused:eve"},
		{"an instance has seen the code first", stored("v2", "v1:good:eve", "v2:pending:"), "v1", deploying, "v1:good:eve v2:pending:ada"},
		{"an instance has served the code first", stored("v2", "v1:good:eve", "v2:good:"), "v1", deploying, "v1:good:eve v2:good:ada"},
		{"back to a good one", stored("v1", "v1:good:eve", "v2:refused:eve"), "v2", deployment{"m", stored("v1", "v1:good:eve").Config.Revisions["m"].Newest()}, "v1:good:eve v2:refused:eve v1:good:ada:of1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.former != "" {
				tc.s.replaced = map[string]clearml.Artifact{"py_code_m": {URI: "http://files/" + tc.former, Hash: tc.former}}
			}
			tc.s.record(tc.d, tc.s.contents(true))
			if got := words(tc.s.Config.Revisions["m"]); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if tc.s.record(deployment{}, tc.s.contents(false)) {
				t.Errorf("recorded again: %s", words(tc.s.Config.Revisions["m"]))
			}
		})
	}
}

// A history that a newer version has written is not begun anew.
func TestAHistoryThatCannotBeReadIsLeftAlone(t *testing.T) {
	for _, key := range []string{"", "m"} {
		s := stored("v1")
		s.Config.Broken = []serving.BrokenRecord{{Section: serving.SectionRevisions, Key: key}}
		if s.record(deployment{url: "m"}, s.contents(true)) {
			t.Errorf("broken %q: recorded %v", key, s.Config.Revisions)
		}
	}
}

func TestTheHistoryOfWhatIsGoneIsMarked(t *testing.T) {
	version := serving.Revision{Content: serving.Content{Endpoint: serving.Endpoint{EngineType: "custom", ServingURL: "auto", Version: "1"}}, Rule: 1}
	s := stored("v1", "v1:good:eve")
	s.Config.Monitoring = map[string]serving.Monitoring{"auto": {BaseServingURL: "auto", EngineType: "custom"}}
	s.Config.Revisions["auto/1"] = serving.History{}.Add(version)
	s.record(deployment{}, s.contents(true))
	if h := s.Config.Revisions["auto/1"]; !h.Removed.IsZero() {
		t.Error("the version of a monitoring counts as removed")
	}
	before := s.contents(true)
	s.Config.Endpoints, s.Config.Monitoring = nil, nil
	s.Config.Broken = []serving.BrokenRecord{{Section: serving.SectionEndpoints, Key: "m"}}
	s.record(deployment{}, before)
	for url, want := range map[string]bool{"m": false, "auto": true, "auto/1": true} {
		if h := s.Config.Revisions[url]; h.Removed.IsZero() == want {
			t.Errorf("%s: removed %v, want %t: a record that cannot be read is not gone", url, h.Removed, want)
		}
	}
}
