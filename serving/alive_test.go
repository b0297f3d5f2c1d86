package serving_test

import (
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestAnInstanceIsAliveWhenItsLastSignIsNearToTheServersTime(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		lastUpdate time.Time
		want       bool
	}{
		"a moment ago":                  {now.Add(-time.Second), true},
		"at the limit":                  {now.Add(-serving.AliveFor), true},
		"past the limit":                {now.Add(-serving.AliveFor - 1), false},
		"clocks that differ a little":   {now.Add(time.Second), true},
		"before the clock was set on":   {now.Add(-6 * time.Hour), false},
		"before the clock was set back": {now.Add(6 * time.Hour), false},
		"never seen":                    {time.Time{}, false},
	} {
		if got := serving.Alive(c.lastUpdate, now); got != c.want {
			t.Errorf("%s: alive is %v, want %v", name, got, c.want)
		}
	}
}
