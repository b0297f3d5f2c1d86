//go:build unix && !darwin

package worker

import "golang.org/x/sys/unix"

// workerClock is the clock behind time.monotonic, and behind Go's.
const workerClock = unix.CLOCK_MONOTONIC
