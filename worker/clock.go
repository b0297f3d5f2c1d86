package worker

import (
	"time"

	"golang.org/x/sys/unix"
)

// moment is the same point in time on Go's clock and on Python's time.monotonic.
type moment struct {
	at      time.Time
	seconds float64
}

// anchor relates the two clocks: a deadline is converted by its distance from it. These
// clocks are never set, so a change of the wall clock ends no request.
var anchor = func() moment {
	var now unix.Timespec
	a := moment{at: time.Now()}
	if unix.ClockGettime(workerClock, &now) == nil { // it fails on no system that we build for
		a.seconds = float64(now.Sec) + float64(now.Nsec)/1e9
	}
	return a
}()

// workerSeconds is the time of a worker's clock at t.
func workerSeconds(t time.Time) float64 { return anchor.seconds + t.Sub(anchor.at).Seconds() }
