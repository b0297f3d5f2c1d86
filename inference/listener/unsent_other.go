//go:build !linux && !darwin

package listener

// boundUnsent cannot be asked for here: the progress of slow readers is seen late.
func boundUnsent(int) {}
