package serving_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// deployed is a content told apart by its code.
func deployed(code string) serving.Content {
	return serving.Content{
		Endpoint: serving.Endpoint{EngineType: "custom", ServingURL: "m", PreprocessArtifact: "py_code_m"},
		Code:     &serving.ModelCode{URI: "http://files/" + code, SHA256: code},
	}
}

// history is made of words like "v1:good".
func history(words ...string) serving.History {
	var h serving.History
	for _, word := range words {
		code, state, _ := strings.Cut(word, ":")
		h = h.Add(serving.Revision{Content: deployed(code), Time: noon, By: "ada", State: serving.RevisionState(state)})
	}
	return h
}

func TestTheLastGoodRevisionIsLoadedUntilANewerOneIsProven(t *testing.T) {
	for _, tc := range []struct {
		name       string
		history    serving.History
		now        string
		load, base int // numbers; base 0: none
		wanted     int
	}{
		{"nothing is known", history(), "v1", 1, 0, 1},
		{"a new one on top of the last good one", history("v1:good", "v2:pending"), "v2", 2, 1, 2},
		{"a good one", history("v1:good", "v2:good"), "v2", 2, 0, 2},
		{"a refused one", history("v1:good", "v2:refused"), "v2", 1, 0, 2},
		{"two refused ones", history("v1:good", "v2:refused", "v3:refused"), "v3", 1, 0, 3},
		{"a refused first one: there is nothing else", history("v1:refused"), "v1", 1, 0, 1},
		{"an edit by another program", history("v1:good", "v2:refused"), "v3", 3, 1, 3},
		{"an edit back to a good one", history("v1:good", "v2:refused"), "v1", 3, 1, 3},
		{"a refused one deployed again", history("v1:good", "v2:refused", "v2:pending"), "v2", 3, 1, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, c := tc.history.Choose(deployed(tc.now), noon)
			base := 0
			if c.Base != nil {
				base = c.Base.Number
			}
			if c.Load.Number != tc.load || base != tc.base || c.Wanted.Number != tc.wanted || h.Newest().Number != tc.wanted {
				t.Errorf("loads %d on top of %d, wants %d; want %d on top of %d, wants %d", c.Load.Number, base, c.Wanted.Number, tc.load, tc.base, tc.wanted)
			}
		})
	}
	if _, c := history("v1:good", "v2:refused", "v2:pending").Choose(deployed("v2"), noon); c.Repeated != 1 {
		t.Errorf("deployed again after %d refusals, want 1", c.Repeated)
	}
}

func TestAVerdictStands(t *testing.T) {
	for _, tc := range []struct{ was, verdict, want serving.RevisionState }{
		{serving.RevisionPending, serving.RevisionGood, serving.RevisionGood},
		{serving.RevisionPending, serving.RevisionRefused, serving.RevisionRefused},
		{serving.RevisionGood, serving.RevisionRefused, serving.RevisionGood},
		{serving.RevisionRefused, serving.RevisionGood, serving.RevisionGood},
	} {
		h, changed := history("v1:"+string(tc.was)).Judge(1, serving.Verdict{State: tc.verdict, Step: "load", Reason: "line\nline\x1b[31m"})
		got := h.Newest()
		if got.State != tc.want || changed != (tc.want != tc.was) || strings.ContainsAny(got.Reason, "\n\x1b") {
			t.Errorf("%s, judged %s: %+v", tc.was, tc.verdict, got)
		}
	}
}

