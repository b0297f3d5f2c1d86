package worker

import (
	"time"

	"golang.org/x/sys/unix"
)

// moment is one and the same on Go's clock and on the one that Python calls
// time.monotonic.
type moment struct {
	at      time.Time
	seconds float64
}

// anchor is where the two clocks meet: a deadline crosses over as a distance from
// it. These clocks are never set, so a step of the wall clock, however large, ends no
// request.
var anchor = func() moment {
	var now unix.Timespec
	a := moment{at: time.Now()}
	if unix.ClockGettime(workerClock, &now) == nil { // it fails on no system that we build for
		a.seconds = float64(now.Sec) + float64(now.Nsec)/1e9
	}
	return a
}()

// workerSeconds is what a worker's clock shows at t.
func workerSeconds(t time.Time) float64 { return anchor.seconds + t.Sub(anchor.at).Seconds() }
