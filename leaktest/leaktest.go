// Package leaktest runs the tests of a package and then looks for goroutines that are left.
//
// It owns how long that may take: a goroutine that ends needs a processor to do so, and on
// a machine that does much beside it may get one late. goleak by itself waits for half a
// second.
package leaktest

import (
	"fmt"
	"os"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. Only a leak takes as long.
const patience = time.Minute

// Main is for TestMain: it runs the tests and ends the program.
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

// Find is an error that names the goroutines that are left.
func Find() error { return find(patience) }

// find looks until none is left, or for so long.
func find(within time.Duration) error {
	begun := time.Now()
	for {
		err := goleak.Find()
		if err == nil || time.Since(begun) > within {
			return err
		}
	}
}
