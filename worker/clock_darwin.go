package worker

import "golang.org/x/sys/unix"

// workerClock is the clock behind time.monotonic, and behind Go's: it stands while
// the machine sleeps.
const workerClock = unix.CLOCK_UPTIME_RAW
