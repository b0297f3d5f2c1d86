package worker

import (
	"testing"
	"time"
)

func TestAReaderIsSlowOnlyBelowTheLeastRateWhileOthersWaitAndTheWorkerCannotGoOn(t *testing.T) {
	type look struct {
		at      time.Duration
		taken   int64
		full    bool
		awaited bool
		slow    bool
	}
	const second = leastRate // bytes
	for name, looks := range map[string][]look{
		"it reads nothing": {
			{0, 0, true, true, false}, {4 * time.Second, 0, true, true, false}, {5 * time.Second, 0, true, true, true},
		},
		"nobody waits": {
			{0, 0, true, false, false}, {time.Minute, 0, true, false, false},
		},
		"somebody comes late": {
			{0, 0, true, false, false}, {time.Minute, 0, true, true, false}, {64 * time.Second, 0, true, true, false}, {65 * time.Second, 0, true, true, true},
		},
		"those who wait are answered meanwhile": {
			{0, 0, true, true, false}, {3 * time.Second, 0, true, false, false}, {6 * time.Second, 0, true, true, false}, {10 * time.Second, 0, true, true, false},
		},
		"it reads fast enough": {
			{0, 0, true, true, false}, {5 * time.Second, 5 * second, true, true, false}, {10 * time.Second, 10 * second, true, true, false},
		},
		"it becomes slow": {
			{0, 0, true, true, false}, {5 * time.Second, 50 * second, true, true, false}, {10 * time.Second, 54 * second, true, true, true},
		},
		"the code is slow, not the reader": {
			{0, 0, false, true, false}, {5 * time.Second, 0, false, true, false}, {time.Minute, 9, false, true, false},
		},
		"it catches up": {
			{0, 0, true, true, false}, {5 * time.Second, 9, false, true, false}, {7 * time.Second, 9, true, true, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, begin := &Stream{}, time.Now()
			for _, l := range looks {
				s.taken, s.due = l.taken, 1
				if l.full {
					s.due = 0
				}
				if got := s.slow(begin.Add(l.at), l.awaited, slowAfter); got != l.slow {
					t.Errorf("after %v: slow is %t", l.at, got)
				}
			}
		})
	}
}
