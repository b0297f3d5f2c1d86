//go:build !race

package controlplane_test

// slowdown is what the race detector costs at most: nothing where it is off.
const slowdown = 1
