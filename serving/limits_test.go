package serving_test

import (
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestLimitsSurviveDecodingAndEncoding(t *testing.T) {
	text := `{"m":{"limits":{"deadline":2.5,"idle_timeout":30,"later":1,"max_queue":7,"max_workers":4,"memory_limit":5368709120,"min_workers":0,"recycle_memory":1073741824,"recycle_requests":100}}}`
	s := decode(t, map[serving.Section]string{serving.SectionOptions: text})
	if len(s.Broken) > 0 {
		t.Fatal(s.Broken)
	}
	if l := s.Options["m"].Limits; l.Memory != 5<<30 || l.MinWorkers == nil || *l.MinWorkers != 0 {
		t.Errorf("%+v", l)
	}
	if got, err := s.Encode(serving.SectionOptions); err != nil || got != text {
		t.Errorf("%v\n got %s\nwant %s", err, got, text)
	}
}

func TestUnusableLimitsAreNamed(t *testing.T) {
	for field, text := range map[string]string{
		"deadline":         `{"deadline":-1}`,
		"idle_timeout":     `{"idle_timeout":1e9}`,
		"max_workers":      `{"max_workers":-2}`,
		"min_workers":      `{"min_workers":3,"max_workers":2}`,
		"max_queue":        `{"max_queue":2.5}`,
		"memory_limit":     `{"memory_limit":512}`,
		"recycle_memory":   `{"recycle_memory":"much"}`,
		"recycle_requests": `{"recycle_requests":-1}`,
	} {
		s := decode(t, map[serving.Section]string{serving.SectionOptions: `{"m":{"limits":` + text + `}}`})
		if len(s.Broken) != 1 || !strings.Contains(s.Broken[0].Err.Error(), field) {
			t.Errorf("%s: broken: %v", text, s.Broken)
		}
	}
}

func TestLimitsDecideHowManyWorkersThereAre(t *testing.T) {
	whole := func(n int) *int { return &n }
	for _, tc := range []struct {
		limits                *serving.Limits
		instance, least, most int
	}{
		{nil, 0, 1, 1},
		{nil, 3, 3, 3},
		{&serving.Limits{}, 2, 2, 2},
		{&serving.Limits{MaxWorkers: 4}, 2, 2, 4},
		{&serving.Limits{MaxWorkers: 1}, 2, 1, 1},
		{&serving.Limits{MinWorkers: whole(0)}, 2, 0, 2},
		{&serving.Limits{MinWorkers: whole(3)}, 2, 3, 3},
		{&serving.Limits{MinWorkers: whole(0), MaxWorkers: 4}, 0, 0, 4},
	} {
		if least, most := tc.limits.Workers(tc.instance); least != tc.least || most != tc.most {
			t.Errorf("%+v of %d: %d to %d, want %d to %d", tc.limits, tc.instance, least, most, tc.least, tc.most)
		}
	}
}

func TestTheShorterTimeBoundsARequest(t *testing.T) {
	var none *serving.Limits
	for _, tc := range []struct {
		limits        *serving.Limits
		request, want time.Duration
	}{
		{none, time.Minute, time.Minute},
		{&serving.Limits{Deadline: 0.5}, time.Minute, 500 * time.Millisecond},
		{&serving.Limits{Deadline: 90}, time.Minute, time.Minute},
		{&serving.Limits{Deadline: 2}, 0, 2 * time.Second},
	} {
		if got := tc.limits.Within(tc.request); got != tc.want {
			t.Errorf("%+v within %s: %s, want %s", tc.limits, tc.request, got, tc.want)
		}
	}
}