// What two writers know comes together, and what one of them has overtaken is dropped.
func TestHistoriesMerge(t *testing.T) {
	for _, tc := range []struct {
		name          string
		stored, known serving.History
		want          string
	}{
		{"a verdict", history("v1:good", "v2:pending"), history("v1:good", "v2:refused"), "v1:good v2:refused"},
		{"an edit that nobody has recorded", history("v1:good"), history("v1:good", "v2:refused"), "v1:good v2:refused"},
		{"another edit came first", history("v1:good", "v3:pending"), history("v1:good", "v2:good"), "v1:good v3:pending"},
		{"the same edit came first", history("v1:good", "v3:pending", "v2:pending"), history("v1:good", "v2:good"), "v1:good v3:pending v2:good"},
		{"nothing is stored", history(), history("v1:good"), "v1:good"},
		{"nothing is new", history("v1:good", "v2:good"), history("v1:good"), "v1:good v2:good"},
		{"an older verdict on what was deployed again", history("v1:good", "v2:refused", "v2:pending"), history("v1:good", "v2:refused"), "v1:good v2:refused v2:pending"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			merged, _ := tc.stored.Merge(tc.known)
			var got []string
			for i, r := range merged.Revisions {
				got = append(got, r.Code.SHA256+":"+string(r.State))
				if r.Number != i+1 {
					t.Errorf("number %d at place %d", r.Number, i+1)
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
			if again, changed := merged.Merge(tc.known); changed {
				t.Errorf("merging again changes %v", again)
			}
		})
	}
}

func TestOldRevisionsArePrunedButNotTheOneThatServes(t *testing.T) {
	words := []string{"good:good"}
	for i := range 30 {
		words = append(words, fmt.Sprintf("bad%d:refused", i))
	}
	h := history(words...)
	good, ok := h.LastGood()
	if !ok || good.Number != 1 || len(h.Revisions) != serving.DefaultKeep || h.Newest().Number != 31 {
		t.Errorf("%d left, newest %d, good %v", len(h.Revisions), h.Newest().Number, good.Number)
	}
	h.Keep = 3
	if h = h.Add(serving.Revision{Content: deployed("x")}); len(h.Revisions) != 3 {
		t.Errorf("%d left, want 3", len(h.Revisions))
	}
	s := serving.Service{Revisions: map[string]serving.History{}}
	for i := range 400 {
		s.Revisions[fmt.Sprintf("m%d", i)] = history(words[:20]...)
	}
	for i := range 60 {
		gone := history("v1:good", "v2:good", "v3:good", "v4:good", "v5:good", "v6:good")
		gone.Removed = noon.Add(time.Duration(i) * time.Hour)
		s.Revisions[fmt.Sprintf("gone%d", i)] = gone
	}
	s.PruneRevisions()
	total, removed := 0, 0
	for _, h := range s.Revisions {
		total += len(h.Revisions)
		if _, ok := h.LastGood(); !ok {
			t.Error("a last good revision is gone")
		}
		if !h.Removed.IsZero() {
			removed++
		}
	}
	if total > 4500 || removed != 50 {
		t.Errorf("%d revisions left, %d of removed endpoints", total, removed)
	}
	if _, oldest := s.Revisions["gone0"]; oldest {
		t.Error("the endpoint that was removed first is kept")
	}
}

func TestTheVersionsThatServeKeepTheirRevisionsHoweverManyWereRefusedAfterThem(t *testing.T) {
	s := serving.Service{
		Monitoring: map[string]serving.Monitoring{"auto": {BaseServingURL: "auto", EngineType: "custom", MaxVersions: 2}},
		Revisions:  map[string]serving.History{},
	}
	for n := 1; n <= 60; n++ {
		state := serving.RevisionRefused
		if n <= 3 {
			state = serving.RevisionGood
		}
		version := serving.Endpoint{EngineType: "custom", ServingURL: "auto", Version: strconv.Itoa(n)}
		s.Revisions[fmt.Sprintf("auto/%d", n)] = serving.History{}.Add(serving.Revision{Content: serving.Content{Endpoint: version}, State: state, Rule: 1})
	}
	s.PruneRevisions()
	for url, want := range map[string]bool{"auto/1": false, "auto/2": true, "auto/3": true, "auto/4": false, "auto/60": true} {
		if _, kept := s.Revisions[url]; kept != want {
			t.Errorf("%s is kept: %t, want %t", url, kept, want)
		}
	}
}

func TestRevisionsAreReadAsTheyWereWritten(t *testing.T) {
	least := 2
	h := history("v1:good", "v2:refused")
	h.Keep, h.Removed = 7, noon
	h.Revisions[1].Limits = &serving.Limits{MinWorkers: &least}
	h.Revisions[1].Golden = &serving.Golden{Artifact: "golden", Tolerance: 0.5}
	h.Revisions[1].Message, h.Revisions[1].Reason, h.Revisions[1].Since = `say "why" \ ${x} # //`, "load: no", noon
	h = h.Add(serving.Revision{Content: serving.Content{Monitoring: &serving.Monitoring{BaseServingURL: "m", EngineType: "sklearn", Tags: []string{}}}, Time: noon})
	s := serving.Service{Revisions: map[string]serving.History{"m": h}}
	text, err := s.Encode(serving.SectionRevisions)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(text, `"serving_url"`) != 1 {
		t.Errorf("a record that does not change is written again: %s", text)
	}
	back := serving.Decode(map[serving.Section]json.RawMessage{serving.SectionRevisions: json.RawMessage(text)}, nil)
	again, err := back.Encode(serving.SectionRevisions)
	if err != nil || again != text || len(back.Broken) > 0 {
		t.Errorf("%v %v\n%s\n%s", err, back.Broken, text, again)
	}
	if !slices.EqualFunc(back.Revisions["m"].Revisions, h.Revisions, func(a, b serving.Revision) bool { return a.Same(b.Content) && a.State == b.State }) {
		t.Errorf("%+v", back.Revisions["m"])
	}
}

// A version takes neither the place of a good one nor its share of a canary before it can answer: where
// it is live, or, while none is live, if it is known to be good.
func TestARefusedVersionTakesNoPlace(t *testing.T) {
	found := func(states ...string) (map[string][]serving.MonitoredModel, serving.Versions) {
		var models []serving.MonitoredModel
		versions := serving.Versions{"m": {}}
		for i, state := range states { // the newest first
			id := serving.ModelID(fmt.Sprintf("model%d", i))
			word, live := strings.CutSuffix(state, "+live")
			models = append(models, serving.MonitoredModel{ID: id, State: serving.RevisionState(word), Live: live})
			versions["m"][id] = len(states) - i
		}
		return map[string][]serving.MonitoredModel{"m": models}, versions
	}
	const good, pending, refused, live = "good", "pending", "refused", "+live"
	for _, tc := range []struct {
		states          []string
		most            int
		planned, canary string
	}{
		{[]string{pending, good}, 1, "m/1 m/2", "m/1"},
		{[]string{pending, good + live}, 1, "m/1 m/2", "m/1"},
		{[]string{pending, good, good}, 0, "m/1 m/2 m/3", "m/2 m/1"},
		{[]string{good, good + live}, 1, "m/1 m/2", "m/1"},
		{[]string{good, good + live, good + live}, 2, "m/1 m/2 m/3", "m/2 m/1"},
		{[]string{good + live, good + live}, 1, "m/2", "m/2"},
		{[]string{good + live, pending + live}, 1, "m/2", "m/2"},
		{[]string{good, good}, 1, "m/2", "m/2"},
		{[]string{refused, good}, 1, "m/1 m/2", "m/1"},
		{[]string{refused, refused, good, good}, 1, "m/2 m/4", "m/2"},
		{[]string{refused, good, good, good}, 2, "m/2 m/3 m/4", "m/3 m/2"},
		{[]string{"", "", ""}, 2, "m/2 m/3", "m/3 m/2"},
		{[]string{refused, good}, 0, "m/1 m/2", "m/1"},
	} {
		s := serving.Service{
			Monitoring: map[string]serving.Monitoring{"m": {BaseServingURL: "m", EngineType: "custom", MaxVersions: tc.most}},
			Canaries:   map[string]serving.Canary{"c": {Endpoint: "c", Weights: []float64{0.1, 0.9}, LoadEndpointPrefix: "m/"}},
		}
		models, versions := found(tc.states...)
		plan := serving.Resolve(s, models, versions)
		var planned, targets []string
		for url := range plan.Endpoints {
			planned = append(planned, string(url))
		}
		slices.Sort(planned)
		for _, url := range plan.Canaries["c"].Targets {
			targets = append(targets, string(url))
		}
		if strings.Join(planned, " ") != tc.planned || strings.Join(targets, " ") != tc.canary {
			t.Errorf("%v, at most %d: planned %v, canary %v; want %s, %s", tc.states, tc.most, planned, targets, tc.planned, tc.canary)
		}
	}
}

func TestGoldenSamplesOfACanaryAreRefused(t *testing.T) {
	s := serving.Service{Canaries: map[string]serving.Canary{"c": {Endpoint: "c"}}, Endpoints: map[string]serving.Endpoint{"m": {}}}
	golden := func(o *serving.EndpointOptions) { o.Golden = &serving.Golden{Artifact: "a"} }
	if err := s.SetOptions("/c/", golden); err == nil || !strings.Contains(err.Error(), "is a canary") {
		t.Errorf("on a canary: %v", err)
	}
	if err := s.SetOptions("m", golden); err != nil {
		t.Error(err)
	}
	s.Options["d"] = serving.EndpointOptions{Golden: &serving.Golden{Artifact: "a"}}
	if _, err := s.AddCanary(serving.Canary{Endpoint: "d", Weights: []float64{1}, LoadEndpoints: []string{"m"}}); err == nil || !strings.Contains(err.Error(), "has golden samples") {
		t.Errorf("a canary on a name with samples: %v", err)
	}
	s.Options["c"] = serving.EndpointOptions{Golden: &serving.Golden{Artifact: "a"}}
	if plan := serving.Resolve(s, nil, nil); !slices.ContainsFunc(plan.Problems, func(p serving.Problem) bool { return p.Key == "c" && strings.Contains(p.Text, "judge nothing") }) {
		t.Errorf("stored all the same: %v", plan.Problems)
	}
}
