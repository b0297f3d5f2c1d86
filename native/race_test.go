//go:build race

package native_test

// race: the race detector empties pools at random.
const race = true
