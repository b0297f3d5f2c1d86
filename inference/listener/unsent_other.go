//go:build !linux && !darwin

package listener

// boundUnsent is not available on this system: the progress of slow readers is seen late.
func boundUnsent(int) {}
