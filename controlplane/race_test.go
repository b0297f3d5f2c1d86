//go:build race

package controlplane_test

// slowdown is what the race detector costs at most.
const slowdown = 5
