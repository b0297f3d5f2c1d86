//go:build !linux

package process

// LimitMemory bounds nothing here: the system counts reserved addresses as memory.
func LimitMemory(int64, int64) error { return nil }
