// Package leaktest runs the tests of a package and then looks for leaked goroutines.
//
// It owns the time limit: a goroutine needs a processor to end, and may get it late on a busy
// machine. goleak's own limit is half a second.
package leaktest

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// patience is the time limit for goroutines to end. Only a leak takes this long.
const patience = time.Minute

// Main is for TestMain: it runs the tests and exits.
func Main(m interface{ Run() int }) {
	code := m.Run()
	if code == 0 {
		if err := Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// Find returns an error that names the leaked goroutines.
func Find() error { return find(patience) }

// find retries until no goroutine is left, up to the time limit.
func find(within time.Duration) error {
	begun := time.Now()
	for {
		err := goleak.Find()
		if err == nil || time.Since(begun) > within {
			return err
		}
	}
}
