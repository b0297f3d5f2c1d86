package clearml_test

import (
	"testing"
	"time"

	"clearmlserving/clearml"
)

func TestAnInstanceLivesWhenItsLastSignIsNearToTheServersTime(t *testing.T) {
	now := time.Now()
	const limit = 20 * time.Second
	for name, c := range map[string]struct {
		ago  time.Duration
		want bool
	}{
		"a moment ago":                    {time.Second, true},
		"at the limit":                    {limit, true},
		"too long ago":                    {limit + time.Second, false},
		"clocks that differ a little":     {-time.Second, true},
		"before the clock was set back":   {-6 * time.Hour, false},
		"before the clock was set on":     {6 * time.Hour, false},
		"an instance that was never seen": {time.Duration(1<<63 - 1), false},
	} {
		if got := (clearml.Instance{Seen: now.Add(-c.ago)}).Lives(now, limit); got != c.want {
			t.Errorf("%s: lives is %v", name, got)
		}
	}
	if (clearml.Instance{}).Lives(now, limit) {
		t.Error("one without any sign lives")
	}
}
